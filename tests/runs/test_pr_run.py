"""Phone recognition as a run: by a lexicon and by a column, asked about files, exported, tested on another table."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater.core.errors import UserError
from headwater.core.options import merge
from headwater.downstream.labels import LabelsConfig
from headwater.inference.evaluate import evaluate_run
from headwater.inference.export.export import export_run
from headwater.inference.load import load_run
from headwater.runs.config.identity import identity_of
from headwater.runs.config.resolve import resolve
from headwater.runs.config.schema import CorpusConfig, RunConfig
from headwater.runs.prepare import prepare
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

LEXICON = "LOW\tL OW1\nMIDDLE\tM IH1 D AH0 L\nHIGH\tHH AY1\n"


@pytest.fixture(scope="module")
def said(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tones as a table in which each says its name, beside a lexicon."""
    with tones.open() as file:
        rows = list(csv.DictReader(file))
    lines = ["audio,text,speaker,split"]
    lines += [f"{tones.with_name(row['audio'])},{row['label']}!,{row['speaker']},{row['split']}" for row in rows]
    folder = tmp_path_factory.mktemp("said")
    (folder / "lexicon.txt").write_text(LEXICON)
    (folder / "said.csv").write_text("\n".join(lines) + "\n")
    return folder / "said.csv"


def config_of(table: Path, over: dict[str, Any] | None = None) -> RunConfig:
    training = {"steps": 12, "batch_size": 8, "eval_every": 6, "patience": None}
    mapping = {"task": "pr", "upstream": {"name": "fbank"}, "corpus": {"data": str(table)}, "training": training}
    lexicon = {"pr": {"lexicon": str(table.with_name("lexicon.txt"))}}
    return resolve([merge({**mapping, **lexicon, "optimizer": {"lr": 1e-2}}, over or {})])


@pytest.fixture(scope="module")
def trained(said: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the tones' names; tests only read it."""
    folder = tmp_path_factory.mktemp("pr") / "run"
    run(config_of(said), folder, Runtime("cpu", quiet=True))
    return folder


def test_a_table_of_texts_and_a_lexicon_train(trained: Path) -> None:
    result = json.loads((trained / "result.json").read_text())
    assert result["metrics"] == {"per": "lower"}
    vocabulary = json.loads((trained / "vocabulary.json").read_text())["pr"]
    assert vocabulary["phones"] == ["AH0", "AY1", "D", "HH", "IH1", "L", "M", "OW1"]
    assert vocabulary["lexicon"] == {"HIGH": "HH AY1", "LOW": "L OW1", "MIDDLE": "M IH1 D AH0 L"}
    with (trained / "predictions-test.csv").open() as file:
        assert {row["reference"] for row in csv.DictReader(file)} == {"HH AY1", "L OW1", "M IH1 D AH0 L"}


def test_a_finished_run_writes_the_phones_of_a_file(trained: Path, tones: Path, headwater: Callable[..., Any]) -> None:
    with (trained / "predictions-test.csv").open() as file:
        row = next(csv.DictReader(file))
    done = headwater("predict", trained, row["file"])
    header, line = csv.reader(done.stdout.splitlines())
    assert header == ["file", "start", "end", "label", "error"]
    assert line[3] == row["prediction"]
    assert load_run(trained).predict(str(tones.with_name("00.wav"))).label is not None


def test_a_run_is_exported_without_the_place_of_its_lexicon(trained: Path, said: Path, tmp_path: Path) -> None:
    export_run(trained, tmp_path / "out")
    sound = 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    assert load_run(tmp_path / "out").predict(sound, sampling_rate=16_000).label is not None
    texts = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not any(str(said.parent).encode() in text for text in texts)


def test_a_lexicon_counts_by_its_name_and_its_phones_not_by_its_place(said: Path, tmp_path: Path) -> None:
    other = tmp_path / "lexicon.txt"
    other.write_text(LEXICON)
    here, there = prepare(config_of(said)), prepare(config_of(said, {"pr": {"lexicon": str(other)}}))
    assert here.identity == there.identity
    other.write_text(LEXICON.replace("OW1", "OW2"))
    assert prepare(config_of(said, {"pr": {"lexicon": str(other)}})).identity["corpus"] != here.identity["corpus"]
    several = identity_of(config_of(said, {"pr": {"lexicon": ["somewhere/a.txt", "b.txt"]}}))
    assert several["pr"]["lexicon"] == ["a.txt", "b.txt"]


def test_a_word_of_no_lexicon_leaves_its_utterances_out_with_a_note(said: Path) -> None:
    short = said.with_name("short.txt")
    short.write_text(LEXICON.replace("MIDDLE", "CENTRE"))
    setup = prepare(config_of(said, {"pr": {"lexicon": str(short)}}))
    assert {split: len(rows) for split, rows in setup.tasks["pr"].splits.items()} == {"train": 32, "dev": 8, "test": 8}
    expected = "left out, since a word is not in the lexicon: 16 of 48 in train, 4 of 12 in dev, 4 of 12 in test. 1 word: MIDDLE."
    assert any(note.startswith(expected) for note in setup.notes)


def test_a_table_with_neither_phones_nor_a_lexicon_is_refused(said: Path) -> None:
    with pytest.raises(UserError, match=r"Expected phones of manifest, found neither a column 'phones'"):
        prepare(config_of(said, {"pr": {"lexicon": None}}))


def test_a_column_of_phones_trains(said: Path) -> None:
    lines = [
        line.replace("low!", "l oː").replace("middle!", "m ɪ").replace("high!", "h") for line in said.read_text().splitlines()
    ]
    table = said.with_name("phones.csv")
    table.write_text("\n".join(lines).replace("audio,text", "audio,phones") + "\n")
    setup = prepare(config_of(table, {"pr": {"lexicon": None}}))
    assert setup.tasks["pr"].expert.vocabulary["phones"] == ["h", "l", "m", "oː", "ɪ"]
    assert {row.target for row in setup.tasks["pr"].splits["test"]} == {"l oː", "m ɪ", "h"}


def test_a_finished_run_is_tested_on_another_table_without_its_lexicon_and_counts_what_it_cannot_say(
    trained: Path, said: Path
) -> None:
    lines = said.read_text().splitlines()
    other = said.with_name("other.csv")
    texts = ["middle high!", "low gnu", "low"]
    rows = [f"{line.split(',')[0]},{text},new" for line, text in zip(lines[-3:], texts, strict=True)]
    other.write_text("\n".join(["audio,text,speaker", *rows]) + "\n")
    corpus = CorpusConfig(name="manifest", data=str(other), protocol="all_test", options={"label_required": False})
    result = evaluate_run(trained, corpus, LabelsConfig(), "test", Runtime("cpu", quiet=True))
    assert result["notes"][0] == "phones of the transcripts' words"
    assert any(
        note.startswith("left out, since a word is not in the lexicon: 1 of 3 in test. 1 word: GNU.") for note in result["notes"]
    )
    assert result["num_utterances"] == {"test": 2}
