"""Processes: which one of a launch prints; those that this one starts find the same code, and end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

LIFELINE = "HEADWATER_LIFELINE"  # set for a process whose stdin is its parent's lifeline
PLAN = "HEADWATER_PLAN"  # set for a process that runs a part of a plan: the plan's folder
SECONDS_TO_CLEAR_UP = 3.0  # for a process whose parent has gone


def commit() -> str | None:
    """Return the commit of the clone that this code runs from; None for an installed package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        finished = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except OSError:  # no git on this machine
        return None
    return finished.stdout.strip() or None


def command(module: str, *words: str) -> list[str]:
    """Return what starts a module in a process of its own."""
    return [sys.executable, "-m", module, *words]


def environment(**over: str) -> dict[str, str]:
    """Return its environment: our paths, and not the working directory, where a `yaml.py` of the user's would be imported."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **over}


@dataclass(frozen=True)
class Lifeline:
    """A pipe that ties processes to this one: they have its reading end as stdin, and end once nobody can write to it."""

    reading: int
    writing: int  # no other process has it: with this one, even killed, it is gone

    def cut(self) -> None:
        """End the processes now."""
        with suppress(OSError):  # it was cut before
            os.close(self.writing)


@contextmanager
def lifeline() -> Iterator[Lifeline]:
    """Give the stdin of processes that are to end with this one, however it ends."""
    line = Lifeline(*os.pipe())
    try:
        yield line
    finally:
        line.cut()
        os.close(line.reading)


def end_with_parent() -> None:
    """Have this process end soon after the one that started it, where that one wants it so."""
    if os.environ.pop(LIFELINE, None):  # what this process starts has another stdin
        Thread(target=_end_when_cut, daemon=True).start()


def _end_when_cut() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C: what was begun aside is cleared up
    time.sleep(SECONDS_TO_CLEAR_UP)
    os._exit(1)


def in_launch() -> bool:
    """Return whether a launcher (torchrun, accelerate) started this process, perhaps beside others."""
    return "RANK" in os.environ


def is_main() -> bool:
    """Return whether this process prints and writes: the first one of a launch, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def is_main_of_machine() -> bool:
    """Return whether this process is the first one of a launch on this machine, or the only one."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0
