"""The final model: all data, the steps of an earlier run, and no score."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.analysis.table import result_table
from headwater.core.errors import UserError
from headwater.core.files import read_json
from headwater.core.options import merge
from headwater.core.tensors import load_tensors
from headwater.corpus.base import Corpus, Utterance
from headwater.inference.evaluate import evaluate_run
from headwater.inference.load import load_run
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import to_mapping
from headwater.runs.final import everything, with_steps
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.training import loop

QUIET = Runtime("cpu", quiet=True)
TRAINING = {"steps": 20, "batch_size": 8, "eval_every": 5, "save_every": 1, "log_every": 20}


def mapping_of(table: Path, **over: Any) -> dict[str, Any]:
    """A recipe over the rated tones."""
    corpus = {"data": str(table), "options": {"columns": {"label": "directed"}}}
    report = {"task": "dsd", "upstream": {"name": "fbank_no_cmvn"}, "corpus": corpus, "training": TRAINING}
    return merge(report, {"optimizer": {"schedule": "linear"}, **over})


@pytest.fixture(scope="module")
def earlier(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that found its best step to be the tenth."""
    folder = tmp_path_factory.mktemp("final") / "earlier"
    run(resolve([mapping_of(rated)]), folder, QUIET)
    report = read_json(folder / "result.json")
    (folder / "result.json").write_text(json.dumps({**report, "best_step": 10}))
    return folder


def final_of(table: Path, earlier: Path, **over: Any) -> Mapping[str, Any]:
    """A recipe of the final model."""
    return mapping_of(table, split="all", steps_from=str(earlier), **over)


@pytest.fixture(scope="module")
def final(rated: Path, earlier: Path) -> Path:
    """A final model."""
    run(resolve([final_of(rated, earlier)]), earlier.with_name("final"), QUIET)
    return earlier.with_name("final")


def test_it_trains_on_every_split_for_the_steps_of_the_earlier_run(final: Path, earlier: Path) -> None:
    report = read_json(final / "result.json")
    assert (report["steps"], report["best_step"], report["trained_on_all"]) == (10, 10, 72)
    assert report["steps_from"] == {"run": str(earlier), "best_steps": [10]}
    assert len({*read_json(final / "trained_on.json")["heard"]}) == 72
    assert sum(read_json(final / "vocabulary.json")["dsd"]["counts"].values()) == 72
    lines = [json.loads(line) for line in (final / "metrics.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines] == ["train"]
    assert lines[-1]["rate"] == pytest.approx(0.55)  # the tenth of twenty steps that fall to zero, as the earlier run took it


def test_a_constant_rate_has_no_end_and_an_end_of_its_own_is_kept(rated: Path, tmp_path: Path) -> None:
    for name, optimizer in (("constant", {"schedule": "constant"}), ("longer", {"schedule_steps": 40})):
        over = {"optimizer": {"schedule": "linear", **optimizer}, "training": {"steps": 5}}
        run(resolve([mapping_of(rated, **over)]), tmp_path / name, QUIET)
    constant = final_of(rated, tmp_path / "constant", optimizer={"schedule": "constant"})
    assert with_steps(resolve([constant])).optimizer.schedule_steps is None
    longer = with_steps(resolve([final_of(rated, tmp_path / "longer")]))
    assert (longer.training.steps, longer.optimizer.schedule_steps) == (5, 40)
    assert with_steps(resolve([to_mapping(longer)])) == longer  # as it is read again from its folder


def test_it_has_no_score_and_says_so(final: Path) -> None:
    report = read_json(final / "result.json")
    assert (report["scores"], [*final.glob("predictions-*.csv")]) == ({}, [])
    heading, line = result_table(report).splitlines()
    assert "step 10 (the last)" in heading
    assert line.startswith("trained on all 72 utterances for 10 steps, as ")
    assert "no score: nothing was held out" in line


def test_the_threshold_is_the_one_that_dev_placed_in_the_earlier_run(final: Path, earlier: Path) -> None:
    placed = read_json(earlier / "vocabulary.json")["dsd"]["threshold"]
    assert read_json(final / "vocabulary.json")["dsd"]["threshold"] == placed != 0.5
    assert any(
        f"threshold {placed:.4f}, as {earlier} placed it on dev" in note for note in read_json(final / "result.json")["notes"]
    )
    assert load_run(final).vocabulary["threshold"] == placed


def test_an_expert_with_another_tasks_question_takes_the_threshold_too(rated: Path, tmp_path: Path) -> None:
    turbo = {"task": "dsd", "joint_dim": 8}
    over = {"task": "turbo", "turbo": turbo, "text_upstream": {"name": "hashed_words"}, "training": {"steps": 5}}
    run(resolve([mapping_of(rated, **over)]), tmp_path / "earlier", QUIET)
    run(resolve([final_of(rated, tmp_path / "earlier", **over)]), tmp_path / "run", QUIET)
    one, other = (read_json(tmp_path / name / "vocabulary.json")["turbo"]["threshold"] for name in ("earlier", "run"))
    assert one == other != 0.5


def test_it_predicts(final: Path) -> None:
    scores = load_run(final).predict(np.ones(4_000, dtype=np.float32), sampling_rate=16_000).scores
    assert scores is not None
    assert sum(scores.values()) == pytest.approx(1.0)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    final: Path, rated: Path, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, steps = loop.take_step, iter(range(100))

    def stopped(*arguments: Any) -> Any:
        if next(steps) == 6:
            raise KeyboardInterrupt
        return take(*arguments)

    monkeypatch.setattr(loop, "take_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(resolve([final_of(rated, earlier)]), tmp_path / "run", QUIET)
    run(resolve([final_of(rated, earlier)]), tmp_path / "run", QUIET)
    one, other = (load_tensors(folder / "checkpoints" / "best.safetensors")[0] for folder in (final, tmp_path / "run"))
    assert {*one} == {*other}
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_one_prints_its_table_when_the_earlier_run_is_gone(final: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(final, tmp_path / "run")
    config = resolve([json.loads(json.dumps(read_config(folder)))])
    assert run(config, folder, Runtime("cpu", quiet=True, named=True))["steps"] == 10


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config, its earlier run gone."""
    from headwater.core.options import read_yaml

    return {**read_yaml(folder / "config.yaml"), "steps_from": "/nowhere"}


def test_it_is_tested_on_another_corpus_only(final: Path, rated: Path, tmp_path: Path) -> None:
    config = load_run(final).config  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"found 12 of 12: it was trained on all of manifest \(split=all\)"):
        evaluate_run(final, config.only.corpus, config.only.labels, "test", QUIET)
    shutil.copytree(rated.parent, tmp_path / "other")
    other = resolve([mapping_of(tmp_path / "other" / "rated.csv")])
    report = evaluate_run(final, other.only.corpus, other.only.labels, "test", QUIET)
    assert 0 <= report["scores"]["test"]["auc"] <= 1
    assert "step 10 (the last)" in result_table(report)


def test_other_weights_under_the_same_name_are_refused(rated: Path, earlier: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(earlier, tmp_path / "earlier")
    report = read_json(folder / "identity.json")
    (folder / "identity.json").write_text(json.dumps({**report, "upstreams": {"audio": "other"}}))
    with pytest.raises(UserError, match=r"which the steps come from, found other weights \(audio\)\. Name the same ones"):
        run(resolve([final_of(rated, folder)]), tmp_path / "run", QUIET)


def test_a_run_with_a_dev_split_is_what_it_was_before_final_models_existed(rated: Path) -> None:
    identity = identity_of(resolve([mapping_of(rated)]))
    assert not {"split", "steps_from"} & {*identity}


def test_all_splits_are_one_whichever_fold_was_read_and_each_utterance_is_there_once() -> None:
    rows = {name: Utterance(name, f"{name}.wav") for name in "abcd"}
    folds = [
        Corpus("c", "p", 1, {"train": (rows["a"], rows["b"]), "dev": (rows["c"],), "test": (rows["d"],)}),
        Corpus("c", "p", 2, {"train": (rows["d"], rows["c"]), "dev": (rows["a"], rows["d"]), "test2": (rows["b"],)}),
    ]
    assert everything(folds[0]) == everything(folds[1])
    assert everything(folds[0]).splits["train"] == tuple(rows.values())
