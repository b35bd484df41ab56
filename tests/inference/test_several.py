"""Several runs, and several tasks of a run, predict on the same files in one csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from headwater.commands.use import predict
from headwater.core.errors import UserError
from headwater.inference.several import Several, load_several
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime


@pytest.fixture(scope="module")
def joint(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three tasks, one of which reads too."""
    corpus = {"data": str(rated)}
    values = {
        "upstream": {"name": "fbank_no_cmvn"},
        "text_upstream": {"name": "hashed_words"},
        "tasks": {
            "emotion": {"corpus": corpus, "roles": ["audio"]},
            "dsd": {"corpus": corpus, "labels": {"column": "directed"}},
            "avd": {"corpus": corpus, "roles": ["audio"], "avd": {"scale": [1, 7]}},
        },
        "training": {"steps": 2, "batch_size": 8, "eval_every": 2},
        "select": "last",
        "store": {"mode": "off"},
    }
    folder = tmp_path_factory.mktemp("several") / "joint"
    run(resolve([values]), folder, Runtime("cpu", quiet=True))
    return folder


def rows(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> list[dict[str, str]]:
    """Return the lines that a command prints."""
    assert predict.main([*map(str, words)]) == code
    return [*csv.DictReader(io.StringIO(capsys.readouterr().out))]


def test_each_run_has_columns_of_its_own_and_what_it_prints_alone(
    joint: Path, finished: Path, rated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = {name: rows(capsys, joint, rated, "--task", name) for name in ("emotion", "dsd", "avd")}
    alone["mood"] = rows(capsys, finished, rated)
    together = rows(capsys, joint, rated, "--task", "emotion,dsd,avd", "--also", f"mood={finished}")
    assert len(together) == 72
    assert [*together[0]][:4] == ["file", "start", "end", "emotion.label"]
    assert {"dsd.score_directed", "avd.score_arousal", "mood.score_high"} <= {*together[0]}
    for place, row in enumerate(together):
        for name, lines in alone.items():
            own = {key: value for key, value in lines[place].items() if key not in ("file", "start", "end", "error")}
            assert {key: row[f"{name}.{key}"] for key in own} == own
        assert (row["file"], row["error"]) == (alone["mood"][place]["file"], "")


def test_a_run_that_only_reads_predicts_what_it_does_alone_beside_windows_of_a_long_file(
    joint: Path, rated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, training = {"data": str(rated)}, {"steps": 2, "batch_size": 8, "eval_every": 2}
    reading = {"task": "emotion", "text_upstream": {"name": "hashed_words"}, "corpus": corpus, "training": training}
    run(resolve([reading]), tmp_path / "reading", Runtime("cpu", quiet=True))
    generator = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", 0.1 * generator.standard_normal(16_000 * 70), 16_000)
    (tmp_path / "list.csv").write_text("audio,text\nlong.wav,so glad computer please\n")
    [alone] = rows(capsys, tmp_path / "reading", tmp_path / "list.csv")
    [heard] = rows(capsys, joint, tmp_path / "list.csv", "--task", "emotion")
    [beside] = rows(capsys, joint, tmp_path / "list.csv", "--task", "emotion", "--also", f"r={tmp_path / 'reading'}")
    for name, own in {"r": alone, "joint": heard}.items():
        assert {key: beside[f"{name}.{key}"] for key in own if key.startswith(("label", "score"))} == {
            key: value for key, value in own.items() if key.startswith(("label", "score"))
        }


def test_a_run_without_a_name_has_its_folders_and_what_one_cannot_read_others_can(
    joint: Path, finished: Path, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    first, second = rows(capsys, finished, tones.with_name("00.wav"), broken, "--also", f"j={joint}", code=predict.BROKEN)
    assert first["finished.label"]
    assert first["j.emotion.label"]
    assert first["j.avd.score_arousal"]
    assert not first["j.dsd.label"]
    assert first["error"].startswith("j.dsd: Expected the words of")
    assert second["error"].startswith("Expected readable audio"), "one reason of all of them is given once"
    assert not any(value for key, value in second.items() if key not in ("file", "error"))


def test_a_table_of_several_runs_grows_and_refuses_other_runs(
    joint: Path, finished: Path, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, sounds = tmp_path / "out.csv", [tones.with_name(f"0{number}.wav") for number in range(3)]
    words = [joint, "--task", "emotion", "--also", finished, "--out", table]
    assert rows(capsys, *words, *sounds[:2]) == []
    before = table.read_text()
    assert rows(capsys, *words, *sounds) == []
    assert table.read_text().startswith(before)
    assert len(table.read_text().splitlines()) == 4
    with pytest.raises(UserError, match="Expected"):
        predict.main([*map(str, [joint, "--task", "emotion,avd", "--also", finished, "--out", table, *sounds])])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--also", "{finished}", "--also", "{finished}"], r"found two called 'finished'. Give one: --also OTHER="),
        (["--also", "=RUN"], r"Expected --also RUN or --also NAME=RUN, found '=RUN'"),
        (["--also", "{finished}", "--format", "rttm"], r"Expected one run and one task for --format rttm, found several"),
        (["--also", "{finished}", "--pair", "a.wav", "b.wav"], r"Expected one run and one task for --pair, found several"),
    ],
)
def test_what_several_runs_cannot_do_is_refused(words: list[str], message: str, joint: Path, finished: Path, tones: Path) -> None:
    words = [word.format(finished=finished) for word in words]
    files = [] if "--pair" in words else [str(tones.with_name("00.wav"))]
    with pytest.raises(UserError, match=message):
        predict.main([str(joint), "--task", "emotion", *files, *words])


def test_runs_by_name_are_one_predictor(joint: Path, finished: Path) -> None:
    found = load_several(str(joint), ["emotion", "avd"], [str(finished)])
    assert isinstance(found, Several)
    assert [*found.runs] == ["emotion", "avd", "finished"]
    assert found.roles == ("audio",)
    assert not found.uses_text
    assert found.fingerprint != load_several(str(joint), ["emotion", "avd"], [f"b={finished}"]).fingerprint
