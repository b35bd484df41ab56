"""Processes of their own for tests, forked from one that has loaded the libraries: a start takes no seconds.

What is about the start itself (what is imported, torchrun, variables that a library reads as it is loaded) takes `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pictures

_LOADED = [
    "headwater.runs.joint",
    "headwater.plans.grid",
    "headwater.inference.load",
    "headwater.upstream.hub.models",
    "torch.utils.tensorboard",
    "transformers.models.bert.modeling_bert",
    "transformers.models.hubert.modeling_hubert",
]


class Started:
    """One process, or several that compute together, with what they wrote to stderr."""

    def __init__(self, words: Sequence[str | Path], processes: int, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LOADED)
        handle, name = tempfile.mkstemp(prefix="headwater-said-")
        os.close(handle)
        self.output, self.members, port = Path(name), list[ForkServerProcess](), str(free_port())
        for rank in range(processes):
            own = {**os.environ, **environment}
            if processes > 1:  # as torchrun sets them
                own |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                own |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
            member = context.Process(target=become, args=([*map(str, words)], own, os.getcwd(), str(self.output)))
            member.start()
            self.members.append(member)
        self.pid = self.members[0].pid

    def poll(self) -> int | None:
        """Return the exit status, the first that is no good one; None: it is still at work."""
        found = [member.exitcode for member in self.members]
        bad = next((code for code in found if code), None)
        return bad if bad is not None or None in found else 0

    def wait(self, seconds: float = 240) -> int:
        """Wait for the end; when one of several fails, the others are ended."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            assert time.monotonic() < deadline, f"still at work after {seconds} s: {self.message()}"
            time.sleep(0.002)
        for member in self.members:
            if member.is_alive():
                member.kill()
            member.join()
        code = self.poll()
        assert code is not None, "it has ended"
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the first process."""
        assert self.pid is not None, "it was started"
        os.kill(self.pid, number)

    def message(self) -> str:
        """Return what was written to stderr so far."""
        return self.output.read_text(errors="replace")

    def finish(self) -> str:
        """Wait for the end, which must be a good one; return what was written to stderr."""
        assert self.wait() == 0, self.message()[-3000:]
        message = self.message()
        self.output.unlink()
        return message


def start(*words: str | Path, processes: int = 1, **environment: str) -> Started:
    """Start what `python WORDS` would run (`-m MODULE …` or `SCRIPT …`), in one process or in several as torchrun does."""
    return Started(words, processes, environment)


def become(words: list[str], environment: dict[str, str], folder: str, output: str) -> None:
    """Run a module or a script in this process, its stderr in a file and its stdout nowhere."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, place in ((1, os.devnull), (2, output)):
        handle = os.open(place, os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pictures.draw(False)
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])
