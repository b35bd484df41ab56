"""Mistakes of the machine: full disks, folders that cannot be written, broken packages, numbers that overflow, interruptions."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors import SafetensorError

from headwater.commands.common.shell import run_command

TypeIn = Callable[[str], tuple[int, str, str]]
TRAIN = "python run_downstream.py -u fbank_no_cmvn -d emotion --data tones/tones.csv"


def scores(folder: Path) -> dict:
    """What a run says of its splits."""
    return json.loads((folder / "result.json").read_text())["scores"]


def halves(folder: Path) -> list[Path]:
    """Files that were not written to their end."""
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def started(*words: str, limit: int | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with a largest size of a file where one is given."""
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); " if limit else ""
    script = f"{before}import sys; from headwater.__main__ import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_a_file_that_may_not_grow_is_one_line_and_the_same_command_goes_on(
    desk: Path, type_in: TypeIn, record_property: Callable[[str, object], None]
) -> None:
    typed = f"{TRAIN} -p mine -o training.steps=4 training.eval_every=2"
    words = ["downstream", *typed.split()[2:]]
    ended = started(*words, limit=100_000)
    record_property("mistake", [f"ulimit -f 100; {typed}", ended.stderr, ended.returncode])
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: Expected to write '")
    assert "found that the file may not grow that large" in last
    assert "Make room" in last
    assert "Traceback" not in ended.stderr
    assert not halves(desk)
    assert type_in(typed)[0] == 0
    assert type_in(typed.replace("mine", "undisturbed"))[0] == 0
    assert scores(desk / "mine") == scores(desk / "undisturbed")


@pytest.fixture
def small_disk(desk: Path) -> Iterator[Path]:
    """A disk with half a megabyte, where this user may mount one."""
    folder = desk / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("filled", [100, 300, 420, 512], ids=lambda filled: f"{512 - filled} kB left on the disk")
def test_a_full_disk_is_one_line_wherever_it_strikes(filled: int, small_disk: Path, type_in: TypeIn) -> None:
    with suppress(OSError), (small_disk / "other").open("wb") as file:
        file.write(bytes(filled * 1000))
    code, out, err = type_in(f"{TRAIN} -p disk/mine -o training.steps=4 training.eval_every=2")
    assert (code, out) == (2, ""), err
    assert "found that the disk is full. Make room, or choose another place" in err.splitlines()[-1]
    assert sum(line.startswith("error") for line in err.splitlines()) == 1
    assert not halves(small_disk)


def test_predictions_on_a_full_disk_end_in_one_line_with_the_place(small_disk: Path, type_in: TypeIn) -> None:
    with suppress(OSError), (small_disk / "other").open("wb") as file:
        file.write(bytes(512 * 1024))
    code, out, err = type_in("headwater predict run tones/00.wav --out disk/labels.csv")
    assert (code, out) == (2, "")
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert "'disk/labels.csv'" in line
    assert "full" in line


def test_a_disk_that_fills_while_a_checkpoint_is_written_leaves_the_last_one_whole(
    desk: Path, type_in: TypeIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.core import tensors as checkpoint

    written, save_file = [], checkpoint.save_file

    def fill(tensors: dict, path: Path, metadata: dict) -> None:
        """Write twice, then half."""
        written.append(path)
        if len(written) > 2:
            path.write_bytes(b"half")
            raise SafetensorError(f"Error while serializing: I/O error: No space left on device (os error {errno.ENOSPC})")
        save_file(tensors, path, metadata=metadata)

    typed = f"{TRAIN} -p mine -o training.steps=6 training.eval_every=2 training.save_every=1"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", fill)
        code, _, err = type_in(typed)
    assert code == 2
    assert "found that the disk is full" in err
    assert not halves(desk)
    tensors, facts = checkpoint.load_tensors(desk / "mine" / "checkpoints" / "last.safetensors")
    assert tensors
    assert facts["progress"]["step"] >= 1
    assert type_in(typed)[0] == 0


PLACES = {
    "below a file": ("-p tones/tones.csv/run", "a part of the path is a file"),
    "where the system has its own": ("-p /proc/run", "no folder can be made there"),
    "a name without end": (f"-n {'x' * 300}", "the name is too long"),
}


@pytest.mark.parametrize("mistake", PLACES)
def test_a_place_that_cannot_be_written_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    flags, words = PLACES[mistake]
    message = error_of(f"{TRAIN} {flags}")
    assert words in message
    assert "Choose another place" in message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS], ids=["a forbidden folder", "a read-only disk"])
def test_a_forbidden_or_read_only_folder_is_reported_in_one_line(
    number: int, error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def refuse(path: Path, *arguments: object, **named: object) -> None:
        """Make no folder called mine."""
        if path.name == "mine":
            raise OSError(number, os.strerror(number), str(path))
        mkdir(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refuse)
    message = error_of(f"{TRAIN} -p mine")
    assert {errno.EACCES: "writing there is not allowed", errno.EROFS: "the file system is read-only"}[number] in message


@pytest.fixture
def broken_torchaudio(tmp_path: Path) -> str:
    """A folder with a torchaudio whose library does not fit torch."""
    package = tmp_path / "broken" / "torchaudio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise OSError('libtorchaudio.so: undefined symbol: _ZN3c105ErrorC2E')\n")
    return str(package.parent)


def test_a_torchaudio_that_cannot_load_is_named_with_the_command_that_mends_it(
    desk: Path, broken_torchaudio: str, record_property: Callable[[str, object], None]
) -> None:
    typed = TRAIN.replace("fbank_no_cmvn", "test_hubert")
    ended = started("downstream", *typed.split()[2:], PYTHONPATH=broken_torchaudio)
    record_property("mistake", [typed, ended.stderr, ended.returncode])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "error: Expected a torchaudio that matches torch" in ended.stderr
    assert "undefined symbol" in ended.stderr
    assert "`pip uninstall torchaudio`" in ended.stderr
    assert not (desk / "result").exists()


def test_fbank_does_not_mind_a_torchaudio_that_cannot_load(desk: Path, broken_torchaudio: str) -> None:  # noqa: ARG001
    words = ["downstream", *TRAIN.split()[2:], "-o", "training.steps=2", "--quiet"]
    ended = started(*words, PYTHONPATH=broken_torchaudio)
    assert ended.returncode == 0, ended.stderr
    assert "torchaudio" not in ended.stderr


def test_a_demo_without_its_synthesiser_names_what_to_install(
    type_in: TypeIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "espeakng_loader.py").write_text("raise ImportError('no espeak-ng here')\n")
    monkeypatch.syspath_prepend(tmp_path / "absent")
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    code, out, err = type_in("python run_downstream.py -u fbank -d emotion --demo")
    assert (code, out) == (2, "")
    message = err.splitlines()[-1]
    assert "error: Expected the speech synthesiser of the demo corpora, found no package 'espeakng-loader'" in message
    assert message.endswith("[demo]'")
    assert "pip install -e /" in message  # by its folder: the user is somewhere else
    assert not list((tmp_path / "cache").rglob("*.wav"))
    assert not (tmp_path / "desk" / "result").exists()


def test_a_cache_that_cannot_be_written_is_named(
    error_of: Callable[..., str], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "file").touch()
    monkeypatch.setenv("HEADWATER_CACHE", str(desk / "file"))
    message = error_of("headwater corpus demo iemocap")
    assert "to write the demo corpus into " in message
    assert "found: Not a directory. Choose another folder" in message
    assert "HEADWATER_CACHE=FOLDER" in message


def test_a_config_file_that_is_no_yaml_is_named(
    error_of: Callable[..., str], desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "headwater.yaml").write_text("data: [")
    monkeypatch.setenv("HEADWATER_CONFIG", "headwater.yaml")
    message = error_of("python run_downstream.py -u fbank -d emotion")
    assert "yaml such as 'data: {iemocap: /path}' in headwater.yaml" in message


@pytest.mark.parametrize("typed", ["-o store.mode={}", "--data {}.csv", "-u {}"])
def test_a_path_that_is_too_long_is_one_line(type_in: TypeIn, typed: str) -> None:
    code, out, err = type_in(f"{TRAIN} -p mine {typed.format('x' * 400)}")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")


def test_a_loss_that_is_no_number_names_its_utterances(type_in: TypeIn, desk: Path) -> None:
    code, out, err = type_in(f"{TRAIN} -p mine -o optimizer.lr=1e30 training.batch_size=2 training.steps=20")
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: Expected a finite loss, found ")
    assert ".wav" in last
    assert "Lower optimizer.lr" in last
    assert not halves(desk)
    assert type_in(f"{TRAIN} -p mine QUICK")[0] == 0  # nothing was learnt there: the folder gives way


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("auto", "error: Expected finite features to store, found NaN or infinity: "),
        ("off", "error: Expected finite scores of every utterance of test, found NaN or infinity for flip.wav. Look for"),
    ],
)
def test_a_score_that_is_no_number_is_never_counted(type_in: TypeIn, desk: Path, store: str, words: str) -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal(8000).astype("float32")
    wave[4000] = 3e38  # one bit of the exponent
    soundfile.write(desk / "flip.wav", wave, 16000, subtype="FLOAT")
    rows = [
        line if number == 0 else f"tones/{line}" for number, line in enumerate(Path("tones/tones.csv").read_text().splitlines())
    ]
    Path("data.csv").write_text("\n".join([*rows, "flip.wav,low,spk10,test"]) + "\n")
    code, out, err = type_in(f"{TRAIN.replace('tones/tones.csv', 'data.csv')} -p mine --store {store} QUICK")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(words)
    assert "flip.wav" in err.splitlines()[-1]
    assert not (desk / "mine" / "result.json").exists()


def test_an_altered_byte_of_a_checkpoint_is_not_resumed_and_one_of_the_log_is(type_in: TypeIn, desk: Path) -> None:
    typed = f"{TRAIN} -p mine QUICK"
    assert type_in(typed)[0] == 0
    (desk / "mine" / "result.json").unlink()
    log, last = desk / "mine" / "metrics.jsonl", desk / "mine" / "checkpoints" / "last.safetensors"
    log.write_bytes(log.read_bytes() + b"\xff\xfe{\n")
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, out, err = type_in(typed)
    assert (code, out) == (2, "")
    assert "found a damaged file (its checksum is another than the one that was written). Remove it" in err.splitlines()[-1]
    last.write_bytes(whole)
    assert type_in(typed)[0] == 0
    assert log.read_text(encoding="utf-8").count("\n") == len([json.loads(line) for line in log.read_text().splitlines()])


def test_an_interruption_is_one_line_and_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        """Stand for a long command."""
        raise KeyboardInterrupt

    assert run_command(interrupted, []) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interruption_waits_for_what_may_not_be_cut() -> None:
    from headwater.runs.log import uninterrupted

    ended = []

    def write() -> None:
        """Be interrupted in the midst."""
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert ended


def test_a_training_run_that_is_interrupted_says_how_to_go_on(desk: Path, record_property: Callable[[str, object], None]) -> None:
    typed = f"{TRAIN} -p mine -o training.steps=100000 training.log_every=1"
    process = subprocess.Popen(
        [sys.executable, "-m", "headwater", "downstream", *typed.split()[2:]], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not (desk / "mine" / "metrics.jsonl").is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    record_property("mistake", [f"{typed}   (Ctrl-C)", err, process.returncode])
    assert process.returncode == 130
    assert err.splitlines()[-2:] == ["the same command goes on where it was", "interrupted"]
    assert "Traceback" not in err
    assert not halves(desk)


@pytest.mark.parametrize(("target", "code", "words"), [("pipe", 0, ""), ("/dev/full", 2, "No space left on device")])
def test_a_reader_that_went_away_and_a_full_disk_behind_the_output(target: str, code: int, words: str) -> None:
    if target == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    ended = subprocess.run(
        [sys.executable, "-m", "headwater", "list", "upstreams"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert ended.returncode == code, ended.stderr
    assert len(ended.stderr.splitlines()) == bool(words), ended.stderr
    assert words in ended.stderr


def test_a_clone_that_was_not_installed_says_so(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "run_downstream.py"
    ended = subprocess.run(  # -S: without the installed packages
        [sys.executable, "-S", str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "error: Expected headwater to be installed" in ended.stderr
    assert "pip install" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
