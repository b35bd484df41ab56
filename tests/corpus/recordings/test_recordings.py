"""Recordings of tables, folders and tars are the same recordings, cut in the same way; what is broken is named."""

from __future__ import annotations

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.core.errors import UserError
from headwater.corpus.audio import header_seconds, read_audio, read_complete
from headwater.corpus.base import Utterance
from headwater.corpus.recordings.cut import bounds_of, utterances_of
from headwater.corpus.recordings.source import Recording, expand, find_source
from headwater.corpus.recordings.tars import members

FORMS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3"}


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A folder with a file of each form."""
    folder = tmp_path / "audio"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, (suffix, form) in enumerate(FORMS.items()):
        soundfile.write(folder / f"{number}.{suffix}", 0.1 * generator.standard_normal((24_000, 2)), 24_000, format=form)
    return folder


def packed(tar: Path, folder: Path, mode: str = "w") -> Path:
    """Pack a folder as WebDataset does: each file of audio beside its json."""
    with tarfile.open(tar, mode) as archive:  # type: ignore[call-overload]
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
            entry = tarfile.TarInfo(f"{path.stem}.json")
            entry.size = 2
            archive.addfile(entry, io.BytesIO(b"{}"))
        archive.addfile(tarfile.TarInfo("._0.wav"), io.BytesIO())
    return tar


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_a_tar_gives_the_bytes_of_its_audio_and_nothing_else(audio: Path, tmp_path: Path, name: str, mode: str) -> None:
    tar = packed(tmp_path / name, audio, mode)
    found = dict(members(tar))
    assert found == {f"{tar}/{path.name}": path.read_bytes() for path in audio.iterdir()}
    assert [*dict(members(tar, frozenset([f"{tar}/0.wav"])))] == [f"{tar}/1.flac", f"{tar}/2.ogg", f"{tar}/3.mp3"]


@pytest.mark.parametrize("suffix", FORMS)
def test_audio_out_of_memory_is_that_of_the_file(audio: Path, suffix: str) -> None:
    [path] = audio.glob(f"*.{suffix}")
    data = path.read_bytes()
    assert np.array_equal(read_audio("name", 0.1, 0.5, data=data), read_audio(path, 0.1, 0.5))
    assert np.array_equal(read_complete("name", data=data), read_complete(path))
    assert header_seconds("name", io.BytesIO(data)) == header_seconds(path) == pytest.approx(1.0, abs=0.1)


def test_a_file_that_is_cut_short_inside_a_tar_is_noticed(audio: Path) -> None:
    data = (audio / "0.wav").read_bytes()[:-1000]
    with pytest.raises(UserError, match="found a file cut short: the header promises 1000 bytes more"):
        read_complete("TAR/0.wav", data=data)
    with pytest.raises(UserError, match="found an empty file"):
        read_complete("TAR/0.wav", data=b"")
    with pytest.raises(UserError, match=r"found audio that cannot be decoded .*TAR/0.wav"):
        read_complete("TAR/0.wav", data=b"no audio at all")


@pytest.mark.parametrize("kept", [0.4, 0.9])
@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_a_tar_that_is_cut_gives_what_is_whole_and_then_its_problem(
    audio: Path, tmp_path: Path, kept: float, name: str, mode: str
) -> None:
    tar = packed(tmp_path / name, audio, mode)
    data = tar.read_bytes().rstrip(b"\0")
    tar.write_bytes(data[: int(kept * len(data))])
    found = [*find_source([str(tar)]).shard(0, 1)]
    assert "Expected a tar that can be read to its end, found " in found[-1].problem
    assert all((audio / Path(one.name).name).read_bytes() == one.data for one in found[:-1])


def test_a_tar_that_is_cut_between_two_files_is_noticed(audio: Path, tmp_path: Path) -> None:
    tar = packed(tmp_path / "a.tar", audio)
    with tarfile.open(tar) as archive:
        place = archive.getmember("1.flac").offset
    tar.write_bytes(tar.read_bytes()[:place])
    *whole, last = find_source([str(tar)]).shard(0, 1)
    assert [Path(one.name).name for one in whole] == ["0.wav"]
    assert "no end of the tar: it is cut short" in last.problem


def test_patterns_stand_for_paths(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"s-{number}.tar").touch()
    assert [path.name for path in expand(f"{tmp_path}/*.tar")] == ["s-1.tar", "s-2.tar"]
    assert [path.name for path in expand("a-{000..002}-{1..2}.tar")][:3] == ["a-000-1.tar", "a-000-2.tar", "a-001-1.tar"]
    assert len(expand("s-{000..099}.tar")) == 100
    with pytest.raises(UserError, match=r"Expected \{FIRST..LAST\} with FIRST below LAST, found '\{9..1\}'"):
        expand("s-{9..1}.tar")
    with pytest.raises(UserError, match=r"Expected files for '.*\*.tgz', found none"):
        expand(f"{tmp_path}/*.tgz")


def test_shards_have_every_recording_once(audio: Path) -> None:
    source = find_source([str(audio)])
    shards = [[one.name for one in source.shard(number, 3)] for number in range(3)]
    assert sorted(name for shard in shards for name in shard) == sorted(map(str, audio.iterdir()))
    assert [one.name for one in source.shard(0, 1, frozenset([str(audio / "0.wav")]))] == sorted(map(str, audio.iterdir()))[1:]


def test_a_source_is_another_one_when_a_file_changes(audio: Path) -> None:
    before = find_source([str(audio)]).key
    assert find_source([str(audio)]).key == before
    soundfile.write(audio / "0.wav", np.zeros(100), 16_000)
    assert find_source([str(audio)]).key != before


def test_a_table_gives_the_stretches_of_its_files(audio: Path) -> None:
    table = audio.parent / "t.csv"
    table.write_text("audio,start,end\naudio/0.wav,0,0.25\naudio/0.wav,0.5,0.75\naudio/1.flac,,\n")
    first, second = find_source([str(table)]).shard(0, 1)
    assert [(row.start, row.duration) for row in first.stretches] == [(0, 0.25), (0.5, 0.25)]
    assert [(row.start, row.duration) for row in utterances_of(second, None, audio)] == [(0.0, None)]
    renamed = audio.parent / "renamed.csv"
    renamed.write_text("file,von\naudio/0.wav,0.5\n")
    [only] = find_source([str(renamed)], {"columns": {"audio": "file", "start": "von"}}).shard(0, 1)
    assert [(row.start, row.duration) for row in only.stretches] == [(0.5, None)]


def test_long_recordings_are_cut_to_their_end_and_short_ones_stay_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000 * 7 + 8_000), 16_000)
    recording = Recording(str(tmp_path / "long.wav"))
    rows = utterances_of(recording, 3.0, tmp_path)
    assert [(row.id, row.start, row.duration) for row in rows] == [
        ("long.wav#0-3", 0.0, 3.0),
        ("long.wav#3-6", 3.0, 3.0),
        ("long.wav#6-7.5", 6.0, 1.5),
    ]
    whole = Utterance("long.wav", recording.name)
    assert utterances_of(recording, 7.0, tmp_path) == [whole]  # half a second is no stretch
    assert utterances_of(recording, None, tmp_path) == [whole]


@pytest.mark.parametrize(("first", "seconds", "stretch"), [(0.0, 3600.123456789, 30.0), (1.7, 100.0, 7.3), (0.0, 0.5, 1.0)])
def test_stretches_meet_and_cover_everything(first: float, seconds: float, stretch: float) -> None:
    bounds = bounds_of(first, seconds, stretch)
    assert bounds[0][0] == first
    assert seconds - 1e-5 <= bounds[-1][1] <= seconds
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(bounds))
    assert all(end - start <= stretch + 1.0 for start, end in bounds)


MISTAKES = [
    (["nothing.csv"], "found: "),
    (["nothing"], r"found nothing at nothing. Check the path"),
    (["a.tar", "b.csv"], "Expected tars alone, found 'b.csv' among them"),
    (["a.csv", "b.csv"], "Expected one table, one folder, or tars, found 2 paths"),
    (["a.tar", "a.tar"], "Expected every file once, found 1 of them twice"),
    (["none.tar"], "Expected a file at 'none.tar', found: No such file"),
    (["mixed"], "Expected audio or tars, found both in mixed. Name the tars: 'mixed/\\*.tar'"),
    (["empty"], "Expected audio or tars in empty, found none"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES)
def test_a_source_that_is_none_is_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tar").touch()
    for folder in ("mixed", "empty"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mixed" / "a.tar").touch()
    (tmp_path / "mixed" / "a.wav").touch()
    with pytest.raises(UserError, match=message) as caught:
        find_source(words)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"Expected a table beside -o corpus.options, found 'a.tar'"):
        find_source(["a.tar"], {"audio_root": "x"})
