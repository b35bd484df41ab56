"""`headwater extract` as it is typed: the plan, the result, its exit codes, and one line for each mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.__main__ import dispatch
from headwater.commands.common.shell import run_command
from headwater.runs.extraction import plan as planning

TypeIn = Callable[..., tuple[int, str, str]]


@pytest.fixture
def audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of six short files."""
    monkeypatch.setattr(planning, "SAMPLE_SECONDS", 0.5)
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "audio").mkdir()
    for number in range(6):
        noise = 0.1 * np.random.default_rng(number).standard_normal(3200)
        soundfile.write(tmp_path / "audio" / f"{number}.wav", noise, 16_000)
    return tmp_path / "audio"


@pytest.fixture
def type_in(capsys: pytest.CaptureFixture[str]) -> TypeIn:
    """Type `headwater extract …`: exit code, stdout and stderr come back."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = run_command(dispatch, ["extract", *map(str, words), "-u", "test_hubert", "--device", "cpu"])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def test_shards_are_computed_one_by_one_and_merged_after_the_last(audio: Path, tmp_path: Path, type_in: TypeIn) -> None:
    store = tmp_path / "store"
    code, out, err = type_in(audio, "--store", store, "--shards", "2", "--shard", "1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["audio", "disk", "time", "shards", "folder", "left"]
    assert "left      1 of 2 shards: 0" in out
    assert "merge     comes with the last shard, by the process that finishes it" in err
    code, out, err = type_in(audio, "--store", store)
    assert code == 0
    assert "done      1 of 2 shards" in out
    assert "merged    6 utterances (0.00 h) of 2 shards; 6 rows were computed for them, in " in out
    assert f"use it    headwater downstream -u test_hubert --store {store} …" in out
    assert "shard 0   done: 3 recordings now, 3 in all, 3 rows" in err
    code, _, err = type_in(audio, "--store", store, "--quiet")
    assert (code, err) == (0, "")


def test_failures_end_with_their_own_exit_code_and_say_how_many(audio: Path, type_in: TypeIn) -> None:
    (audio / "bad.wav").write_bytes(b"no audio")
    code, out, err = type_in(audio)
    assert code == 3
    assert "shard 6   1 failed, listed in " in err
    assert "failed    1, listed in " in out
    assert out.splitlines()[-1].endswith("Mend them, and run the command again with --retry.")


def test_a_small_limit_refuses_frames_and_leaves_nothing_begun(audio: Path, tmp_path: Path, type_in: TypeIn) -> None:
    code, _, err = type_in(audio, "--store", tmp_path / "store", "--frames", "--most", "1KB")
    assert code == 2
    assert err.startswith("error: Expected at most 1.0 kB (--most), found ")
    assert len(err.splitlines()) == 1
    assert not [*(tmp_path / "store").iterdir()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stretch", "0.5"], "Expected --stretch from 1 to 14400 seconds, found 0.5. For instance 30."),
        (["--statistics", "median"], "Expected --statistics mean, mean+std, mean+max, found 'median'."),
        (["--frames", "--statistics", "mean+std"], "Expected --frames or --statistics, found both."),
        (["-l", "9"], "Expected -l from 0 to 4, found 9. Leave it out for all layers."),
        (["-o", "store.precision=int8"], "Expected --frames beside store.precision=int8: means are kept in float32."),
        (["-o", "upstream.trainable=true"], "Expected a frozen upstream, found one that is trained."),
        (["-o", "upstream.padding=s3prl"], "Expected upstream.padding=exact, found s3prl"),
        (["-o", "store.precison=int8"], "Unknown option 'store.precison'. Did you mean 'precision'?"),
        (["-o", "corpus.options.audio_root=x"], "Expected a table beside -o corpus.options, found '"),
        (["--shards", "7"], "Expected --shards from 1 to 6, the number of files, found 7."),
        (["--shards", "2", "--shard", "2"], "Expected --shard from 0 to 1, found 2. They are counted from 0"),
        (["--most", "much"], "Expected a size such as 20GB, found 'much'."),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    audio: Path, tmp_path: Path, type_in: TypeIn, words: list[str], message: str
) -> None:
    code, _, err = type_in(audio, "--store", tmp_path / "store", *words)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not [*(tmp_path / "store").glob("*/extract")]


def test_the_disk_of_the_store_is_named_where_it_cannot_be_written(audio: Path, tmp_path: Path, type_in: TypeIn) -> None:
    (tmp_path / "file").touch()
    code, _, err = type_in(audio, "--store", tmp_path / "file" / "store")
    assert code == 2
    assert err.startswith(f"error: Expected to write '{tmp_path / 'file' / 'store'}', found that ")
