"""The public names: a run, a comparison and a table of scores from Python, and a head in a loop of one's own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import headwater
from headwater.__main__ import dispatch
from headwater.api import progress
from headwater.corpus import load_corpus, read_audio
from headwater.downstream import load_task
from headwater.upstream import WeightedSum, load_upstream

OPTIONS = {"training.steps": 20, "training": {"eval_every": 10, "batch_size": 8}, "optimizer.lr": 1e-2}


@pytest.fixture(scope="module")
def two(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> list[headwater.Run]:
    """Two runs trained from Python."""
    folder = tmp_path_factory.mktemp("api")
    places = {folder / "one": "fbank_no_cmvn", folder / "two": "mfcc"}
    return [headwater.train("emotion", name, data=tones, folder=place, options=OPTIONS) for place, name in places.items()]


@pytest.fixture(scope="module")
def layered(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> headwater.Run:
    """A run with the score of each layer alone."""
    return headwater.train("emotion", "test_hubert", data=tones, folder=tmp_path_factory.mktemp("api") / "layered")


@pytest.fixture(scope="module")
def folds(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> headwater.Run:
    """Two folds of a table without a split of its own."""
    table = tones.with_name("unsplit.csv")
    table.write_text("\n".join(line.rpartition(",")[0] for line in tones.read_text().splitlines()) + "\n")
    place = tmp_path_factory.mktemp("api") / "folds"
    return headwater.train("emotion", "fbank_no_cmvn", data=table, folder=place, folds=[1, 2])


def test_a_run_is_its_result_and_goes_on(two: list[headwater.Run], tones: Path) -> None:
    again = headwater.train("emotion", "fbank_no_cmvn", data=tones, folder=two[0].folder, options=OPTIONS)
    assert again["steps"] == 20
    assert dict(headwater.Run(two[0].folder)) == dict(again) == json.loads((two[0].folder / "result.json").read_text())
    assert Path(again) == again.folder
    assert repr(again) == f"Run('{again.folder}')"
    assert str(again).startswith("emotion · fbank_no_cmvn")
    assert "<th>metric</th>" in again._repr_html_()
    assert {*again.scores.split} == {"dev", "test"}


def test_predictions_are_a_list_and_a_table(two: list[headwater.Run], tones: Path) -> None:
    files = [tones.with_name("00.wav"), tones.with_name("01.wav")]
    found = two[0].predict(files)
    assert isinstance(found, headwater.Predictions)
    assert found == headwater.load_run(two[0]).predict(files)
    assert list(found.frame.columns) == ["file", "start", "seconds", "label", *found[0].scores]
    assert [*found.frame.label] == [one.label for one in found]
    assert "<td>" in found._repr_html_()
    assert two[0].predict(files[0]) == found[0]


def test_the_same_command_in_the_shell_has_the_same_folder(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-u", "fbank_no_cmvn", "-d", "emotion", "--data", str(tones), "-o", "training.steps=2", "--quiet"]
    assert dispatch(["downstream", *words]) == 0
    run = headwater.train("emotion", "fbank_no_cmvn", data=tones, options={"training.steps": 2})
    assert [path.name for path in (tmp_path / "result" / "downstream").iterdir()] == [run.folder.name]


def test_results_are_a_row_for_each_metric_of_each_split(two: list[headwater.Run]) -> None:
    table = headwater.results(two[0].folder.parent)
    assert {*table.upstream} == {"fbank_no_cmvn", "mfcc"}
    assert {*zip(table.split, table.metric, strict=True)} >= {("test", "ua"), ("dev", "loss")}
    whole = table.dropna(subset=["low"])
    assert ((whole.low <= whole.value) & (whole.value <= whole.high)).all()


def test_a_plan_counts_as_one_with_its_predictions_pooled(folds: headwater.Run) -> None:
    pooled, each = headwater.results(folds), headwater.results(folds.folder.parent, each=True)
    assert [*pooled.runs.unique()] == [2]
    assert {*each.fold} == {1, 2}
    ua = pooled[(pooled.split == "test") & (pooled.metric == "ua")]
    assert ua.value.item() == folds["pooled"]["test"]["scores"]["ua"]
    assert ua.spread.item() == folds["mean"]["test"]["ua"]["spread"]
    assert [*folds.scores.columns] == ["split", "metric", "value", "low", "high", "spread"]


def test_results_of_a_folder_without_runs_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        headwater.UserError, match=r"Expected finished runs in the folders given, found none in '.*'\. Train a run"
    ):
        headwater.results(tmp_path)
    with pytest.raises(headwater.UserError, match=r"Expected a finished run in '.*', found none\. Check the path"):
        headwater.Run(tmp_path)


def test_two_runs_are_compared_and_the_comparison_is_shown(two: list[headwater.Run]) -> None:
    found = headwater.compare(*two)
    assert isinstance(found, headwater.ComparedRuns)
    assert found.metric == headwater.compare([str(place.folder) for place in two]).metric == "ua"
    assert repr(found).splitlines()[-1] == found.verdict
    assert "cannot be told apart" in found.verdict or "is better than" in found.verdict
    assert {"ua", "wa"} <= {*found.frame.metric}
    assert "<pre" in found._repr_html_()
    with pytest.raises(headwater.UserError, match="Expected at least two runs to compare, found 1"):
        headwater.compare(two[0])


def test_layers_are_tables(layered: headwater.Run) -> None:
    weights, curve = layered.layer_weights, headwater.layer_curve(layered)
    assert [*weights.layer] == [*range(len(weights))]
    assert weights.weight.sum() == pytest.approx(1)
    assert [*curve.layer][:-1] == [*weights.layer]


def test_an_audit_is_its_content_and_is_shown(layered: headwater.Run) -> None:
    found = headwater.audit(layered)
    assert isinstance(found, headwater.Audit)
    assert json.loads((layered.folder / "audit.json").read_text()) == dict(found)
    assert len(found.frame) == len(found["findings"]) > 3
    assert found.warnings == [line[2:] for line in repr(found).splitlines() if line.startswith("! ")]


def test_pictures_are_figures_and_nothing_is_written(
    two: list[headwater.Run], layered: headwater.Run, folds: headwater.Run, tmp_path: Path
) -> None:
    places = [two[0].folder, layered.folder, folds.folder]
    before = [sorted(place.rglob("*")) for place in places]
    table = tmp_path / "joint.csv"
    table.write_text("left_out,A:higher,B:lower\n,0.5,0.5\nA,,0.6\nB,0.4,\n")
    figures = [
        headwater.plot_layers(layered),
        headwater.plot_curves(two[0]),
        headwater.plot_confusion(two[0]),
        headwater.plot_confusion(folds),
        headwater.plot_relations(table),
    ]
    assert all(isinstance(figure, Figure) for figure in figures)
    assert all(figure._repr_png_() for figure in figures)
    assert [sorted(place.rglob("*")) for place in places] == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_turbo_runs_have_a_geometry(rated: Path, tmp_path: Path) -> None:
    options = {**OPTIONS, "turbo.joint_dim": 8, "training.steps": 4, "training.eval_every": 4}
    run = headwater.train(
        "turbo", "fbank_no_cmvn", text_upstream="hashed_words", data=rated, folder=tmp_path / "turbo", options=options
    )
    assert [len(headwater.plot_geometry(run, kind=kind).axes) for kind in ("plane", "density")] == [1, 2]
    with pytest.raises(headwater.UserError, match="Expected a name for each of 1 runs, found 2"):
        headwater.plot_geometry(run, names=["a", "b"])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda run, _: headwater.plot_curves(run), "Expected a run that is trained by steps .* solver=exact"),
        (lambda _, plan: headwater.plot_curves(plan), "Expected one run, found the plan .* Name one of its runs: .*fold1"),
        (lambda run, _: headwater.plot_confusion(run, "train"), "Expected a confusion of split 'train' in .*, found dev, test"),
        (lambda run, _: headwater.plot_confusion(run, task="ks"), r"Expected a task of the run \(emotion\), found 'ks'"),
        (lambda run, _: headwater.plot_relations(run), "Expected the relations of joint runs in .* scenario='relations'"),
        (lambda *_: headwater.train("emotion", "fbank", demo=True, folds="some"), "Expected folds='all' or numbers"),
        (lambda *_: headwater.train("emotion", demo=True), "Expected an upstream, found none"),
        (lambda *_: headwater.train("emotion", "fbank", name="a", folder="b"), "found both folder and name"),
        (lambda *_: headwater.mtl("emotion", "fbank"), "Expected a list of tasks, found 'emotion'"),
        (lambda *_: headwater.train("emotion", "fbank", demo=True, folds=[]), r"Expected folds=\[1, 2\].* found \[\]"),
        (lambda *_: headwater.train("emotion", "fbank", demo=True, folds=3), r"Expected folds=\[1, 2\].* found 3\. For one"),
        (lambda *_: headwater.train("emotion", "fbank", demo=True, seeds=[]), r"Expected seeds=\[1, 2\].* found \[\]"),
        (lambda *_: headwater.train("emotion", "fbank", demo=True, seeds=["1"]), r"Expected seeds=\[1, 2\].* found \['1'\]"),
        (lambda *_: headwater.train("ks", "fbank", options=["seed=1"]), r"Expected options=.* a mapping, found \['seed=1'\]"),
        (lambda *_: headwater.train(["ks", "ks"], "fbank", demo=True), "Expected each task once, found ks, ks"),
        (lambda *_: headwater.mtl(["emotion", "ks"], "fbank", demo=True, seeds=[]), r"Expected seeds=\[1, 2\].* found \[\]"),
        (lambda *_: headwater.layer_curve(), "Expected a run or its folder, found none"),
        (lambda *_: headwater.plot_layers(), "Expected a run or its folder, found none"),
        (lambda *_: headwater.plot_geometry(), "Expected a run or its folder, found none"),
        (lambda run, _: headwater.load_runs((run,)), r"Expected a run, or a run and its task as \(RUN, TASK\)"),
    ],
)
def test_a_mistake_is_one_line(
    draw: Callable[[headwater.Run, headwater.Run], object], message: str, layered: headwater.Run, folds: headwater.Run
) -> None:
    with pytest.raises(headwater.UserError, match=message):
        draw(layered, folds)


def test_a_table_without_pandas_is_one_line(layered: headwater.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert "<table>" in layered._repr_html_()
    with pytest.raises(headwater.UserError, match=r"Expected pandas for a table in Python, found none\. Run: pip install pandas"):
        headwater.results(layered)


def test_a_joint_run_is_trained_from_python(rated: Path, tmp_path: Path) -> None:
    options = {"training.steps": 4, "training.eval_every": 4, "training.batch_size": 8, "tasks.avd.avd.scale": [1, 7]}
    result = headwater.train(["emotion", "avd"], "fbank_no_cmvn", data=rated, folder=tmp_path, options=options)
    assert {*result["tasks"]} == {"emotion", "avd"}
    assert {*headwater.results(tmp_path).task} == {*result.scores.task} == {"emotion", "avd"}


def test_a_plan_of_joint_runs_says_which_task_helps_which(rated: Path, tmp_path: Path) -> None:
    options = {"training": {"steps": 2, "eval_every": 2}, "tasks.dsd.labels.column": "directed", "shared_weights": True}
    options |= {"upstream.trainable": False, "tasks.emotion.batch_size": 4, "tasks.dsd.batch_size": 4}
    data = {"emotion": rated, "dsd": rated}
    plan = headwater.mtl(["emotion", "dsd"], "test_hubert", scenario="relations", data=data, folder=tmp_path, options=options)
    assert isinstance(plan, headwater.JointPlan)
    assert [*plan.runs] == ["all/seed1", "without-emotion/seed1", "without-dsd/seed1"]
    assert {*plan.scores.task} == {"emotion", "dsd"}
    assert {"source", "target", "change"} <= {*plan.relations.columns}
    assert "Table 1" in repr(plan)
    assert isinstance(headwater.plot_relations(plan), Figure)
    assert plan.folder == tmp_path


def test_progress_in_a_notebook_is_one_line_that_is_gone_at_the_end(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(progress, "line_of_notebook", lambda: lines.append)
    headwater.train("emotion", "fbank_no_cmvn", data=tones, folder=tmp_path / "run", options=OPTIONS)
    assert [line for line in lines if line.startswith("step 20 of 20: dev ua ")]
    assert lines[-1] == ""
    assert not any("\n" in line for line in lines)
    assert capsys.readouterr() == ("", "")
    with progress.shown(None):
        print("note      what is worth reading", file=sys.stderr)
    assert capsys.readouterr().err == "note      what is worth reading\n"


def test_class_names_alone_make_a_head_that_trains_in_a_loop_of_the_user(tones: Path) -> None:
    rows = load_corpus("manifest", str(tones)).splits["train"][:24]
    names = ["low", "middle", "high"]
    upstream = load_upstream("fbank_no_cmvn")
    mix, head = WeightedSum(upstream.spec.num_layers), load_task("emotion").head(names, upstream)
    optimizer = torch.optim.Adam([*mix.parameters(), *head.parameters()], lr=1e-2)
    layers = upstream([read_audio(row.audio) for row in rows])
    targets = torch.tensor([names.index(row.labels["label"]) for row in rows])
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(head({"audio": mix(layers)}).values, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_a_head_without_an_upstream_is_one_line() -> None:
    with pytest.raises(headwater.UserError, match="Expected an upstream beside the classes, found none"):
        load_task("emotion").head(["a", "b"])
