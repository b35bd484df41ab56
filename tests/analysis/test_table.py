"""Tables: what stands beside what, and what must not stand there."""

from __future__ import annotations

import doctest
from typing import Any

import pytest

from headwater.analysis import table


def result(**changes: Any) -> dict[str, Any]:
    scores = {"wa": 0.6104, "ua": 0.6, "macro_f1": 0.59}
    whole = {
        "task": "emotion",
        "upstream": "hubert",
        "corpus": "iemocap",
        "protocol": "superb",
        "fold": 1,
        "seed": 3,
        "marks": [],
        "best_step": 500,
        "select_by": "ua",
        "scores": {"dev": {**scores, "loss": 1.0}, "test": {**scores, "loss": 1.25}},
        "intervals": {
            "dev": dict.fromkeys(scores),
            "test": {name: [value - 0.05, value + 0.05] for name, value in scores.items()},
        },
        "num_speakers": {"dev": 2, "test": 10},
        "counts": {"test": {"neu": 12, "hap": 20}},
        "reference": [{"metric": "wa", "value": 0.6492, "source": "A paper, table 2", "protocol": "superb"}],
    }
    return whole | changes


def plan(**changes: Any) -> dict[str, Any]:
    runs = [
        {"name": f"fold{fold}", "setting": "", "seed": 0, "fold": fold, "scores": {"dev": {"ua": 0.7}, "test": {"ua": fold / 10}}}
        for fold in range(1, 6)
    ]
    whole = {
        "mean": {"dev": {}, "test": {"ua": {"mean": 0.3, "spread": 0.158114, "runs": 5}}},
        "pooled": {"test": {"scores": {"ua": 0.31}, "intervals": {"ua": [0.25, 0.4]}, "num_speakers": 10}},
        "runs": runs,
    }
    described = {
        key: value for key, value in result().items() if key in {"task", "upstream", "corpus", "protocol", "marks", "select_by"}
    }
    return described | whole | changes


def cells(text: str, first: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split("  ")[0].strip() == first]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_the_docstrings_example_holds() -> None:
    assert doctest.testmod(table).failed == 0


def test_an_interval_stands_beside_its_value() -> None:
    assert cells(table.result_table(result()), "wa") == ["wa", "0.610", "0.610", "[0.560, 0.660]", "0.649"]


@pytest.mark.parametrize(
    ("speakers", "reason"),
    [
        (1, "1 test speaker: no interval"),
        (2, "2 test speakers: no interval"),
        (0, "speakers not known: no interval"),
        (10, "speakers not known: no interval"),  # of some utterances
    ],
)
def test_where_there_is_no_interval_the_reason_stands_there(speakers: int, reason: str) -> None:
    text = table.result_table(result(intervals={"test": {"wa": None, "ua": None}}, num_speakers={"test": speakers}))
    assert reason in cells(text, "wa")


def test_dev_that_chose_the_step_gets_no_interval() -> None:
    assert "interval (dev)" not in table.result_table(result())


def test_the_loss_has_no_interval_and_no_reason() -> None:
    assert cells(table.result_table(result()), "loss") == ["loss", "1.000", "1.250"]


def test_classes_and_speakers_are_counted() -> None:
    assert "test: 32 utterances (neu 12, hap 20), 10 speakers" in table.result_table(result())


def test_a_reference_names_its_source_and_protocol() -> None:
    assert "reference wa: A paper, table 2, protocol superb" in table.result_table(result())


@pytest.mark.parametrize(
    "make", [lambda marks: table.result_table(result(marks=marks)), lambda marks: table.summary_table(plan(marks=marks))]
)
def test_marks_stand_on_top_and_no_reference_beside_them(make: Any) -> None:
    text = make(["DEMO", "UNTRAINED"])
    assert text.splitlines()[0] == "DEMO UNTRAINED"
    assert "0.649" not in text
    assert "A paper" not in text


def test_a_plan_shows_each_run_then_spread_and_interval_in_columns_of_their_own() -> None:
    text = table.summary_table(plan())
    runs = [
        line.split() for line in text.splitlines() if line.split()[-1:] and line.split()[-1].startswith("0.") and "±" not in line
    ]
    assert runs == [["0", str(fold), f"0.{fold}00"] for fold in range(1, 6)]
    assert "mean ± spread over 5 folds  pooled  95 % interval (pooled)" in text
    assert cells(text, "ua") == ["ua", "0.300 ± 0.158", "0.310", "[0.250, 0.400]"]


def test_a_plan_of_one_run_has_no_spread() -> None:
    summary = plan(mean={"test": {"ua": {"mean": 0.1, "spread": None, "runs": 1}}}, runs=plan()["runs"][:1], pooled={})
    text = table.summary_table(summary)
    assert not {"mean", "spread", "pooled"} & {*text.split()}
    assert cells(text, "ua") == ["ua", "0.100"]


def test_a_plan_of_one_run_shows_its_score_once_with_the_interval() -> None:
    summary = plan(mean={"test": {"ua": {"mean": 0.31, "spread": None, "runs": 1}}}, runs=plan()["runs"][:1])
    assert cells(table.summary_table(summary), "ua") == ["ua", "0.310", "[0.250, 0.400]"]
    assert "95 % interval (test)" in table.summary_table(summary)


def test_a_sweep_has_a_row_for_each_setting_and_shows_that_dev_decided() -> None:
    runs = [{**run, "setting": setting} for setting in ("optimizer.lr=1e-4", "optimizer.lr=1e-3") for run in plan()["runs"]]
    sweep = {"optimizer.lr=1e-4": 0.61, "optimizer.lr=1e-3": 0.73}
    text = table.summary_table(plan(runs=runs, sweep=sweep, chosen="optimizer.lr=1e-3"))
    lines = [line.split() for line in text.splitlines()]
    assert ["setting", "dev", "ua", "test", "ua"] in lines
    assert ["optimizer.lr=1e-4", "0.610", "0.300", "±", "0.158"] in lines
    assert ["optimizer.lr=1e-3", "0.730", "0.300", "±", "0.158", "chosen", "on", "dev"] in lines
    assert sum(line[:1] == ["0"] for line in lines) == 5  # the runs of the chosen setting alone
    assert "over 5 folds" in text


def test_a_probe_of_single_runs_has_one_row_for_each_layer_and_no_other() -> None:
    runs = [{**plan()["runs"][layer], "setting": f"layer{layer}"} for layer in range(3)]
    sweep = {f"layer{layer}": [0.5, 0.7, 0.6][layer] for layer in range(3)}
    text = table.summary_table(plan(runs=runs, sweep=sweep, chosen="layer1"))
    assert [line.split()[:3] for line in text.splitlines() if line.startswith("layer")] == [
        ["layer0", "0.500", "0.100"],
        ["layer1", "0.700", "0.200"],
        ["layer2", "0.600", "0.300"],
        ["layer1:"],
    ]


def test_a_corpus_without_test_split_shows_dev() -> None:
    runs = [{**run, "scores": {"dev": {"ua": 0.7}}} for run in plan()["runs"]]
    text = table.summary_table(plan(runs=runs, pooled={}, mean={"dev": {"ua": {"mean": 0.7, "spread": 0.0, "runs": 5}}}))
    assert "scores on dev" in text
    assert cells(text, "ua") == ["ua", "0.700 ± 0.000"]


def test_each_test_split_has_its_own_means() -> None:
    runs = [{**run, "scores": {split: {"ua": 0.5} for split in ("dev", "test1", "test2")}} for run in plan()["runs"]]
    mean = {split: {"ua": {"mean": 0.5, "spread": 0.0, "runs": 5}} for split in ("dev", "test1", "test2")}
    text = table.summary_table(plan(runs=runs, mean=mean, pooled={}))
    assert [line for line in text.splitlines() if line.startswith("scores on")] == ["scores on test1", "scores on test2"]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    lines = [line for line in table.result_table(result(), markdown=True).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {6}


def test_wide_characters_keep_columns_straight() -> None:
    text = table.render([{"class": "愤怒", "count": "3"}, {"class": "anger", "count": "12"}])
    assert text.splitlines()[1:] == ["愤怒       3", "anger     12"]


def test_details_by_class_are_a_line_of_words() -> None:
    details = {"test": {"recall": {"yes": 0.5, "no": 1.0}}}
    assert "test: recall (yes 0.500, no 1.000)" in table.result_table({**result(), "details": details})


@pytest.mark.parametrize(
    ("exact", "heading"),
    [
        ({"keep": "mixture", "layers": 1}, "seed 3 · exact"),
        ({"keep": "mixture", "layers": 5}, "seed 3 · exact, all layers mixed"),
        ({"keep": "2", "layers": 5}, "seed 3 · exact, layer 2 alone"),
        ({"keep": "mixture"}, "seed 3 · exact, all layers mixed"),
    ],
)
def test_a_mixture_is_named_where_there_is_more_than_one_layer(exact: dict[str, Any], heading: str) -> None:
    assert table.result_table(result(exact=exact)).splitlines()[0].endswith(heading)
