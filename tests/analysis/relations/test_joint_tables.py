"""The multi-task paper's table: what is better than with all tasks, what is worse, and the relations it gives."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headwater.analysis.relations.joint_tables import report_table
from headwater.commands import plot
from headwater.plans.scenario import Scenario, plan_scenario

SCORES = {  # part -> task -> test score with the last weights; emotion is better higher, dsd (an error rate) lower
    "single-emotion": {"emotion": 0.5},
    "single-dsd": {"dsd": 0.3},
    "single-avd": {"avd": 0.2},
    "all": {"emotion": 0.60, "dsd": 0.20, "avd": 0.5},
    "without-emotion": {"dsd": 0.25, "avd": 0.5},
    "without-dsd": {"emotion": 0.66, "avd": 0.501},
    "without-avd": {"emotion": 0.54, "dsd": 0.19},
    "transfer-emotion": {"emotion": 0.55},
    "transfer-dsd": {"dsd": 0.21},
    "transfer-avd": {"avd": 0.3},
}
METRICS = {"emotion": "ua", "dsd": "eer", "avd": "ccc"}


def planned(rated: Path, seeds: list[int]) -> Scenario:
    """Return the paper's plan of three tasks."""
    corpus = {"data": str(rated)}
    tasks: dict[str, Any] = {
        "emotion": {"corpus": corpus, "select_by": "ua"},
        "dsd": {"corpus": corpus, "labels": {"column": "directed"}},
        "avd": {"corpus": corpus, "avd": {"scale": [1, 7]}, "select_by": "ccc"},
    }
    return plan_scenario({"upstream": {"name": "test_hubert", "trainable": True}, "tasks": tasks}, "paper", seeds)


def fill(plan: Scenario, folder: Path, scores: Mapping[str, Mapping[str, float]], spread: float = 0.0) -> None:
    """Write the result of each run as if it were finished; a later seed's scores are higher by `spread`."""
    for part in plan.parts:
        name = part.name.split("/")[0]
        if name not in scores:
            continue
        found = {
            task: {"scores": {split: {METRICS[task]: value + spread * (part.seed - 1)} for split in ("dev", "test")}}
            for task, value in scores[name].items()
        }
        kept = {task: {"last": one, "best": one, "own": one} for task, one in found.items()}
        result = {"tasks": kept} if name.startswith(("all", "without")) else next(iter(found.values()))
        place = folder / part.name
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps({"marks": ["UNTRAINED"], **result}))


@pytest.fixture
def table(rated: Path, tmp_path: Path) -> tuple[Path, str]:
    """A plan's folder with its tables, and what is printed."""
    plan = planned(rated, [1])
    fill(plan, tmp_path, SCORES)
    return tmp_path, report_table(plan, tmp_path)


def row(text: str, label: str) -> list[str]:
    """Return the cells of a row of a markdown table."""
    line = next(line for line in text.splitlines() if label in line)
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_better_is_bold_and_worse_underlined_whichever_way_a_metric_points(table: tuple[Path, str]) -> None:
    text = (table[0] / "table1-last.md").read_text()
    assert [cell.split()[-1][-1] for cell in row(text, "emotion ua")] == ["↑", "↓", "↑"]
    assert row(text, "all tasks") == ["0.600", "0.200", "0.500"]
    assert row(text, "all but emotion") == ["X", "<u>0.250</u>", "0.500"]  # more errors are worse; the same is neither
    assert row(text, "all but dsd") == ["**0.660**", "X", "**0.501**"]
    assert row(text, "all but avd") == ["<u>0.540</u>", "**0.190**", "X"]
    assert row(text, "alone") == ["0.500", "0.300", "0.200"]
    assert row(text, "transfer") == ["0.550", "0.210", "0.300"]
    assert text.startswith("UNTRAINED")


def test_the_relations_table_gives_the_relations_through_the_command(table: tuple[Path, str], tmp_path: Path) -> None:
    ours = json.loads((table[0] / "relations.json").read_text())
    plot.plot_relations([str(table[0] / "relations.csv"), "--json", str(tmp_path / "again.json")])
    assert json.loads((tmp_path / "again.json").read_text()) == ours
    edges = {(edge["from"], edge["to"]): (edge["width"], edge["change"]) for edge in ours["improvement"]}
    assert edges == {
        ("emotion", "dsd"): ("thick", pytest.approx(-0.25)),
        ("avd", "emotion"): ("thick", pytest.approx(-0.1)),
    }
    assert {(edge["from"], edge["to"]): edge["width"] for edge in ours["hurt"]} == {
        ("dsd", "emotion"): "thick",
        ("avd", "dsd"): "medium",
    }


def test_a_seed_that_is_missing_does_not_lend_its_name_to_another(rated: Path, tmp_path: Path) -> None:
    plan = planned(rated, [1, 2, 3])
    fill(plan, tmp_path, SCORES, spread=0.01)
    (tmp_path / "all" / "seed1" / "result.json").unlink()
    text = report_table(plan, tmp_path)
    assert "not finished: all/seed1" in text
    lines = [line for line in (tmp_path / "table1.csv").read_text().splitlines() if line.startswith("all,last,emotion")]
    assert [line.split(",")[4:6] for line in lines] == [["2", "0.61"], ["3", "0.62"]]
    rows = list(csv.DictReader((tmp_path / "relations.csv").open()))
    assert [row["emotion:higher"] for row in rows if not row["left_out"]] == ["0.61", "0.62"]


def test_seeds_have_a_mean_and_a_spread(rated: Path, tmp_path: Path) -> None:
    plan = planned(rated, [1, 2])
    fill(plan, tmp_path, SCORES, spread=0.02)
    report_table(plan, tmp_path)
    cells = row((tmp_path / "table1-last.md").read_text(), "all tasks")
    assert cells[0].startswith("0.610 ±")


def test_a_test_split_that_is_not_there_leaves_a_dash(rated: Path, tmp_path: Path) -> None:
    plan = planned(rated, [1])
    fill(plan, tmp_path, SCORES)
    path = tmp_path / "single-dsd" / "seed1" / "result.json"
    path.write_text(json.dumps({"marks": [], "scores": {"dev": {"eer": 0.1}}}))
    report_table(plan, tmp_path)
    assert row((tmp_path / "table1-last.md").read_text(), "alone")[1] == "-"


def test_without_the_joint_run_there_are_no_relations(rated: Path, tmp_path: Path) -> None:
    plan = planned(rated, [1])
    fill(plan, tmp_path, {name: scores for name, scores in SCORES.items() if name != "all"})
    report_table(plan, tmp_path)
    assert not (tmp_path / "relations.json").exists()
    assert "**" not in (tmp_path / "table1-last.md").read_text().split("Bold:")[0]


def test_a_task_is_reported_by_its_own_metric_and_what_departs_from_the_paper_stands_below(rated: Path, tmp_path: Path) -> None:
    corpus = {"corpus": {"data": str(rated)}}
    tasks: dict[str, Any] = {"emotion": {**corpus, "select_by": "ua", "report_by": "wa"}}
    values = {"upstream": {"name": "test_hubert", "trainable": True}, "tasks": tasks, "departures": ["another optimizer"]}
    plan = plan_scenario(values, "single", [1])
    (part,) = plan.parts
    (tmp_path / part.name).mkdir(parents=True)
    scores = {split: {"ua": 0.25, "wa": 0.75} for split in ("dev", "test")}
    (tmp_path / part.name / "result.json").write_text(json.dumps({"marks": [], "scores": scores}))
    printed, written = report_table(plan, tmp_path), (tmp_path / "table1-last.md").read_text()
    for text in (printed, written):
        assert "emotion wa↑" in text
        assert "0.750" in text
        assert "0.250" not in text
        assert text.count("Not as in the paper: another optimizer") == 1
