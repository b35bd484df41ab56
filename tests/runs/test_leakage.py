"""A run that starts from what has learnt from its dev or test says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater.core.files import read_json
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Example
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, TaskConfig
from headwater.runs.leakage import leakage_notes
from headwater.runs.prepare import prepare
from headwater.upstream.base import UpstreamConfig

CORPUS = Corpus("emodb", "p", None, {})
SPLITS = {
    split: [Example(Utterance(name, f"{name}.wav", session=f"s_{name}"), 1.0) for name in names]
    for split, names in {"train": "abc", "dev": "de", "test": "fgh"}.items()
}
Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Make a run's folder of what it was trained on; its path comes back."""

    def make(name: str, trained_on: Mapping[str, Any] | None, *, marks: Sequence[str] = (), **config: Any) -> Path:
        place = tmp_path / name
        place.mkdir()
        (place / "config.yaml").write_text(yaml.safe_dump(config))
        (place / "identity.json").write_text(json.dumps({"marks": [*marks]}))
        if trained_on is not None:
            (place / "trained_on.json").write_text(json.dumps(trained_on))
        return place

    return make


def heard(*ids: str, corpus: str = "emodb") -> dict[str, Any]:
    """What a run of one task was trained on."""
    return {"corpus": corpus, "heard": [*ids]}


FINETUNED = {"upstream": {"name": "hubert", "trainable": True}}
FROZEN = {"upstream": {"name": "hubert", "trainable": False}}


def told(place: Path, corpus: Corpus = CORPUS) -> tuple[str, ...]:
    """What is said of a run that hears through an upstream."""
    return leakage_notes(RunConfig(upstream=UpstreamConfig(str(place))), TaskConfig("emotion"), corpus, SPLITS)


def test_a_finetuned_upstream_that_has_heard_dev_and_test_is_told_of(folder: Folder) -> None:
    place = folder("run", heard("a", "d", "f", "g"), **FINETUNED)
    (note,) = told(place)
    counts = "1 of the 2 dev utterances and 2 of the 3 test utterances"
    assert note == f"the upstream '{place}' has learnt from {counts}: their scores say little"


def test_so_is_one_of_several_tasks_and_one_below_a_frozen_or_an_exported_one(folder: Folder) -> None:
    first = folder("first", {"er": heard("f"), "sid": heard("g", corpus="voxceleb1"), "dsd": heard("h")}, **FINETUNED)
    second = folder("second", heard("a"), upstream={"name": str(first), "trainable": False})
    third = folder("third", None, upstream={"name": "hubert", "path": str(second), "trainable": True})
    assert "2 of the 3 test" in told(first)[0]
    assert "2 of the 3 test" in told(third)[0]


def test_so_are_whole_sessions(folder: Folder) -> None:
    trained = {**heard(), "sessions": ["s_f", "s_h"]}
    assert "2 of the 3 test" in told(folder("run", trained, **FINETUNED))[0]


def test_a_head_is_told_of_though_its_upstream_was_frozen(folder: Folder) -> None:
    place = folder("run", heard("f"), **FROZEN, init_head=str(folder("first", heard("g"), **FROZEN)))
    config, task = RunConfig(upstream=UpstreamConfig("hubert")), TaskConfig("emotion", init_head=str(place))
    assert leakage_notes(config, task, CORPUS, SPLITS) == (
        f"the head of '{place}' has learnt from 2 of the 3 test utterances: their scores say little",
    )


def test_what_heard_nothing_that_is_scored_is_not_told_of(folder: Folder) -> None:
    assert told(folder("frozen", heard("f"), **FROZEN)) == ()
    assert told(folder("train", heard("a", "b"), **FINETUNED)) == ()
    assert told(folder("corpus", heard("f", corpus="iemocap"), **FINETUNED)) == ()
    assert told(folder("exported", None, **FINETUNED)) == ()
    demo = folder("demo", heard("f"), marks=["DEMO"], **FINETUNED)  # whose ids are those of real utterances
    assert told(demo) == ()
    assert len(told(demo, replace(CORPUS, demo=True))) == 1
    circle = folder("circle", heard(), upstream={"name": "circle", "trainable": False})
    assert told(circle) == ()


@pytest.fixture
def leaking(finished: Path, tones: Path, tmp_path: Path) -> Path:
    """A run over the tones that has heard the test split."""
    place = shutil.copytree(finished, tmp_path / "leaking")
    told = read_json(place / "trained_on.json")
    seen = [f"{tones.parent}/{number:02d}.wav 0" for number in range(60, 72)]
    (place / "trained_on.json").write_text(json.dumps({**told, "heard": seen}))
    return place


def test_a_run_has_the_note(config: RunConfig, leaking: Path) -> None:
    assert f"the head of '{leaking}' has learnt from 12 of the 12 test utterances: their scores say little" in (
        prepare(config.with_only(replace(config.only, init_head=str(leaking)))).notes
    )


def test_a_run_of_several_tasks_has_the_note(tones: Path, leaking: Path) -> None:
    task = {"corpus": {"data": str(tones)}, "batch_size": 4}
    tasks = {"emotion": {**task, "init_head": str(leaking)}, "again": {"task": "emotion", **task}}
    notes = prepare(resolve([{"upstream": {"name": "fbank_no_cmvn"}, "tasks": tasks}])).notes
    assert [note for note in notes if "has learnt" in note] == [
        f"emotion: the head of '{leaking}' has learnt from 12 of the 12 test utterances: their scores say little"
    ]
