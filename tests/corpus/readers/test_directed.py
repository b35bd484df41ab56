"""The device-directed reader, and its miniature: what only the words tell, and what only the sound."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus
from headwater.corpus.demo.acting import FILE_RATE
from headwater.corpus.demo.directed import _script
from headwater.corpus.demo.make import demo_root
from headwater.corpus.demo.rooms import at_level, banded, distant, music, sloped
from headwater.corpus.demo.texts.chatter import chatter, command
from headwater.corpus.load import default_corpus, get_reader
from headwater.corpus.readers import directed, manifest

LINES = (
    "audio,text,label,speaker,session,device,lang,split",
    "clips/a.wav,turn on the lights,1,s1,s1-car,car,en-us,train",
    "clips/b.wav,did you see her,0,s1,s1-car,car,en-us,train",
    "clips/c.wav,play the news,1,s2,s2-phone,phone,en-gb,dev",
    "clips/d.wav,she said no,0,s3,s3-phone,phone,en-gb,test",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "clips.csv").write_text("\n".join(LINES) + "\n")
    return tmp_path / "home"


def test_the_folder_is_read_as_its_table(folder: Path) -> None:
    corpus = directed.read(folder)
    assert corpus.name == "directed"
    assert corpus.splits == manifest.read(folder / "clips.csv").splits
    row = corpus.splits["train"][0]
    assert (row.audio, row.text) == (str(folder / "clips" / "a.wav"), "turn on the lights")
    assert row.labels == {"label": "1", "device": "car", "lang": "en-us"}


def test_it_is_the_usual_corpus_of_device_directed_speech() -> None:
    assert default_corpus("dsd") == "directed"
    assert "dsd" in get_reader("manifest").tasks


def test_the_folder_above_is_accepted(folder: Path) -> None:
    assert directed.read(folder.parent) == directed.read(folder)


def test_a_folder_without_the_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(UserError, match=r"Expected a table clips\.csv in .* found clips\. Name the folder"):
        directed.read(tmp_path)


@pytest.fixture(scope="module")
def miniature() -> Corpus:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    reader = get_reader("directed")
    return reader.read(demo_root(reader, scale=0.05))


def test_the_miniature_is_balanced_and_disjoint_in_speakers(miniature: Corpus) -> None:
    speakers = [{row.speaker for row in split} for split in miniature.splits.values()]
    assert len(set().union(*speakers)) == sum(map(len, speakers))
    assert len({row.speaker for row in miniature.splits["test"]}) >= 10
    for split in miniature.splits.values():
        counts = Counter(row.labels["label"] for row in split)
        assert counts["0"] == counts["1"] > 0


def test_the_miniature_has_devices_and_accents_to_report_by(miniature: Corpus) -> None:
    rows = miniature.splits["test"]
    assert {row.labels["device"] for row in rows} == {"phone", "speaker", "car"}
    assert {row.labels["lang"] for row in rows} == {"en-us", "en-gb"}
    assert all(row.text for row in rows)


def test_some_clips_need_their_words_and_some_their_sound() -> None:
    clips = [*_script(seed=0, scale=1.0)]
    for split in ("train", "dev", "test"):
        kinds = Counter(clip.kind for clip in clips if clip.split == split)
        overheard = kinds.total() - kinds["directed"]
        assert overheard == kinds["directed"]
        assert 0.15 < kinds["near_chatter"] / overheard < 0.35
        assert 0.15 < (kinds["far_command"] + kinds["tv_command"]) / overheard < 0.35
    assert 400 <= len(clips) <= 500


def test_commands_and_chatter_share_words_but_few_sentences() -> None:
    generator = np.random.default_rng(0)
    message, result = {command(generator, slip=0) for _ in range(300)}, {chatter(generator, slip=0) for _ in range(300)}
    assert not message & result
    words = [{word for sentence in sentences for word in sentence.split()} for sentences in (message, result)]
    assert len(words[0] & words[1]) > 20


def noise(seconds: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).normal(size=int(seconds * FILE_RATE))


def share_between(wave: np.ndarray, low: float, high: float) -> float:
    energy, hertz = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(len(wave), 1 / FILE_RATE)
    return float(energy[(hertz >= low) & (hertz < high)].sum() / energy.sum())


def test_a_band_keeps_what_lies_in_it() -> None:
    assert share_between(noise(), 250, 4500) < 0.6
    assert share_between(banded(noise(), 250, 4500), 250, 4500) > 0.85


def test_a_slope_lifts_high_frequencies_or_lowers_them() -> None:
    high = [share_between(sloped(noise(), slope), 4000, 8000) for slope in (-3.0, 0.0, 3.0)]
    assert high == sorted(high)
    assert np.allclose(sloped(noise(), 0.0), noise())


def test_a_room_goes_on_after_the_voice_and_more_so_far_away() -> None:
    voice = noise(0.5)

    def tail(decibels: float) -> float:
        result = distant(voice, decibels, 0.4, np.random.default_rng(1))
        return float(np.mean(result[len(voice) :] ** 2))

    assert tail(-6.0) > 2 * tail(0.0) > 4 * tail(9.0) > 0


def test_a_level_is_in_decibels() -> None:
    assert at_level(noise(), -6.02).std() / at_level(noise(), 0.0).std() == pytest.approx(0.5, abs=1e-3)


def test_music_is_tones() -> None:
    tones = music(FILE_RATE, np.random.default_rng(0))
    assert share_between(tones, 100, 1200) > 0.95
