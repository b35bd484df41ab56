"""The jobs of a cluster: one run of a plan, and the command that writes its tables."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core import process as children
from ...core.errors import UserError
from ...core.run_folder import FolderInUse, RunFolder
from ...core.trust import CHECKPOINTS
from ...plugins.code import digest_of, use, used
from ...runs.runtime import Runtime
from ..execute import Part, run_here, typed_checkpoints

SECONDS_TO_A_FREE_FOLDER = 180.0  # after a restart: the lock of a node that failed goes with its lease


@dataclass(frozen=True)
class RunJob:
    """One run of a plan, as a job unpacks and runs it: what the command resolved is what it runs."""

    folder: Path  # of the plan
    name: str
    packed: bytes  # the part and where it computes; options of a user's own task need that code before they are unpacked
    code: Sequence[tuple[str, str]]  # typed code: path and hash
    checkpoints: Sequence[str]  # of s3prl's, which the user typed

    def __call__(self) -> None:
        """Run it to its end, from where it stands."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is lost: the run goes on from its checkpoint
        try:
            if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
                join_processes()
            self.run()
        except UserError as problem:
            print(f"error: {problem}", file=sys.stderr, flush=True)
            sys.exit(2)

    def checkpoint(self) -> Any:
        """Return what goes on after the time limit: the same again (submitit's word)."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def run(self) -> None:
        """Run it here."""
        for path, digest in self.code:
            if not Path(path).exists() or digest_of(Path(path)) != digest:
                raise UserError(
                    f"Expected the code in '{path}' as the command began with it ({digest[:8]}), found it edited or gone. "
                    "Bring the former back, or begin again with -n or -p."
                )
            use(path)
        for place in self.checkpoints:
            CHECKPOINTS.take(place)
        part, runtime = pickle.loads(self.packed)
        lacking = [start for start in part.needs.values() if not RunFolder(self.folder / start).is_finished]
        if lacking:
            raise UserError(f"Expected the run '{lacking[0]}', from which '{self.name}' starts, found that it is not finished.")
        deadline = time.monotonic() + SECONDS_TO_A_FREE_FOLDER * (int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0)
        while True:
            try:
                run_here(part, self.folder, runtime)
                return
            except FolderInUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)


@dataclass(frozen=True)
class TablesJob:
    """The last job of a plan: the user's command once more, which now finds the runs and writes tables and pictures."""

    words: Sequence[str]

    def __call__(self) -> None:
        """Run the command; its exit code is the job's."""
        done = subprocess.run(children.command("headwater", *self.words), env=children.environment(), check=False)
        if done.returncode:
            sys.exit(done.returncode)


def job_of(part: Part, folder: Path, runtime: Runtime) -> RunJob:
    """Return the job of a run."""
    code = [(str(typed.path), typed.digest) for typed in used()]
    return RunJob(folder.resolve(), part.name, pickle.dumps((part, runtime)), code, typed_checkpoints(part.config))


def join_processes() -> None:
    """Make this process one of the run's several, as torchrun does."""
    from submitit.helpers import TorchDistributedEnvironment

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False)
