"""Reading audio, and the check of every file before training."""

from __future__ import annotations

import logging
import os
import sqlite3
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core import file_cache as memory
from headwater.core.errors import UserError
from headwater.core.files import cache_folder
from headwater.corpus import audio
from headwater.corpus.audio import check_files, read_audio, read_complete
from headwater.corpus.base import Utterance


def tone(seconds: float, rate: int = 16000, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return np.stack([wave] * channels, axis=1) if channels > 1 else wave


def write(path: Path, seconds: float = 1.0, rate: int = 16000, **kinds: str) -> str:
    soundfile.write(path, tone(seconds, rate), rate, **kinds)
    return str(path)


def verdict(path: Path | str, tmp_path: Path, **where: float) -> tuple[dict[str, float], list[str]]:
    seconds, broken = check_files([Utterance("u", str(path), **where)], tmp_path / "cache")
    return seconds, [entry.reason for entry in broken]


def test_a_stretch_is_what_lies_between_its_ends(tmp_path: Path) -> None:
    wave = np.linspace(-0.5, 0.5, 16000, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    result = read_audio(tmp_path / "a.wav", start=0.25, duration=0.5)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, wave[4000:12000])


def test_the_end_of_the_file_ends_a_stretch(tmp_path: Path) -> None:
    assert len(read_audio(write(tmp_path / "a.wav"), start=0.75, duration=9.0)) == 4000


def test_channels_are_averaged(tmp_path: Path) -> None:
    stereo = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), 0.125, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_resampling_keeps_a_tone_and_its_length(tmp_path: Path, rate: int) -> None:
    result = read_audio(write(tmp_path / "a.wav", 1.0, rate, subtype="FLOAT"))
    assert abs(len(result) - 16000) <= 1
    peak = np.abs(np.fft.rfft(result)).argmax() * 16000 / len(result)
    assert peak == pytest.approx(440, abs=1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such file"),
        (b"", "an empty file"),
        (b"some text in place of audio", "audio that cannot be decoded"),
    ],
)
def test_an_unreadable_file_is_named_with_the_next_move(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=words) as problem:
        read_audio(path)
    assert str(path) in str(problem.value)
    assert "or leave it out" in str(problem.value)


def test_a_stretch_behind_the_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples from 5 s on, found none"):
        read_audio(write(tmp_path / "a.wav"), start=5.0)


def test_sound_files_give_seconds_of_each_utterance(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", 2.0)
    utterances = [Utterance("all", path), Utterance("part", path, 0.5, 1.0), Utterance("rest", path, 1.5)]
    seconds, broken = check_files(utterances, tmp_path / "cache")
    assert seconds == {"all": 2.0, "part": 1.0, "rest": 0.5}
    assert broken == []


def test_a_missing_file_is_broken(tmp_path: Path) -> None:
    assert verdict(tmp_path / "none.wav", tmp_path) == ({}, ["no such file"])


def test_text_in_a_wav_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("version https://git-lfs.github.com/spec/v1")
    seconds, reasons = verdict(tmp_path / "a.wav", tmp_path)
    assert not seconds
    assert "audio that cannot be decoded" in reasons[0]


def test_an_empty_file_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert verdict(tmp_path / "a.wav", tmp_path)[1] == ["an empty file (0 bytes)"]


def test_a_file_without_samples_is_broken(tmp_path: Path) -> None:
    assert verdict(write(tmp_path / "a.wav", 0.0), tmp_path)[1] == ["no samples in it"]


def test_a_wav_cut_short_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert verdict(path, tmp_path)[1] == ["cut short: the header promises 1000 bytes more than the file holds"]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_flac_cut_short_is_broken(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    seconds, reasons = verdict(path, tmp_path)
    assert not seconds
    assert "audio that cannot be decoded (" in reasons[0]


@pytest.mark.parametrize(("whole", "data"), [(8, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)])
def test_a_wav_written_to_a_pipe_is_sound(tmp_path: Path, whole: int, data: int) -> None:
    path = tmp_path / "a.wav"
    write(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[4:8], content[place : place + 4] = struct.pack("<I", whole), struct.pack("<I", data)
    path.write_bytes(bytes(content))
    seconds, reasons = verdict(path, tmp_path)
    assert reasons == []
    assert seconds["u"] == pytest.approx(1.0, abs=0.01)


def test_samples_that_are_no_numbers_are_broken(tmp_path: Path) -> None:
    wave = tone(0.5)
    wave[77] = np.nan
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    assert "no numbers" in verdict(tmp_path / "a.wav", tmp_path)[1][0]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"start": 1.5}, "start 1.5 s lies outside the file (1.00 s)"),
        ({"start": 0.5, "duration": 0.9}, "end 1.4 s lies outside the file (1.00 s)"),
        ({"start": 0.5, "duration": 0.0}, "has no length"),
        ({"start": -1.0}, "start -1 s lies outside"),
    ],
)
def test_a_stretch_outside_its_file_is_broken(tmp_path: Path, where: dict[str, float], words: str) -> None:
    seconds, reasons = verdict(write(tmp_path / "a.wav"), tmp_path, **where)
    assert not seconds
    assert words in reasons[0]


def test_a_broken_entry_reads_as_file_and_reason(tmp_path: Path) -> None:
    _, broken = check_files([Utterance("u", str(tmp_path / "none.wav"))], tmp_path / "cache")
    assert str(broken[0]) == f"{tmp_path / 'none.wav'}: no such file"


def test_a_second_check_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.wav").write_text("no audio, and it is remembered too")
    utterances = [Utterance("a", write(tmp_path / "a.wav")), Utterance("b", str(tmp_path / "text.wav"))]
    first = check_files(utterances, tmp_path / "cache")

    def refuse(*_: object) -> None:
        raise AssertionError("a file was opened again")

    monkeypatch.setattr(audio, "_decode", refuse)
    assert check_files(utterances, tmp_path / "cache") == first


def test_a_file_that_changed_is_checked_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 1.0)
    assert verdict(path, tmp_path)[0] == {"u": 1.0}
    write(tmp_path / "a.wav", 2.0)
    assert verdict(path, tmp_path)[0] == {"u": 2.0}


def test_a_file_touched_within_the_same_size_is_checked_again(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path)
    assert verdict(path, tmp_path)[1] == []
    path.write_bytes(b"\0" * path.stat().st_size)
    os.utime(path, ns=(0, 12345))
    assert len(verdict(path, tmp_path)[1]) == 1


def test_each_file_is_decoded_once_however_many_utterances_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened, decode = write(tmp_path / "a.wav", 3.0), [], audio._decode
    monkeypatch.setattr(audio, "_decode", lambda name: (opened.append(name), decode(name))[1])
    check_files([Utterance(str(start), path, start / 10, 0.1) for start in range(20)], tmp_path / "cache")
    assert opened == [path]


def test_gsm_of_a_telephone_is_read_though_it_cannot_be_sought_in(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 2.0, 8000, subtype="GSM610")
    seconds, reasons = verdict(path, tmp_path)
    assert reasons == []
    assert seconds["u"] == pytest.approx(2.0, abs=0.05)
    whole = read_audio(path, sample_rate=8000)
    assert len(whole) == round(seconds["u"] * 8000)
    np.testing.assert_array_equal(read_audio(path, 0.5, 1.0, sample_rate=8000), whole[4000:12000])


def test_a_decoder_that_fails_in_its_own_way_costs_one_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = write(tmp_path / "a.wav"), write(tmp_path / "b.wav")
    opened = audio.soundfile.SoundFile
    fails = TypeError("a decoder of its own kind.")

    def open_or_fail(name: bytes) -> soundfile.SoundFile:
        if name == os.fsencode(bad):
            raise fails
        return opened(name)

    monkeypatch.setattr(audio.soundfile, "SoundFile", open_or_fail)
    seconds, broken = check_files([Utterance("a", bad), Utterance("b", good)], tmp_path / "cache")
    assert seconds == {"b": 1.0}
    assert [str(entry) for entry in broken] == [f"{bad}: audio that cannot be decoded (a decoder of its own kind)"]


def unusual(folder: Path, kind: str) -> str:
    """A name at which no audio can be read."""
    place = folder / "a.wav"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "folder":
        place.mkdir()
    names = {"long": "x" * 300 + ".wav", "path": "x/" * 3000 + "a.wav", "nul": "a\0b.wav", "half": "a\ud800b.wav"}
    return str(folder / names.get(kind, "a.wav"))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pipe", "a pipe, a socket or a device"),
        ("loop", "a link that leads back to itself"),
        ("folder", "a folder"),
        ("long", "a name that is too long"),
        ("path", "a name that is too long"),
        ("nul", "a name that no file can have"),
        ("half", "a name that no file can have"),
    ],
)
def test_what_is_no_ordinary_file_is_broken_and_not_waited_for(tmp_path: Path, kind: str, words: str) -> None:
    name = unusual(tmp_path, kind)
    assert verdict(name, tmp_path) == ({}, [words])
    with pytest.raises(UserError, match=f"^Expected readable audio, found {words}: "):
        read_audio(name)


@pytest.mark.parametrize(("start", "duration"), [(float("nan"), None), (float("inf"), None), (0.0, float("nan"))])
def test_seconds_that_are_no_numbers_are_refused(tmp_path: Path, start: float, duration: float | None) -> None:
    with pytest.raises(UserError, match="Expected seconds that are finite numbers, found NaN or infinity"):
        read_audio(write(tmp_path / "a.wav"), start, duration)
    assert not check_files([Utterance("u", str(tmp_path / "a.wav"), start, duration)], tmp_path / "cache")[0]


def test_seconds_beyond_all_files_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    with pytest.raises(UserError, match=r"Expected samples from 1e\+308 s on, found none"):
        read_audio(path, 1e308)
    assert len(read_audio(path, 0.5, 1e308)) == 8000


def test_samples_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    wave = tone(0.5)
    wave[77] = np.inf
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    with pytest.raises(UserError, match=r"Expected readable audio, found samples that are no numbers \(NaN or infinite\)"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("ending", ["wav", "ogg", "mp3", "aiff", "au", "w64", "rf64", "caf"])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
def test_a_file_cut_short_is_broken_and_never_read_as_if_it_were_whole(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 96000), 16000)
    assert verdict(path, tmp_path)[1] == []
    assert len(read_complete(path)) == 96000
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    seconds, reasons = verdict(path, tmp_path)
    assert not seconds
    assert "cut short: " in reasons[0] or "cannot be decoded" in reasons[0]
    with pytest.raises(UserError, match=r"Expected readable audio, found (a file cut short: |audio that cannot be decoded)"):
        read_complete(path)


def test_an_mp3_with_tags_around_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 96000), 16000)
    content = path.read_bytes()
    path.write_bytes(b"ID3\x04\0\0\0\0\2\0" + b"\0" * 256 + content + b"TAG" + b"\0" * 125)
    assert verdict(path, tmp_path)[1] == []
    path.write_bytes(b"ID3\x04\0\0\0\0\2\0" + b"\0" * 256 + content[:-5000])
    assert "cut short: the header promises 5000 bytes more" in verdict(path, tmp_path)[1][0]


def test_an_end_behind_the_file_is_refused_where_all_of_a_stretch_is_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    assert len(read_complete(path, 0.5, 0.52)) == 8000  # tables round
    with pytest.raises(UserError, match=r"found that its end, 1\.4 s, lies outside \(1\.00 s\): .*Mend its row"):
        read_complete(path, 0.5, 0.9)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (16000, 3), (44100, 2), (8000, 1)])
def test_a_file_read_in_pieces_is_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, channels: int
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(3.0, rate, channels) + 0.01 * np.random.default_rng(0).random(), rate)
    whole = read_audio(tmp_path / "a.wav", 0.2, 2.5)
    monkeypatch.setattr(audio, "_AT_ONCE", 10_001)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", 0.2, 2.5), whole)


def test_more_hours_than_memory_has_room_for_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(20_000), 1)  # 20,000 s at 1 Hz: 40 kB that would become 1.3 GB
    with pytest.raises(
        UserError, match=r"Expected at most 4 h of audio to be read at once, found 5\.6 h: .*Cut the file, or name"
    ):
        read_audio(path)
    assert verdict(path, tmp_path)[1] == ["5.6 h of audio, more than the 4 h that are read at once"]
    assert len(read_audio(path, 100, 10)) == 160_000


def test_a_sample_rate_that_no_filter_is_built_for_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), 2**31 - 1)
    with pytest.raises(UserError, match=r"cannot be decoded \(a sample rate of 2147483647 Hz\)"):
        read_audio(tmp_path / "a.wav")


def test_zeros_behind_a_header_are_judged_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with path.open("wb") as file:
        file.write(b"RIFF\xff\xff\xff\x00WAVE")
        file.truncate(300_000_000)
    began = time.process_time()
    assert "cannot be decoded" in verdict(path, tmp_path)[1][0]
    assert time.process_time() - began < 10


@pytest.mark.parametrize("obstacle", ["a file in place of the folder", "a file that is no database", "a full disk"])
def test_a_cache_that_cannot_be_written_costs_one_line_and_no_run(
    tmp_path: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    if obstacle == "a file in place of the folder":
        cache.write_text("in the way")
    elif obstacle == "a file that is no database":
        cache.mkdir()
        (cache / "checked-audio-3.sqlite").write_text("this is no database, " * 100)
    else:
        monkeypatch.setattr(memory.sqlite3, "connect", lambda *_, **__: FullDisk())
    with caplog.at_level(logging.WARNING):
        seconds, broken = check_files([Utterance("u", write(tmp_path / "a.wav"))], cache)
    assert seconds == {"u": 1.0}
    assert broken == []
    assert len(caplog.records) == 1
    assert "not remembered" in caplog.text


class FullDisk:
    """A connection to a database that reads but cannot grow."""

    def execute(self, *_: object) -> FullDisk:
        return self

    def executemany(self, *_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    def fetchall(self) -> list:
        return []

    def commit(self) -> None:
        return None

    def close(self) -> None:
        return None


def test_the_cache_folder_is_the_one_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("HEADWATER_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "headwater"
