"""SUPERB's effects: silence cut out as sox does it, and a corpus copied so."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.commands.corpus import main
from headwater.core.errors import UserError
from headwater.corpus.trim import HOLD, RATE, THRESHOLD, WINDOW, trim_corpus, without_silence


def sample_by_sample(samples: np.ndarray) -> np.ndarray:
    """Do what sox's manual says of `silence 1 0.1 0.1% -1 0.1 0.1%`, one sample after the other."""
    window, kept, held, is_sound = [0.0] * WINDOW, [], [], False
    for sample in samples.tolist():
        window = [*window[1:], sample**2]
        loud = math.sqrt(math.fsum(window) / WINDOW) > THRESHOLD
        if not is_sound:
            held = [*held, sample] if loud else []
            if len(held) == HOLD:
                kept, held, is_sound = kept + held, [], True
        elif loud:
            kept, held = [*kept, *held, sample], []
        else:
            held.append(sample)
            if len(held) == HOLD:
                held, window, is_sound = [], [0.0] * WINDOW, False
    return np.array(kept + held if is_sound else kept, np.float32)


def tone(seconds: float, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 300 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds: float, level: float = 1e-5) -> np.ndarray:
    return (level * np.random.default_rng(0).normal(size=int(seconds * RATE))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_silence_is_cut_out_as_one_sample_after_the_other_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    parts = []
    for _ in range(8):
        seconds = float(generator.uniform(0.02, 0.25))
        parts.append(tone(seconds, 0.01) if generator.random() < 0.5 else silence(seconds, 10 ** generator.uniform(-5, -2.7)))
    samples = np.concatenate(parts)
    assert np.array_equal(without_silence(samples), sample_by_sample(samples))


def test_silence_before_inside_and_behind_is_cut_out() -> None:
    samples = np.concatenate([silence(0.5), tone(0.4), silence(0.6), tone(0.3), silence(0.4)])
    left = without_silence(samples)
    assert len(left) == pytest.approx(0.7 * RATE, abs=2 * WINDOW + 40)  # a window long, what was sound is remembered


def test_pauses_and_sounds_shorter_than_a_tenth_of_a_second_change_nothing() -> None:
    whole = np.concatenate([tone(0.3), silence(0.06), tone(0.3)])
    assert len(without_silence(whole)) == pytest.approx(len(whole), abs=10)
    assert len(without_silence(np.concatenate([silence(0.3), tone(0.05), silence(0.3)]))) == 0
    assert len(without_silence(silence(1.0))) == len(without_silence(np.zeros(0, np.float32))) == 0


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of two recordings, one of them all silence, and a list."""
    folder = tmp_path / "corpus"
    (folder / "wav").mkdir(parents=True)
    soundfile.write(folder / "wav" / "one.wav", np.concatenate([silence(0.5), tone(1.0), silence(0.5)]), RATE)
    soundfile.write(folder / "wav" / "none.wav", silence(0.5), RATE)
    (folder / "list.txt").write_text("one\n")
    return folder


def test_a_corpus_is_copied_without_its_silence(corpus: Path, tmp_path: Path) -> None:
    done = {one.path.name: one for one in trim_corpus(corpus, tmp_path / "copy")}
    samples, rate = soundfile.read(tmp_path / "copy" / "wav" / "one.wav")
    assert (rate, len(samples) / RATE) == (RATE, pytest.approx(1.0, abs=0.03))
    assert np.abs(samples).max() == pytest.approx(0.1 * 10 ** (-3 / 20), rel=0.01)
    assert (done["one.wav"].seconds, done["one.wav"].left) == (2.0, len(samples) / RATE)
    assert done["none.wav"].left == 0.5  # all silence: whole
    assert (tmp_path / "copy" / "list.txt").read_text() == "one\n"
    assert [*trim_corpus(corpus, tmp_path / "copy")] == []  # what is there stays


def test_a_broken_file_is_passed_over(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "wav" / "two.wav").write_bytes(b"no audio")
    assert main(["trim", "--data", str(corpus), "--out", str(tmp_path / "copy")]) == 3
    found = capsys.readouterr()
    assert "passed over: Expected readable audio" in found.err
    assert "2 files, 0.00 h, trimmed to 0.00 h in" in found.out


@pytest.mark.parametrize("place", [".", "inside", ".."])
def test_a_copy_into_the_corpus_itself_is_refused(corpus: Path, place: str) -> None:
    with pytest.raises(UserError, match=r"Expected a folder beside .* for the trimmed copy"):
        [*trim_corpus(corpus, corpus / place)]


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"Expected audio \(\.wav, \.flac\) below .*, found none"):
        [*trim_corpus(tmp_path / "empty", tmp_path / "copy")]
    with pytest.raises(UserError, match=r"Expected the folder of a corpus at .*, found none"):
        [*trim_corpus(tmp_path / "gone", tmp_path / "copy")]


@pytest.mark.parametrize("words", [["--data", "x"], ["--out", "x"], ["iemocap", "--data", "x", "--out", "y"]])
def test_trimming_takes_two_folders(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"Expected --data FOLDER and --out FOLDER after `trim`, and no more"):
        main(["trim", *words])
