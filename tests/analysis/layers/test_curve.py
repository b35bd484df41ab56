"""The curve of single layers: intervals, what cannot be told apart, and which to believe of curve and weights."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from constructed import Constructed

from headwater.__main__ import dispatch
from headwater.analysis.comparison.paired import Rescored, quick_gap
from headwater.analysis.comparison.sides import Side
from headwater.analysis.layers.curve import curve_rows, measure, read_curves
from headwater.analysis.layers.explain import massive_dimension, verdict
from headwater.analysis.layers.picture import layers
from headwater.analysis.report.report import report
from headwater.core.errors import UserError
from headwater.core.files import read_json
from headwater.downstream.base import Outcome
from headwater.downstream.emotion.question import QUESTION
from headwater.downstream.metrics import bootstrap_interval
from headwater.runs import prepare
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

QUIET = Runtime("cpu", quiet=True)
CLASSES = ("a", "b", "c")


def train(folder: Path, table: Path, task: str = "emotion", **more: Any) -> Path:
    """Train the bare command with options above it."""
    given = {"task": task, "upstream": {"name": "test_hubert"}, "corpus": {"data": str(table)}, "store": {"mode": "off"}}
    run(resolve([task_default(task), given, more]), folder, QUIET)
    return folder


def resplit(table: Path, name: str, tested: range) -> Path:
    """Write a table anew with other speakers in the test; of the rest one in four is dev."""
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("split")
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        speaker = int(next(cell for cell in row if cell.startswith("spk"))[3:])
        row[column] = "test" if speaker in tested else "dev" if speaker % 4 == 3 else "train"
    path = table.with_name(name)
    path.write_text("\n".join([lines[0], *(",".join(row) for row in rows)]) + "\n")
    return path


@pytest.fixture(scope="module")
def wide(tones: Path) -> Path:
    """The tones with eight speakers in the test."""
    return resplit(tones, "wide.csv", range(4, 12))


@pytest.fixture(scope="module")
def constructed(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs over an upstream of which layer 5 alone knows: `exact`, and `adam`, which sums raw layers."""
    folder = tmp_path_factory.mktemp("constructed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "load_upstream", lambda *_: Constructed())
        patch.setattr(prepare, "find_upstream", lambda *_: None)
        train(folder / "exact", wide)
        train(folder / "together", wide, exact={"together": True})
        train(folder / "adam", wide, training={"steps": 40})
    return folder


def test_curve_and_mixture_find_the_layer_that_knows_and_raw_weights_mislead(constructed: Path, tmp_path: Path) -> None:
    text = layers([constructed / "adam", constructed / "exact"], tmp_path)
    assert text.splitlines()[-1] == f"written to {tmp_path}/layer-curve.png, .pdf and .csv"
    assert "p: how often any layer would differ as much" in text
    [curve] = read_curves([constructed / "exact"])
    assert curve.best.layer == 5
    assert curve.best.interval is not None
    assert all(point.is_told_apart for point in curve.layers if point.layer != 5)
    assert "worse: 0, 1, 2, 3, 4, 6" in text
    assert "the mixture of z-scored layers says layer 5 (1.00, where even ones are 0.14), as the curve does" in text
    assert "raw weight × norm says layer 6" in text
    assert "believe the curve; dimension 0 of layer 6 carries 100 % of its square" in text
    raw = next(line for line in text.splitlines() if line.startswith("raw weights say"))
    assert "where layer 5 scores" in raw
    assert "believe the curve; " in raw


def test_curve_is_drawn_and_written(constructed: Path, tmp_path: Path) -> None:
    layers([constructed / "adam", constructed / "exact"], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"layer-curve.csv", "layer-curve.png", "layer-curve.pdf"}
    with (tmp_path / "layer-curve.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows[:-1]] == list("0123456")
    written = read_json(constructed / "exact" / "layers.json")["roles"]["audio"]["layers"]
    for row, layer in zip(rows, written, strict=False):
        assert float(row["value"]) == pytest.approx(layer["scores"]["test"]["ua"], abs=1e-5)
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    assert sum(float(row["mixture"]) for row in rows[:-1]) == pytest.approx(1, abs=1e-4)
    assert float(rows[6]["raw_weight_x_norm_share"]) > 0.9


def test_the_curve_is_a_table_in_python(constructed: Path) -> None:
    rows = curve_rows(constructed / "exact", metric="wa")
    assert [row["layer"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, "mixture"]
    assert rows[5]["minus_best"] is None
    assert rows[6]["minus_best_high"] < 0
    assert {row["metric"] for row in rows} == {"wa"}


def test_a_head_on_all_layers_at_once_stands_beside_the_curve(constructed: Path, tmp_path: Path) -> None:
    run_folder = constructed / "together"
    text = layers([constructed / "adam", run_folder], tmp_path)
    [curve] = read_curves([run_folder])
    written = read_json(run_folder / "layers.json")["together"]
    assert curve.together is not None
    assert curve.together.score == pytest.approx(written["scores"]["test"]["ua"], abs=1e-5)
    assert curve.together.interval is not None
    assert np.argmax(written["shares"]["audio"]) == 5
    assert sum(written["shares"]["audio"]) == pytest.approx(1)
    assert "all together" in text
    rows = curve_rows(run_folder)
    assert [row["layer"] for row in rows[-2:]] == ["all together", "mixture"]
    assert rows[:7] == curve_rows(constructed / "exact")[:7]


def test_few_speakers_give_scores_without_intervals(tones: Path, tmp_path: Path) -> None:
    text = layers([train(tmp_path / "run", tones)], tmp_path / "out")
    assert "no intervals: 2 speakers, an interval takes 8. Pool the folds (--folds all) to tell layers apart" in text
    assert "95 % interval" not in text
    assert "p: how often" not in text


@pytest.mark.parametrize(
    ("task", "more", "roles", "metric"),
    [
        ("avd", {"avd": {"scale": [1, 7]}, "text_upstream": {"name": "test_bert"}}, {"audio", "text"}, "ccc"),
        ("dsd", {"text_upstream": {"name": "hashed_words"}, "labels": {"column": "directed"}}, {"audio"}, "eer"),
    ],
)
def test_ratings_and_error_rates_have_curves_too(
    rated: Path, tmp_path: Path, task: str, more: Mapping[str, Any], roles: set[str], metric: str
) -> None:
    folder = train(tmp_path / "run", rated if task == "avd" else resplit(rated, "wide.csv", range(4, 12)), task, **more)
    curves = read_curves([folder])
    assert {curve.role for curve in curves} == roles
    for curve in curves:
        assert curve.metric == metric
        written = read_json(folder / "layers.json")["roles"][curve.role]["layers"]
        assert [point.score for point in curve.layers] == pytest.approx(
            [layer["scores"]["test"][metric] for layer in written], abs=1e-6
        )
        assert curve.own.score == pytest.approx(read_json(folder / "result.json")["scores"]["test"][metric], abs=1e-5)
        assert curve.best.score == (min if metric == "eer" else max)(point.score for point in curve.layers)
        assert curve.has_intervals == (task == "dsd")
    assert layers([folder], tmp_path / "out").count("each alone") == len(roles)


def test_an_operating_point_is_placed_for_each_layer_by_its_own_dev(rated: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", resplit(rated, "point.csv", range(4, 12)), "dsd", labels={"column": "directed"})
    [curve] = read_curves([folder], "acc_point")
    assert len({point.score for point in curve.layers}) > 1
    scores = {point.layer: point.score for point in curve.layers}
    assert all(0 <= score <= 1 for score in scores.values())


def test_folds_are_pooled_as_a_plan_or_by_name(wide: Path, tones: Path, tmp_path: Path) -> None:
    first, second = train(tmp_path / "a" / "fold1", wide), train(tmp_path / "a" / "fold2", resplit(tones, "other.csv", range(4)))
    [curve] = read_curves([first, second])
    assert (curve.utterances, curve.speakers, len(curve.mixtures)) == (72, 12, 2)
    with pytest.raises(UserError, match="Expected each utterance once in split 'test'"):
        read_curves([first, first])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"upstream": {"layer": 2}},
            "Expected an upstream of several layers in '.*', found one layer: there is no curve to draw",
        ),
        ({"exact": {"each_layer": False}}, r"found none \(exact.each_layer=false, or a final model\). Train with solver=exact"),
        ({"training": {"steps": 2}}, r"found a run of solver=adam\. Train with solver=exact\."),
    ],
)
def test_a_run_without_a_curve_says_so(tones: Path, tmp_path: Path, more: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        curve_rows(train(tmp_path / "run", tones, **more))


def test_weights_of_another_upstream_are_refused(constructed: Path, tones: Path, tmp_path: Path) -> None:
    other = train(tmp_path / "run", tones, training={"steps": 2})
    with pytest.raises(UserError, match="Expected runs of one upstream, found constructed, test_hubert"):
        layers([constructed / "exact", other], tmp_path / "out")


def test_the_command_prints_the_verdict(constructed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["plot", "layers", str(constructed / "exact"), "--metric", "wa", "--out", str(tmp_path)]) == 0
    assert "layer 5 alone scores best in WA" in capsys.readouterr().out


def test_the_report_shows_the_curve_and_the_verdict_after_the_score(constructed: Path, tmp_path: Path) -> None:
    report([constructed / "exact"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("The score of each layer alone") < page.index("worse: 0, 1, 2, 3, 4, 6") < page.index("macro_f1")
    assert "Layer weights" not in page
    report([constructed / "adam"], tmp_path / "adam.html")
    assert "Layer weights" in (tmp_path / "adam.html").read_text(encoding="utf-8")


def test_no_dimension_is_named_where_none_is_massive(constructed: Path) -> None:
    assert massive_dimension([constructed / "exact"], "emotion", "audio", 0) is None
    assert massive_dimension([constructed / "exact"], "emotion", "audio", 6) is not None


def test_where_the_mixture_leans_to_a_worse_layer_the_curve_is_believed(constructed: Path) -> None:
    [curve] = read_curves([constructed / "exact"])
    object.__setattr__(curve, "mixtures", np.eye(7)[[2]])
    assert any("says layer 2 (1.00, where even ones are 0.14), but layer 2 alone" in line for line in verdict(curve))


def simulated(generator: np.random.Generator, right: list[np.ndarray], utterances: int = 3) -> tuple[list[Outcome], list[str]]:
    """Return systems that are right with a share of their own for each speaker, and the speakers of the utterances."""
    speakers = np.repeat(np.arange(len(right[0])), utterances)
    truth = generator.integers(3, size=len(speakers))
    ids, references = tuple(map(str, range(len(truth)))), tuple(CLASSES[place] for place in truth)
    found = []
    for shares in right:
        predicted = np.where(
            generator.random(len(truth)) < shares[speakers], truth, (truth + generator.integers(1, 3, len(truth))) % 3
        )
        scores = torch.nn.functional.one_hot(torch.from_numpy(predicted), 3).float()
        found.append(Outcome(ids, tuple(CLASSES[place] for place in predicted), references, scores))
    return found, [f"s{speaker}" for speaker in speakers]


def test_intervals_over_two_hundred_speakers_in_two_folds_cover_what_is_true() -> None:
    """100 repetitions: at 95 %, fewer than 88 or more than 99 covered would come about once in 500 times."""
    generator, covered, gaps_covered, repetitions = np.random.default_rng(0), 0, 0, 100
    for _ in range(repetitions):
        # each fold's heads are their own: the shares of its speakers move together a little
        shares = [np.concatenate([generator.beta(8 * mean, 8 * (1 - mean), 100) for _ in range(2)]) for mean in (0.6, 0.7)]
        outcomes, speakers = simulated(generator, shares)
        _, units = np.unique(speakers, return_inverse=True)
        vocabulary = {"classes": [*CLASSES]}
        answer = QUESTION.answer(vocabulary)
        sides = tuple([outcome.columns(answer)] for outcome in outcomes)
        slow = Rescored((sides[0], sides[1]), units, lambda outcome: QUESTION.score({"classes": [*CLASSES]}, outcome, {}))
        gap = quick_gap("ua", (sides[0], sides[1]), units, answer, slow)
        assert gap is not None
        names = [str(unit) for unit in range(200)]
        own, apart = (bootstrap_interval(one, names, repeats=200) for one in (gap.second, gap.drawn))
        assert own is not None
        assert apart is not None
        covered += own[0] <= 0.7 <= own[1]
        gaps_covered += apart[0] <= 0.1 <= apart[1]
    assert 88 <= covered <= 99
    assert 88 <= gaps_covered <= 99


def test_equal_layers_are_told_apart_rarely() -> None:
    """Of five layers that know as much as the sixth, over 10 speakers, at most one in ten is called worse: of 60, six."""
    generator, wrong = np.random.default_rng(1), 0
    vocabulary = {"classes": [*CLASSES]}
    side = Side(Path("none"), "emotion", "c", "p", "u", (), ("test",), {1: ()}, QUESTION, vocabulary)
    for _ in range(12):
        outcomes, speakers = simulated(generator, [np.full(10, 0.7)] * 7)
        found = measure(side, [[outcome] for outcome in outcomes], 6, speakers, "ua", "test", higher=True)
        wrong += sum(gap is not None and not gap.holds_0 and gap.p is not None and gap.p < 0.05 for _, _, gap in found)
    assert wrong <= 6
