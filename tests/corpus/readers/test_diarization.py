"""Turns of recordings: RTTM files, folders of them, and Kaldi's folders of Libri2Mix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.base import Utterance
from headwater.corpus.readers import libri2mix, rttm
from headwater.corpus.rttm import LABEL, pieces_of, read_rttm, rttm_lines


def record(path: Path, seconds: float = 4.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(16_000 * seconds)), 16_000)
    return path


LINE = "SPEAKER {name} 1 {start} {seconds} <NA> <NA> {speaker} <NA> <NA>"


def lines_of(name: str) -> list[str]:
    spans = [("b", 1.5, 2.0), ("a", 0.25, 1.5)]
    return [LINE.format(name=name, start=start, seconds=seconds, speaker=speaker) for speaker, start, seconds in spans]


def test_lines_become_turns_and_lines_again(tmp_path: Path) -> None:
    path = tmp_path / "x.rttm"
    path.write_text("\n".join(["SPKR-INFO x 1 <NA>", *lines_of("x"), "", LINE.format(name="x", start=9, seconds=0, speaker="c")]))
    assert read_rttm(path) == {"x": [("a", 0.25, 1.75), ("b", 1.5, 3.5)]}
    path.write_text("\n".join(rttm_lines("my file", read_rttm(path)["x"])))
    assert read_rttm(path) == {"my_file": [("a", 0.25, 1.75), ("b", 1.5, 3.5)]}


@pytest.mark.parametrize("words", ["1 a 2 <NA> <NA> s", "1 0 -1 <NA> <NA> s", "1 0 1", "1 nan 1 a b c"])
def test_a_broken_line_is_named(words: str, tmp_path: Path) -> None:
    (tmp_path / "x.rttm").write_text(f"{lines_of('x')[0]}\nSPEAKER x {words}\n")
    with pytest.raises(UserError, match=r"Expected lines such as 'SPEAKER file .* in line 2\. Mend the line"):
        read_rttm(tmp_path / "x.rttm")


def test_pieces_have_their_own_turns() -> None:
    row = Utterance("r", "r.wav", labels={LABEL: [("a", 0.0, 6.0), ("b", 9.0, 10.0)]})
    first, second = pieces_of(row, 10.0, 6.0)
    assert (first.id, first.start, first.duration, first.labels[LABEL]) == ("r#0", 0.0, 5.0, [("a", 0.0, 5.0)])
    assert (second.start, second.labels[LABEL]) == (5.0, [("a", 0.0, 1.0), ("b", 4.0, 5.0)])
    assert pieces_of(row, 6.0, 6.0) == [row]


def test_a_folder_with_splits(tmp_path: Path) -> None:
    for split, names in {"train": "abcdef", "test": "gh"}.items():
        for name in names:
            record(tmp_path / split / f"{name}.wav")
        (tmp_path / split / "all.rttm").write_text("\n".join(line for name in names for line in lines_of(name)))
    record(tmp_path / "train" / "unknown.wav")
    corpus = rttm.read(tmp_path, chunk_seconds=2.0)
    assert {split: len(rows) for split, rows in corpus.splits.items()} == {"train": 8, "dev": 4, "test": 4}
    assert "train: 1 recordings without turns (unknown)" in corpus.notes
    assert any("no folder dev: dev is 2 recordings of train" in note for note in corpus.notes)
    assert any("cut into equal pieces" in note for note in corpus.notes)
    assert corpus.splits["test"][0].session == "g"


def test_recordings_of_one_folder_are_dealt_into_folds(tmp_path: Path) -> None:
    for name in "abcdef":
        record(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.rttm").write_text("\n".join(lines_of(name)))
    (tmp_path / "f.rttm").write_text("")  # nobody speaks
    assert {row.id: row.labels[LABEL] for rows in rttm.read(tmp_path).splits.values() for row in rows}["f"] == []
    tests = [{row.id for row in rttm.read(tmp_path, fold=fold).splits["test"]} for fold in range(1, 6)]
    assert set().union(*tests) == {*"abcdef"}
    assert sum(map(len, tests)) == 6


def make(root: Path, **files: str) -> Path:
    for name, text in files.items():
        (root / f"{name}.rttm").write_text(text)
    return root


def test_folders_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for problem, message in {"": "Expected RTTM files", "\n".join(lines_of("x")): r"such as x\.wav, .* found none"}.items():
        with pytest.raises(UserError, match=message):
            rttm.read(make(tmp_path, one=problem) if problem else tmp_path)
    record(tmp_path / "x.wav")
    with pytest.raises(UserError, match="Expected at least 3 recordings with turns"):
        rttm.read(tmp_path)
    with pytest.raises(UserError, match="Expected each recording in one RTTM file, found 'x'"):
        rttm.read(make(tmp_path, two="\n".join(lines_of("x"))))
    with pytest.raises(UserError, match="Expected folders train and test"):
        rttm.read(tmp_path, protocol="split")
    with pytest.raises(UserError, match="found no folder"):
        rttm.read(tmp_path / "x.wav")


def kaldi(root: Path) -> Path:
    for split in ("train", "dev", "test"):
        place = root / split
        path = record(place / "wav" / f"1_2_{split}.wav")
        name = path.stem
        (place / "wav.scp").write_text(f"{name} {path if split == 'train' else path.relative_to(place)}\n")
        (place / "segments").write_text(f"u1 {name} 0.25 1.75\nu2 {name} 1.5 3.5\n")
        (place / "utt2spk").write_text("u1 1\nu2 2\n")
        (place / "reco2dur").write_text(f"{name} 4.0\n")
        (place / "rttm").write_text("\n".join(lines_of(name)))
    return root


def test_kaldis_folders(tmp_path: Path) -> None:
    kaldi(tmp_path)
    corpus = libri2mix.read(tmp_path)
    assert corpus.splits["train"][0].labels[LABEL] == [("a", 0.25, 1.75), ("b", 1.5, 3.5)]
    counts = "train 1 instead of 13900, dev 1 instead of 3000, test 1 instead of 3000"
    assert corpus.notes == (f"Libri2Mix differs from the release: {counts}",)
    assert len(libri2mix.read(tmp_path, chunk_seconds=2.0).splits["test"]) == 2
    (tmp_path / "test" / "rttm").unlink()
    assert libri2mix.read(tmp_path).splits["test"][0].labels[LABEL] == [("1", 0.25, 1.75), ("2", 1.5, 3.5)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("wav.scp", "alone\n", "Expected a name and a value in line 1"),
        ("wav.scp", "x nowhere.wav\n", "Expected the recording .*nowhere.wav"),
        ("utt2spk", "u1 1\n", "Expected 'utterance recording start end' of a known speaker"),
    ],
)
def test_a_broken_kaldi_file_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    kaldi(tmp_path)
    (tmp_path / "train" / name).write_text(text)
    (tmp_path / "train" / "rttm").unlink()
    with pytest.raises(UserError, match=message):
        libri2mix.read(tmp_path)
