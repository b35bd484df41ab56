"""Checkpoints and small files: safetensors and json, written aside and renamed, never a pickle."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError


@dataclass(frozen=True)
class Progress:
    """What a run remembers rather than draws: where it is, and the best so far."""

    step: int = 0
    best_step: int = 0
    best_score: float | None = None
    worse_evaluations: int = 0  # since the best one
    seconds: float = 0.0  # spent so far, over all starts
    drawn: Mapping[str, int] = field(default_factory=dict)  # task -> how many steps trained it
    bests: Mapping[str, Sequence[float]] = field(default_factory=dict)  # task -> the step of its best dev score, and that score

    @property
    def is_new(self) -> bool:
        """True before anything was learnt."""
        return self.step == 0


@contextmanager
def plain_disk_errors(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into one line."""
    causes = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EFBIG: "the file may not grow that large",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "writing there is not allowed",
        errno.EPERM: "writing there is not allowed",
        errno.ENOTDIR: "a part of the path is a file",
        errno.EEXIST: "a file stands in the way",
        errno.EISDIR: "a folder stands in the way",
        errno.ENOENT: "no folder can be made there",
        errno.ENAMETOOLONG: "the name is too long",
    }
    try:
        yield
    except OSError as problem:
        if problem.errno not in causes:
            raise
        is_full = problem.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        advice = "Make room, or choose another place: what stands there is whole." if is_full else "Choose another place."
        raise UserError(f"Expected to write '{path}', found that {causes[problem.errno]}. {advice}") from None


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a name to write to; it becomes `path` when all went well, and is gone otherwise."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with plain_disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            os.replace(aside, path)
        finally:
            # on a file system that refuses everything there is nothing to take away either
            if os.path.lexists(aside):
                aside.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a json file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def run_folder(name: str | Path) -> Path:
    """Return the folder of a run, or say what is there instead."""
    folder = Path(name).expanduser()
    if not (folder / "config.yaml").is_file():
        below = sorted(str(path.parent) for path in folder.glob("**/config.yaml"))[:4]
        found = f"a plan with the runs {', '.join(below)}: name one of them" if below else "no config.yaml: check the path"
        raise UserError(f"Expected a run folder at '{folder}', found {found}.")
    return folder


def read_json(path: Path, needed: Sequence[str] = ()) -> Any:
    """Return what a json file of a run folder holds: a mapping with the keys needed, where they are named."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if needed and not (isinstance(content, dict) and {*needed} <= {*content}):
            raise ValueError(f"not all of {', '.join(needed)}")
        return content
    except FileNotFoundError:
        raise UserError(f"Expected a run's '{path.name}' in '{path.parent}', found none. Is it a run folder?") from None
    except ValueError as problem:
        mend = "Remove the file: the command that trained the run writes it again."
        raise UserError(f"Expected a run's json in '{path}', found: {problem}. {mend}") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and json facts as one safetensors file, whole or not at all."""
    values = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with written_aside(path) as aside:
        try:
            save_file(values, aside, metadata={"facts": json.dumps(facts)})
        except SafetensorError as problem:  # it wraps what the disk said
            _raise_as_disk_error(problem)


def _raise_as_disk_error(problem: SafetensorError) -> None:
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if f"os error {code}" in str(problem) or f"code: {code}," in str(problem):
            raise OSError(code, os.strerror(code)) from None
    raise problem


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of a file that `save_tensors` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, json.loads((file.metadata() or {}).get("facts", "{}"))
    except FileNotFoundError:
        raise UserError(f"Expected a checkpoint at '{path}', found none. Train the run first.") from None
    except (SafetensorError, ValueError) as problem:
        raise UserError(
            f"Expected a checkpoint in '{path}', found a damaged file ({problem}). "
            "Remove it: the command that trained the run makes it again."
        ) from None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's state as flat tensors: `optimizer.<parameter>.<name>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{name}": torch.as_tensor(value) for index, row in state.items() for name, value in row.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer back what `optimizer_tensors` took from it."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def made(folder: Path) -> Iterator[None]:
    """Make a folder; where it stays empty it is taken away again, with the parents that were made for it."""
    with plain_disk_errors(folder):
        missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        with plain_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in missing:
            with suppress(OSError):  # it was never made, or is no longer empty
                place.rmdir()


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
