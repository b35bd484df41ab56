"""A user's desk: a folder with data and finished runs in it, and a way to type a command there."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.__main__ import dispatch
from headwater.commands import downstream
from headwater.commands.common.shell import run_command

PROGRAMS = {
    "headwater": dispatch,
    "python run_downstream.py": lambda words: downstream.main(words, prog="python run_downstream.py"),
}
QUICK = "-o training.steps=4 training.eval_every=2 training.batch_size=8"  # a run of a second


@pytest.fixture
def desk(tmp_path: Path, tones: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the user is in: `tones/` is a corpus of three classes, `run/` a finished run over it."""
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "tones").symlink_to(tones.parent)
    (folder / "run").symlink_to(finished)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # the same mistakes wherever the tests run
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "none.yaml"))
    return folder


@pytest.fixture
def type_in(
    desk: Path, capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> Callable[[str], tuple[int, str, str]]:
    """Type a command at the desk: exit code, stdout and stderr come back."""

    def run(typed: str) -> tuple[int, str, str]:
        program = next(name for name in PROGRAMS if typed.startswith(f"{name} "))
        words = shlex.split(typed.removeprefix(program).replace("QUICK", QUICK))
        capsys.readouterr()
        try:
            code = run_command(PROGRAMS[program], words)
        except SystemExit as end:  # argparse leaves so
            code = int(end.code or 0)
        printed = capsys.readouterr()
        record_property("mistake", [typed, printed.err.replace(str(desk), "."), code])
        return code, printed.out, printed.err

    return run


@pytest.fixture
def error_of(desk: Path, type_in: Callable[[str], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Type a mistake, and return the one line that comes back before anything is trained; nothing is left behind."""

    def train(*_: object) -> None:
        """Stand where the training would begin."""
        raise AssertionError("training began")

    def run(typed: str, *, lines: int = 1) -> str:
        """Type it."""
        monkeypatch.setattr("headwater.runs.run.train", train)
        before = set(desk.rglob("*"))
        code, out, err = type_in(typed)
        message = "\n".join(line for line in err.splitlines() if not line.startswith(("plan ", "run ")))
        assert (code, out) == (2, ""), err
        assert message.startswith("error: "), err
        assert len(message.splitlines()) <= lines, err
        assert len(message) < 1500, err
        left = {str(path.relative_to(desk)) for path in set(desk.rglob("*")) - before}
        assert not left, f"left behind: {sorted(left)}"
        return message

    return run
