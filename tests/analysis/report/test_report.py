"""The report: one file, everything in it, nothing from elsewhere, and a browser that has no complaint."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser import Browser, complaints, opened
from PIL import Image

from headwater.analysis.relations.relations import relations_of
from headwater.analysis.relations.table import read_table
from headwater.analysis.report.html import cell, element, markdown, text
from headwater.analysis.report.report import report
from headwater.commands import report as command
from headwater.core.errors import UserError
from headwater.core.files import write_json
from headwater.core.run_folder import RunFolder
from headwater.runs.config.recipes import RECIPES

EMPTY = {"meta", "img", "br", "hr", "!doctype"}
HOSTILE = '<img src=x onerror="alert(1)">&"\'</pre></style>'


class Page(HTMLParser):
    """What a page is made of: balanced tags, pictures, words."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.attributes: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> out of place"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(path: Path) -> Page:
    """Read a report as a browser would, and check that it stands alone and that every picture in it is whole."""
    found = Page(path.read_text(encoding="utf-8"))
    assert not found.tags & {"script", "link", "iframe", "object", "embed", "base"}
    for name, value in found.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "href", "srcset"} or value.startswith(("data:image/", "#")), (name, value[:60])
    for image in found.images:
        kind, _, content = (image["src"] or "").partition(";base64,")
        content_bytes = base64.b64decode(content, validate=True)
        if kind == "data:image/svg+xml":
            assert ElementTree.fromstring(content_bytes).tag.endswith("svg")
        else:
            with Image.open(io.BytesIO(content_bytes)) as opened:
                assert opened.width > 100
        assert image["alt"]
    return found


def alternatives(path: Path) -> list[str]:
    """Return what the pictures of a page are called for those who cannot see them, in order."""
    return [str(image["alt"]) for image in page_of(path).images]


@pytest.fixture(scope="module")
def tree(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder: two runs of three seeds, one that is not finished, a table, a figure, relations of tasks."""
    folder = tmp_path_factory.mktemp("report") / "mtl"
    for seed in (1, 2):
        shutil.copytree(finished, folder / f"seed{seed}")
    change(folder / "seed2" / "result.json", seed=2, marks=["DEMO"], notes=["a note on <two> files"])
    recipe = folder / "seed2" / "config.yaml"
    recipe.write_text(recipe.read_text().replace("seed: 1\n", "seed: 2\n"))
    for run, weights in (("seed1", [0.2, 0.8]), ("seed2", [0.4, 0.6])):
        layers = {"emotion/audio": {"weights": weights, "norms": [1.0, 2.0]}}
        write_json(folder / run / "layer_weights.json", {"upstream": "two", "marks": [], "layers": layers})
    (folder / "seed3").mkdir()
    shutil.copy(recipe, folder / "seed3")
    (folder / "table1.md").write_text("All-task runs\n\n| Task | WER |\n| ---- | --: |\n| ASR | **6.1** |\n| PR | <u>3.4</u> |\n")
    Image.new("RGB", (120, 90)).save(folder / "fig2.png")
    relations = relations_of(read_table(RECIPES / "mtl" / "table1.csv"))
    write_json(folder / "relations.json", relations.as_json())
    return folder


def change(path: Path, **values: Any) -> None:
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


@pytest.fixture(scope="module")
def written(tree: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "report.html"
    report([tree, finished], out)
    return out


def test_the_page_stands_alone_and_every_picture_decodes(written: Path) -> None:
    found = page_of(written)
    names = [image["alt"] for image in found.images]
    for picture in ("Learning curves: emotion", "Confusion, test: emotion"):
        assert sum(name.startswith(picture) for name in names) == 3
    assert sum(name.startswith("Confusion, dev: emotion") for name in names) == 1  # of the run that stands alone
    assert {"Layer weights over all runs", "Which task helps and which hurts another", "fig2"} <= {*names}


def test_scores_settings_and_versions_are_those_of_the_folder(written: Path, finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    found = page_of(written).text
    assert f"{result['scores']['test']['ua']:.3f}" in found
    for key in ("headwater", "torch", "transformers", "platform"):
        assert f"{key} {result['environment'][key]}" in found
    assert "optimizer.lr: 0.01" in found
    assert "upstream.name: fbank_no_cmvn" in found
    assert "where runs differ" in found
    assert re.search(r"seed2 .*seed: 2", found)


def test_tables_relations_and_notes_of_a_recipe_are_reported(written: Path) -> None:
    source = written.read_text(encoding="utf-8")
    assert '<td class="number"><b>6.1</b></td>' in source
    assert '<td class="number"><u>3.4</u></td>' in source
    found = page_of(written).text
    assert "-9.2 % thick" in found  # PR helps ASR
    assert "a note on <two> files" in found


def test_what_is_missing_is_left_out_with_a_line(written: Path, finished: Path, tmp_path: Path) -> None:
    assert "left out, not finished: seed3" in page_of(written).text
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "metrics.jsonl").unlink()
    (run / "layer_weights.json").write_text("{", encoding="utf-8")
    report([run], tmp_path / "r.html")
    found = page_of(tmp_path / "r.html").text
    assert "learning curves: left out. Expected a run's 'metrics.jsonl'" in found
    assert "layer weights: left out. Expected a run's json" in found
    assert alternatives(tmp_path / "r.html")[0].startswith("Confusion, test: emotion")


def test_a_result_of_another_version_costs_its_own_piece_only(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    change(run / "result.json", scores={"test": 3}, confusion={"test": [[1]]})
    write_json(run / "relations.json", {"improvement": [{"from": "A"}], "hurt": [], "undefined": []})
    report([run], tmp_path / "r.html")
    found = page_of(tmp_path / "r.html").text
    assert "scores emotion: left out. another format than this version's" in found
    assert "relations: left out. Expected improvement, hurt and undefined" in found


def test_marks_are_at_the_top_and_in_the_title(written: Path, finished: Path, tmp_path: Path) -> None:
    source = written.read_text(encoding="utf-8")
    assert "<title>DEMO · Headwater: mtl, finished</title>" in source
    assert source.index("DEMO: not results to quote") < source.index("<nav>")
    report([finished], tmp_path / "r.html")
    assert "not results to quote" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_labels_and_names_of_files_are_words_not_html(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "<b>run&"
    shutil.copytree(finished, run)
    result = json.loads((finished / "result.json").read_text())
    classes = [HOSTILE, "$\\frac$", *result["classes"][2:]]
    environment = result["environment"] | {"device": HOSTILE}
    change(run / "result.json", classes=classes, notes=[HOSTILE], upstream=HOSTILE, environment=environment)
    recipe = run / "config.yaml"
    recipe.write_text(recipe.read_text() + f"\nmine: {json.dumps(HOSTILE + chr(7))}\n")
    report([run], tmp_path / "r.html")
    found = page_of(tmp_path / "r.html")
    assert found.text.count(HOSTILE) >= 4
    assert "<b>run&" in found.text
    assert "\x07" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_same_folders_give_the_same_page(tree: Path, written: Path, tmp_path: Path, finished: Path) -> None:
    report([tree, finished, tree], tmp_path / "again.html")  # a folder named twice is shown once
    assert (tmp_path / "again.html").read_bytes() == written.read_bytes()


def test_several_tasks_of_a_run_are_reported_one_by_one(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "result.json"
    result = json.loads(path.read_text())
    own = {key: result.pop(key) for key in ("task", "scores", "intervals", "classes", "confusion", "counts", "select_by")}
    scores = {key: own.pop(key) for key in ("scores", "intervals", "classes", "confusion", "counts")}
    lower = scores | {"scores": {"test": {"ua": 0.123}}}
    tasks = {name: own | {"last": scores, "best": scores, "own": lower, "own_step": 40} for name in ("emotion", "moods")}
    write_json(path, result | {"tasks": tasks, "best_step": 60})
    report([run], tmp_path / "r.html")
    found = page_of(tmp_path / "r.html")
    assert sum(name.startswith("Confusion, test: moods") for name in alternatives(tmp_path / "r.html")) == 1  # of the last step
    assert "moods, its own best step" in found.text
    assert "step 40 (best dev ua) metric" in found.text
    assert "moods, best step" not in found.text  # the same scores are told once


def test_a_matrix_too_large_for_a_page_is_left_out(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    change(run / "result.json", classes=[f"id{number}" for number in range(1251)])
    report([run], tmp_path / "r.html")
    assert re.search(r"Confusion, test: emotion.*: left out\. 1251 classes do not fit", page_of(tmp_path / "r.html").text)


def test_the_score_and_a_picture_come_before_any_table(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    intervals = {"test": {"ua": [0.3391, 0.4272]}}
    change(run / "result.json", scores={"test": {"ua": 0.3812}}, intervals=intervals, num_speakers={"test": 24})
    report([run], tmp_path / "r.html")
    source = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<span class="score">UA 0.381</span> <span class="within">[0.339, 0.427]</span>' in source
    assert source.index('class="score"') < source.index("<table>")
    assert "24 speakers" in page_of(tmp_path / "r.html").text
    assert source.count(">run</h") == 1  # one title


@pytest.fixture
def two(finished: Path, tmp_path: Path) -> list[Path]:
    """Two runs on the same utterances, by nine speakers; the second one takes every class for the next."""
    folders = [tmp_path / name for name in ("good", "bad")]
    for folder in folders:
        shutil.copytree(finished, folder)
        path = RunFolder(folder).predictions("test")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        classes = sorted({row["reference"] for row in rows})
        several = [
            {
                **row,
                "id": f"{row['id']}-{speaker}",
                "speaker": f"s{speaker}",
                "prediction": classes[(classes.index(row["reference"]) + (folder.name == "bad")) % len(classes)],
            }
            for speaker in range(9)
            for row in rows
        ]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(several)
        RunFolder(folder).outcome("test").unlink(missing_ok=True)
    change(folders[0] / "result.json", scores={"test": {"ua": 0.9}}, intervals={"test": {"ua": [0.8, 0.95]}})
    change(folders[1] / "result.json", scores={"test": {"ua": 0.5}}, intervals={"test": {"ua": [0.4, 0.6]}})
    return folders


def test_results_are_compared_in_one_table_a_picture_and_a_verdict(two: list[Path], tmp_path: Path) -> None:
    report(two[::-1], tmp_path / "r.html")
    found = page_of(tmp_path / "r.html").text
    table = found[found.index("UA ↑") : found.index("is better than")]
    assert table.index("good 0.900 [0.800, 0.950]") < table.index("bad 0.500 [0.400, 0.600]")  # the best comes first
    assert "good is better than bad by" in found
    assert alternatives(tmp_path / "r.html")[0].startswith("UA of emotion on manifest, test")
    assert "paired bootstrap over speakers" in found


def test_what_cannot_be_compared_is_said_and_the_rest_is_shown(two: list[Path], finished: Path, tmp_path: Path) -> None:
    report([*two, finished], tmp_path / "r.html")
    found = page_of(tmp_path / "r.html").text
    assert "good is better than bad by" in found
    assert "no comparison: Expected the same utterances in split 'test' of 'good' and 'finished'" in found


def test_no_page_holds_a_path_of_this_machine(two: list[Path], finished: Path, tmp_path: Path) -> None:
    change(two[0] / "result.json", upstream=f"{tmp_path}/my_hubert")
    (two[1] / "layer_weights.json").write_text("{", encoding="utf-8")
    recipe = two[1] / "config.yaml"
    recipe.write_text(recipe.read_text() + f"\nmine: {tmp_path}/with a space/x\n")
    report([*two, finished], tmp_path / "r.html")
    source = (tmp_path / "r.html").read_text(encoding="utf-8")
    pictures = [base64.b64decode((image["src"] or "").partition(";base64,")[2]) for image in page_of(tmp_path / "r.html").images]
    for content in (source.encode(), *pictures):
        assert str(tmp_path.parent).encode() not in content
    assert "my_hubert" in source
    assert "mine: x" in source


def test_an_upstream_of_one_layer_has_no_weights_to_show(finished: Path, tmp_path: Path) -> None:
    report([finished], tmp_path / "r.html")
    assert "fbank_no_cmvn has one layer: there are no weights to show" in page_of(tmp_path / "r.html").text


def test_marks_that_all_runs_share_stand_at_the_top_alone(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mtl"
    shutil.copytree(tree, folder)
    change(folder / "seed1" / "result.json", marks=["DEMO"])
    report([folder], tmp_path / "r.html")
    words = re.sub(r"<title>.*?</title>", "", (tmp_path / "r.html").read_text(encoding="utf-8"))
    assert len(re.findall(r">[^<]*\bDEMO\b", words)) == 1


def test_what_is_no_result_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected a folder with results at '.*none', found nothing\. Check the path"):
        command.main([str(tmp_path / "none")])
    with pytest.raises(UserError, match=r"Expected a run, a plan or a recipe's folder at '.*', found no results\. Name"):
        command.main([str(tmp_path)])
    with pytest.raises(UserError, match=r"ends in \.html after --out, found 'report\.pdf'\. Add \.html"):
        command.main([str(tmp_path), "--out", "report.pdf"])


def test_the_command_says_where_the_page_is(finished: Path, tmp_path: Path, capsys: Any) -> None:
    assert command.main([str(finished), "--out", str(tmp_path / "deep" / "r.html")]) == 0
    assert re.fullmatch(r"written to .*/deep/r\.html: 1 run, \d\.\d MB\n", capsys.readouterr().out)


def test_a_bar_in_a_label_leaves_a_table_as_it_is() -> None:
    torn = "| label | ua |\n| ----- | --: |\n| a | b | 0.5 |"
    assert markdown(torn) == element("pre", text(torn))
    assert '<td class="number">0.5</td>' in markdown("| label | ua |\n| ----- | --: |\n| a \\| b | 0.5 |")
    assert "<td>a | b</td>" in markdown("| label | ua |\n| ----- | --: |\n| a \\| b | 0.5 |")


def test_only_our_two_kinds_of_emphasis_pass_through() -> None:
    assert cell("td", "**1** <u>2</u> <i>3</i>", right=False) == "<td><b>1</b> <u>2</u> &lt;i&gt;3&lt;/i&gt;</td>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser, where the machine has one."""
    with opened(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_a_browser_shows_every_picture_without_a_word_on_its_console(written: Path, browser: Browser) -> None:
    browser.open(written.as_uri())
    shown = browser.value("[...document.images].map(image => image.complete && image.naturalWidth > 0 && image.width > 50)")
    assert len(shown) == len(page_of(written).images) >= 10
    assert all(shown)
    assert complaints(browser) == []
    requested = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in requested if not url.startswith("data:")] == [written.as_uri()]  # nothing from elsewhere
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_browser_would_have_complained(tmp_path: Path, browser: Browser) -> None:
    source = '<!doctype html><meta charset="utf-8"><img src="data:image/png;base64,AAAA"><script>nobody()</script>'
    (tmp_path / "broken.html").write_text(source, encoding="utf-8")
    browser.events.clear()
    browser.open((tmp_path / "broken.html").as_uri())
    assert browser.value("[...document.images].map(image => image.naturalWidth)") == [0]
    assert any("Runtime.exceptionThrown" in complaint for complaint in complaints(browser))
    browser.events.clear()


def test_it_prints_on_pages_that_nothing_overflows(written: Path, browser: Browser) -> None:
    browser.events.clear()
    browser.open(written.as_uri())
    printed = base64.b64decode(browser.command("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 4 <= pages <= 30
    browser.command("Emulation.setEmulatedMedia", media="print")
    browser.command(
        "Emulation.setDeviceMetricsOverride", width=690, height=1000, deviceScaleFactor=1, mobile=False
    )  # A4 in its margins
    assert browser.value("[...document.images].every(image => image.getBoundingClientRect().right <= 690)")


def test_the_verb_is_in_the_help(headwater: Callable[..., Any]) -> None:
    help_text = headwater("report", "--help")
    assert help_text.returncode == 0
    assert "--out FILE" in help_text.stdout
