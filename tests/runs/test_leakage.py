"""A run that starts from what was trained on its dev or test says so."""

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


def trained_on_json(*ids: str, corpus: str = "emodb") -> dict[str, Any]:
    """What a run of one task was trained on."""
    return {"corpus": corpus, "heard": [*ids]}


FINETUNED = {"upstream": {"name": "hubert", "trainable": True}}
FROZEN = {"upstream": {"name": "hubert", "trainable": False}}


def notes_of(place: Path, corpus: Corpus = CORPUS) -> tuple[str, ...]:
    """What is said of a run that hears through an upstream."""
    return leakage_notes(RunConfig(upstream=UpstreamConfig(str(place))), TaskConfig("emotion"), corpus, SPLITS)


def test_a_finetuned_upstream_trained_on_dev_and_test_gives_a_note(folder: Folder) -> None:
    place = folder("run", trained_on_json("a", "d", "f", "g"), **FINETUNED)
    (note,) = notes_of(place)
    counts = "1 of the 2 dev utterances and 2 of the 3 test utterances"
    assert note == f"the upstream '{place}' was trained on {counts}: their scores say little"


def test_so_is_one_of_several_tasks_and_one_below_a_frozen_or_an_exported_one(folder: Folder) -> None:
    first = folder(
        "first",
        {"er": trained_on_json("f"), "sid": trained_on_json("g", corpus="voxceleb1"), "dsd": trained_on_json("h")},
        **FINETUNED,
    )
    second = folder("second", trained_on_json("a"), upstream={"name": str(first), "trainable": False})
    third = folder("third", None, upstream={"name": "hubert", "path": str(second), "trainable": True})
    assert "2 of the 3 test" in notes_of(first)[0]
    assert "2 of the 3 test" in notes_of(third)[0]


def test_so_are_whole_sessions(folder: Folder) -> None:
    trained = {**trained_on_json(), "sessions": ["s_f", "s_h"]}
    assert "2 of the 3 test" in notes_of(folder("run", trained, **FINETUNED))[0]


def test_a_head_gives_a_note_though_its_upstream_was_frozen(folder: Folder) -> None:
    place = folder("run", trained_on_json("f"), **FROZEN, init_head=str(folder("first", trained_on_json("g"), **FROZEN)))
    config, task = RunConfig(upstream=UpstreamConfig("hubert")), TaskConfig("emotion", init_head=str(place))
    assert leakage_notes(config, task, CORPUS, SPLITS) == (
        f"the head of '{place}' was trained on 2 of the 3 test utterances: their scores say little",
    )


def test_what_was_trained_on_nothing_that_is_scored_gives_no_note(folder: Folder) -> None:
    assert notes_of(folder("frozen", trained_on_json("f"), **FROZEN)) == ()
    assert notes_of(folder("train", trained_on_json("a", "b"), **FINETUNED)) == ()
    assert notes_of(folder("corpus", trained_on_json("f", corpus="iemocap"), **FINETUNED)) == ()
    assert notes_of(folder("exported", None, **FINETUNED)) == ()
    demo = folder("demo", trained_on_json("f"), marks=["DEMO"], **FINETUNED)  # whose ids are those of real utterances
    assert notes_of(demo) == ()
    assert len(notes_of(demo, replace(CORPUS, demo=True))) == 1
    circle = folder("circle", trained_on_json(), upstream={"name": "circle", "trainable": False})
    assert notes_of(circle) == ()


@pytest.fixture
def leaking(finished: Path, tones: Path, tmp_path: Path) -> Path:
    """A run over the tones that has heard the test split."""
    place = shutil.copytree(finished, tmp_path / "leaking")
    notes_of = read_json(place / "trained_on.json")
    seen = [f"{tones.parent}/{number:02d}.wav 0" for number in range(60, 72)]
    (place / "trained_on.json").write_text(json.dumps({**notes_of, "heard": seen}))
    return place


def test_a_run_has_the_note(config: RunConfig, leaking: Path) -> None:
    assert f"the head of '{leaking}' was trained on 12 of the 12 test utterances: their scores say little" in (
        prepare(config.with_only(replace(config.only, init_head=str(leaking)))).notes
    )


def test_a_run_of_several_tasks_has_the_note(tones: Path, leaking: Path) -> None:
    task = {"corpus": {"data": str(tones)}, "batch_size": 4}
    tasks = {"emotion": {**task, "init_head": str(leaking)}, "again": {"task": "emotion", **task}}
    notes = prepare(resolve([{"upstream": {"name": "fbank_no_cmvn"}, "tasks": tasks}])).notes
    assert [note for note in notes if "was trained on" in note] == [
        f"emotion: the head of '{leaking}' was trained on 12 of the 12 test utterances: their scores say little"
    ]
