"""The folds of a plan asked together: the mean of their scores, from one pass of an upstream that they share."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headwater as library
from headwater.commands.use.predict import leakage_note, trained_note
from headwater.core.errors import UserError
from headwater.downstream.answer import Text
from headwater.downstream.asv.answer import Embedding
from headwater.inference.folds import Folds, refuse_unlike
from headwater.inference.load import load_run
from headwater.plans.grid import expand, run_plan
from headwater.runs.config.resolve import resolve
from headwater.runs.runtime import Runtime
from headwater.upstream.families.spectrogram import Spectrogram

SOUND = np.random.default_rng(0).standard_normal(9_000).astype(np.float32)


def planned(table: Path, folder: Path, task: str = "emotion", **upstream: Any) -> Path:
    """A plan of two seeds, of four steps each."""
    training = {"steps": 4, "batch_size": 8, "eval_every": 2}
    upstream = {"name": "fbank_no_cmvn", **upstream}
    corpus = {"data": str(table), "options": {"columns": {"label": "directed"}} if task == "dsd" else {}}
    options: dict[str, Any] = {"avd": {"avd": {"scale": [1, 7], "hidden_dim": 8}}}.get(task, {})
    config = resolve([{"task": task, "upstream": upstream, "corpus": corpus, "training": training}, options])
    run_plan(expand(config, [1], [1, 2], []), folder, Runtime("cpu", quiet=True))
    return folder


@pytest.fixture(scope="module")
def plans(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two seeds of a frozen run, by task."""
    folder = tmp_path_factory.mktemp("plans")
    return {task: planned(rated, folder / task, task) for task in ("emotion", "dsd", "avd")}


@pytest.fixture
def plan(plans: dict[str, Path]) -> Path:
    """Two seeds of a run that asks for one of three classes."""
    return plans["emotion"]


def mean_of(plan: Path) -> dict[str, float]:
    """The mean of what the runs say one by one, by name."""
    each = [load_run(plan / name).predict(SOUND, sampling_rate=16_000).scores or {} for name in ("seed1", "seed2")]
    return {name: (each[0][name] + each[1][name]) / 2 for name in each[0]}


@pytest.mark.parametrize("task", ["emotion", "dsd", "avd"])
def test_a_plan_predicts_with_the_mean_of_its_runs_scores(plans: dict[str, Path], task: str) -> None:
    folder = plans[task]
    requested = library.load_run(folder)
    prediction = requested.predict(SOUND, sampling_rate=16_000)
    assert prediction.scores == pytest.approx(mean_of(folder), abs=1e-6)
    assert requested.description.startswith("mean of the scores of 2 seeds")
    if task == "emotion":
        assert prediction.label == max(prediction.scores, key=lambda name: prediction.scores[name])


def test_an_upstream_that_the_runs_share_is_loaded_and_runs_once(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = Spectrogram.forward

    def counted(self: Spectrogram, batch: Any, **options: Any) -> Any:
        calls.append(id(self))
        return forward(self, batch, **options)

    monkeypatch.setattr(Spectrogram, "forward", counted)
    requested = load_run(plan)
    assert isinstance(requested, Folds)
    assert len({id(run.model.upstream("audio")) for run in requested.runs}) == 1
    requested.predict(SOUND, sampling_rate=16_000)
    assert len(calls) == 1


def test_finetuned_runs_have_an_upstream_each(tones: Path, tmp_path: Path) -> None:
    folder = planned(tones, tmp_path / "plan", name="test_hubert", trainable=True)
    requested = load_run(folder)
    assert isinstance(requested, Folds)
    assert len({id(run.model.upstream("audio")) for run in requested.runs}) == 2
    assert requested.predict(SOUND, sampling_rate=16_000).scores == pytest.approx(mean_of(folder), abs=1e-6)


def test_classes_are_matched_by_name_not_by_place(plan: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plan, tmp_path / "plan")
    path = folder / "seed2" / "vocabulary.json"
    known = json.loads(path.read_text())
    known["emotion"]["classes"].reverse()
    path.write_text(json.dumps(known))
    scores = load_run(folder).predict(SOUND, sampling_rate=16_000).scores
    assert scores == pytest.approx(mean_of(folder), abs=1e-6)
    assert scores != pytest.approx(mean_of(plan), abs=1e-3)


@pytest.mark.parametrize(("thresholds", "label"), [((0.0, 0.0), "directed"), ((1.0, 1.0), "other")])
def test_a_threshold_is_the_mean_of_those_that_dev_placed(
    plans: dict[str, Path], tmp_path: Path, thresholds: tuple[float, float], label: str
) -> None:
    folder = shutil.copytree(plans["dsd"], tmp_path / "plan")
    for name, threshold in zip(("seed1", "seed2"), thresholds, strict=True):
        path = folder / name / "vocabulary.json"
        known = json.loads(path.read_text())
        known["dsd"]["threshold"] = threshold
        path.write_text(json.dumps(known))
    requested = load_run(folder)
    assert isinstance(requested, Folds)
    assert requested.vocabulary["threshold"] == sum(thresholds) / 2
    assert f"threshold {sum(thresholds) / 2:.4f}, the mean of theirs" in requested.description
    assert requested.predict(SOUND, sampling_rate=16_000).label == label


def test_one_fold_of_a_plan_is_that_run(plan: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plan, tmp_path / "plan")
    (folder / "seed2" / "result.json").unlink()
    summary = json.loads((folder / "result.json").read_text())
    summary["runs"][1]["fold"] = 2
    (folder / "result.json").write_text(json.dumps(summary))
    requested = load_run(folder, fold=1)
    assert (
        requested.predict(SOUND, sampling_rate=16_000).scores
        == load_run(folder / "seed1").predict(SOUND, sampling_rate=16_000).scores
    )
    with pytest.raises(UserError, match=r"Expected a finished run in .*seed2"):
        load_run(folder)


def test_of_a_sweep_the_setting_that_dev_chose_predicts(plan: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plan, tmp_path / "plan")
    summary = json.loads((folder / "result.json").read_text())
    summary["runs"][0]["setting"], summary["runs"][1]["setting"], summary["chosen"] = "a", "b", "b"
    (folder / "result.json").write_text(json.dumps(summary))
    assert (
        load_run(folder).predict(SOUND, sampling_rate=16_000).scores
        == load_run(folder / "seed2").predict(SOUND, sampling_rate=16_000).scores
    )


def test_predictions_without_scores_have_no_mean() -> None:
    def run(fold: int, name: str) -> SimpleNamespace:
        only = SimpleNamespace(task="asr", corpus=SimpleNamespace(fold=fold))
        return SimpleNamespace(answer=Text(("a",)), config=SimpleNamespace(only=only), folder=Path("plan") / name)

    folds, seeds = [run(1, "fold1"), run(2, "fold2")], [run(1, "seed1"), run(1, "seed2")]
    found = r"one run of 'plan', since predictions of asr have no scores to average, found 2\. "
    with pytest.raises(UserError, match=found + "Take one with --fold 1, or name the folder of one: plan/fold1"):
        refuse_unlike(Path("plan"), folds)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=found + "Name the folder of one: plan/seed1"):
        refuse_unlike(Path("plan"), seeds)  # type: ignore[arg-type]


def test_embeddings_of_several_runs_have_no_mean() -> None:
    only = SimpleNamespace(task="asv", corpus=SimpleNamespace(fold=1))
    one = SimpleNamespace(answer=Embedding(2, 0.5), config=SimpleNamespace(only=only), folder=Path("plan") / "seed1")
    with pytest.raises(UserError, match=r"one run of 'plan', since embeddings of several runs have no mean, found 2\. Name the"):
        refuse_unlike(Path("plan"), [one, one])  # type: ignore[list-item]


@pytest.mark.parametrize(("requested", "report"), [({}, 1), ({"fold": 1}, 0), ({"corpus": "emodb"}, 0)])
def test_folds_note_that_they_were_trained_on_the_corpus_to_predict(requested: dict[str, Any], report: int) -> None:
    corpora = [SimpleNamespace(corpus=SimpleNamespace(name="iemocap", fold=fold)) for fold in (1, 2)]
    result = [SimpleNamespace(config=SimpleNamespace(only=only)) for only in corpora]
    flags = Namespace(**{"run": "plan", "corpus": "iemocap", "fold": None, **requested})
    notes = leakage_note(flags, Folds(Path("plan"), tuple(result), {}, ""))  # type: ignore[arg-type]
    assert len(notes) == report
    assert all("other folds of plan were trained on this split of iemocap; --fold N" in note for note in notes)


def test_files_that_a_run_was_trained_on_are_counted_in_a_note(plan: Path, tmp_path: Path) -> None:
    keys = json.loads((plan / "seed1" / "trained_on.json").read_text())["heard"]
    files = [key.rpartition(" ")[0] for key in keys]
    for folder, run in ((plan, load_run(plan)), (plan / "seed1", load_run(plan / "seed1"))):
        [note] = trained_note([*files, "new.wav"], run)
        assert note == f"note: {folder} was trained on {len(files)} of these {len(files) + 1} files: their labels say little"
        assert trained_note(["new.wav"], run) == []
    shutil.copytree(plan / "seed1", tmp_path / "bare")
    (tmp_path / "bare" / "trained_on.json").unlink()
    assert trained_note(files, load_run(tmp_path / "bare")) == []
