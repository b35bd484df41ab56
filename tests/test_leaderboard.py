"""The leaderboard: ties, numbers without an interval, licences, and its filters in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from site_pages import leaderboard
from site_pages.leaderboard import Cell, Row

STATIC = Path(leaderboard.__file__).parents[1] / "_static"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPEN, RESEARCH = {"licence": "MIT", "use": "open"}, {"licence": "CC BY-NC 4.0", "use": "research"}


def row(*cells: Cell, name: str = "set") -> Row:
    """Return a row of the leaderboard."""
    return Row(name, "", "emotion", "exact", "ua", cells)


def test_what_overlaps_the_best_is_a_tie() -> None:
    one = row(Cell("a", 0.9, (0.85, 0.95), 1), Cell("b", 0.84, (0.80, 0.86), 1), Cell("c", 0.7, (0.6, 0.8), 1))
    assert leaderboard.leaders(one, higher=True) == {"a", "b"}
    assert leaderboard.leaders(one, higher=False) == {"c", "b"}


def test_where_an_interval_is_missing_nothing_is_ranked() -> None:
    assert leaderboard.leaders(row(Cell("a", 0.9, (0.85, 0.95), 1), Cell("b", 0.1, None, 1)), higher=True) == set()


def test_a_result_that_no_other_upstream_shares_is_left_out() -> None:
    same = {"set": "s", "about": "", "task": "emotion", "metric": "ua", "value": 0.5, "interval": None, "seconds": 1}
    results = [same | {"head": head, "upstream": name} for head, name in (("x", "a"), ("x", "b"), ("y", "a"))]
    assert [found.head for found in leaderboard.rows_of([results])] == ["x"]


def test_weights_that_nobody_can_have_are_left_out_and_hashes_of_the_others() -> None:
    same = {"set": "s", "about": "", "task": "emotion", "head": "x", "metric": "ua", "value": 0.5, "interval": None, "seconds": 1}
    by = {name: same | {"upstream": f"{name} 0123abcd"} for name in ("a", "b", "c")}
    found = leaderboard.rows_of([[{"set": "s", "by": by}], [same | {"upstream": "a"}]], {"c"})
    assert [[cell.upstream for cell in row.cells] for row in found] == [["a", "b"]]


def test_a_file_of_results_that_compares_no_upstreams_is_passed_over() -> None:
    assert leaderboard.rows_of([{"steps": 60, "rows": []}, [{"run": "single", "metric": "eer"}]]) == []


def test_the_page_has_every_shared_result_and_knows_every_licence() -> None:
    page = leaderboard.page()
    assert page.count("<tr data-set=") >= 10
    assert "not known" not in page


@pytest.mark.skipif(BROWSER is None and not os.environ.get("HEADWATER_REQUIRE_BROWSER"), reason="needs a browser")
def test_a_filter_hides_weights_and_recordings_that_their_licences_keep_from_it(tmp_path: Path) -> None:
    assert BROWSER, "HEADWATER_REQUIRE_BROWSER is set, and no browser was found"
    cells = Cell("free", 0.9, None, 1), Cell("bound", 0.8, None, 1)
    licences = {"upstreams": {"free": OPEN, "bound": RESEARCH}, "sets": {"A": OPEN, "B": RESEARCH}}
    table = "\n".join(leaderboard.html_of([row(*cells, name="A"), row(*cells, name="B")], licences))
    script = (STATIC / "leaderboard.js").read_text(encoding="utf-8")
    choose = (
        'addEventListener("load", () => { for (const name of ["model", "set"]) document.forms[0][name].value = "open";'
        ' document.forms[0].dispatchEvent(new Event("change")); })'
    )
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{table}<script>{script}{choose}</script>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([BROWSER, *flags, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, check=True)
    body = re.sub(r"<script>.*", "", done.stdout, flags=re.DOTALL)
    assert '<form class="board-filters">' in body
    assert re.findall(r'<tr data-set="(\w+)"[^>]*hidden', body) == ["research"]
    hidden = re.findall(r'<t[hd] data-model="(\w+)"[^>]*hidden', body)
    assert hidden == ["research"] * 3  # the head, and two rows
