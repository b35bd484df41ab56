"""The format of a run folder: its files, its lock, the runs of a plan."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from .errors import UserError
from .files import made, plain_disk_errors, read_json

TRAINED_ON = "trained_on.json"  # which utterances a run learnt from: no evaluation may hear them again


BEST, LAST = "checkpoints/best.safetensors", "checkpoints/last.safetensors"


WHOLE = ("config.yaml", "vocabulary.json", "identity.json", "layer_weights.json", "result.json", BEST)  # of a finished run


# by role: of a finetuned run, with its checkpoint, all that the upstream is
ARCHITECTURES = {"audio": "upstream.json", "text": "text_upstream.json"}


def run_folder(name: str | Path) -> Path:
    """Return the folder of a run, or say what is there instead."""
    folder = Path(name).expanduser()
    if not (folder / "config.yaml").is_file():
        below = sorted(str(path.parent) for path in folder.glob("**/config.yaml"))[:4]
        found = f"a plan with the runs {', '.join(below)}: name one of them" if below else "no config.yaml: check the path"
        raise UserError(f"Expected a run folder at '{folder}', found {found}.")
    return folder


class Held(UserError):
    """A run folder in which another process is at work."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; a second one is told who has it."""
    lock = folder / ".lock"
    with made(folder):
        with plain_disk_errors(folder):
            file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 (open while held)
        with file:
            _take(file, folder)
            try:
                with plain_disk_errors(folder):
                    file.truncate(0)
                    file.write(f"process {os.getpid()} on {socket.gethostname()}")
                    file.flush()
                yield
            finally:
                if [*folder.iterdir()] == [lock]:  # stopped before anything was begun
                    lock.unlink()


def refuse_held(folder: Path) -> None:
    """Raise Held where another process is at work in a run folder; nothing is written."""
    if (folder / ".lock").is_file():
        with (folder / ".lock").open("r+", encoding="utf-8") as file:
            _take(file, folder)  # closing it gives it back


def _take(file: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(file.fileno()).st_nlink:  # its holder has just taken it away
            raise BlockingIOError
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise Held(
            f"Expected the run folder '{folder}' to be free, found that {holder} holds it. "
            "Wait for it to end, or choose another folder with -n or -p."
        ) from None


Row = Mapping[str, Any]  # a run in a plan's result.json: name, setting, seed, fold


def runs_of_plan(folder: Path) -> list[Row] | None:
    """Return the runs that a finished plan reports, of a sweep those of the setting that dev chose; None: it is no plan."""
    path = folder / "result.json"
    if (folder / "config.yaml").is_file() or not path.is_file():
        return None
    summary = read_json(path)
    if not isinstance(summary, dict) or "runs" not in summary:
        return None
    return [row for row in summary["runs"] if "chosen" not in summary or row["setting"] == summary["chosen"]]


def counted(rows: Sequence[Row]) -> str:
    """Return `5 folds`, `3 seeds`, or both."""
    counts = {key: len({row[key] for row in rows}) for key in ("fold", "seed")}
    return " x ".join(f"{count} {key}s" for key, count in counts.items() if count > 1) or f"{len(rows)} runs"


def refuse_plan(folder: Path) -> None:
    """Refuse a folder in which the runs of a plan stand."""
    path = folder / "result.json"
    if path.is_file() and not (folder / "identity.json").is_file() and "runs" in read_json(path):
        raise UserError(f"Expected a folder for one run, found a plan of several in '{folder}'. Choose another with -n or -p.")


def is_finished(folder: Path) -> bool:
    """Return whether a run stands there as a whole."""
    return all((folder / name).is_file() for name in WHOLE)
