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
from headwater.downstream.load import load_task
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import RunConfig, TaskConfig
from headwater.runs.leakage import label_notes, leakage_notes, sharing_notes
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


def examples(folder: Path, **splits: Sequence[tuple[str, str]]) -> dict[str, list[Example]]:
    """Splits of (file, speaker); files whose names begin alike hold the same bytes, all are of one size."""
    for name in {name for rows in splits.values() for name, _ in rows}:
        (folder / name).write_bytes(name[:1].encode() * 100)
    return {
        split: [Example(Utterance(f"{split}-{name}", str(folder / name), speaker=speaker), 1.0) for name, speaker in rows]
        for split, rows in splits.items()
    }


EMOTION = load_task("emotion").question(load_task("emotion").options())
SID = load_task("sid").question(load_task("sid").options())


def test_speakers_and_files_that_test_shares_are_notes(tmp_path: Path) -> None:
    splits = examples(tmp_path, train=[("a.wav", "ann")], dev=[("b.wav", "bo")], test=[("b2.wav", "ann"), ("c.wav", "cy")])
    speakers, files = sharing_notes(EMOTION, splits, opens_audio=True)
    assert speakers == "1 of the 2 test utterances are by speakers of train or dev (ann): scores flatter"
    assert "1 of the 2 test utterances are of files that are in train or dev too" in files
    assert "(the first: test-b2.wav)" in files
    assert sharing_notes(EMOTION, splits, opens_audio=False) == (speakers,)


def test_the_same_path_in_train_and_test_is_a_note(tmp_path: Path) -> None:
    (note,) = sharing_notes(EMOTION, examples(tmp_path, train=[("a.wav", "")], test=[("a.wav", "")]), opens_audio=True)
    assert "1 of the 1 test utterances are of files" in note


def test_what_splits_share_by_definition_is_no_note(tmp_path: Path) -> None:
    assert sharing_notes(SID, examples(tmp_path, train=[("a.wav", "ann")], test=[("b.wav", "ann")]), opens_audio=True) == ()
    noise = [Utterance(f"{start}", str(tmp_path / "a.wav"), start, 5.0) for start in (0.0, 5.0)]
    halves = {"train": [Example(noise[0], 5.0)], "test": [Example(noise[1], 5.0)]}
    ks = load_task("ks").question(load_task("ks").options())
    assert sharing_notes(ks, halves, opens_audio=True) == ()
    assert len(sharing_notes(EMOTION, halves, opens_audio=True)) == 1


def test_classes_that_differ_in_case_or_space_alone_are_a_note() -> None:
    (note,) = label_notes({"classes": ["ANGRY", "angry", "sad", " sad"]})
    assert note.startswith("classes that differ in case or space alone: 'ANGRY' and 'angry', 'sad' and ' sad'. ")
    (note,) = label_notes({"classes": ["0", "0.0", "1", "two"]})
    assert note.startswith("classes that differ in case, space or the form of a number alone: '0' and '0.0'. ")
    assert label_notes({"classes": ["angry", "sad", "1", "10"]}) == label_notes({}) == ()


def test_notes_of_what_is_shared_reach_the_result(config: RunConfig, tones: Path, tmp_path: Path) -> None:
    lines = [line.split(",") for line in tones.read_text().splitlines()[1:]]
    rows = [f"{tones.parent / audio},{label},{speaker},{split}" for audio, label, speaker, split in lines]
    rows[-1] = rows[-1].rsplit(",", 2)[0] + f",{lines[0][2]},test"
    rows[0] = rows[0].replace(f",{lines[0][1]},", f",{lines[0][1].upper()},")
    (tmp_path / "t.csv").write_text("\n".join(["audio,label,speaker,split", *rows]) + "\n")
    task = replace(config.only, corpus=replace(config.only.corpus, data=str(tmp_path / "t.csv")))
    notes = prepare(config.with_only(task)).notes
    assert any("by speakers of train or dev" in note for note in notes)
    assert any("differ in case or space alone" in note for note in notes)
    assert not any("flatter" in note or "case" in note for note in prepare(config).notes)
