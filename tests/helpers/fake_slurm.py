"""A cluster without Slurm: `sbatch` and the others on PATH take notes, and a test runs the jobs when it wants."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from processes import start

SCRIPTS = {  # a test writes `refusal`, `queue` and `accounts`; the scripts write the rest
    "sbatch": """[ -f "$state/refusal" ] && { cat "$state/refusal" >&2; exit 1; }
number=$(( $(cat "$state/last" 2> /dev/null || echo 10) + 1 )); echo $number > "$state/last"
cp "$1" "$state/$number.sh"; echo "Submitted batch job $number" """,
    "srun": "exit 0",
    "squeue": """[ -f "$state/down" ] && { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
cat "$state/queue" 2> /dev/null || true""",
    "scancel": 'echo "$1" >> "$state/cancelled"',
    "sacct": """[ -f "$state/accounts" ] || { echo "Slurm accounting storage is disabled" >&2; exit 1; }
cat "$state/accounts" """,
}


@dataclass(frozen=True)
class FakeSlurm:
    """What was submitted, and what the queue says."""

    state: Path

    @classmethod
    def make(cls, folder: Path) -> FakeSlurm:
        """Return a cluster whose programs lie in `bin` of a folder."""
        programs = folder / "bin"
        programs.mkdir(parents=True)
        for name, script in SCRIPTS.items():
            (programs / name).write_text(f"#!/bin/sh\nstate='{folder}'\n{script}\n")
            (programs / name).chmod(0o755)
        return cls(folder)

    @property
    def path(self) -> str:
        """PATH with the programs first."""
        return f"{self.state / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def write(self, name: str, text: str) -> None:
        """Write what a program prints."""
        (self.state / name).write_text(text)

    def submissions(self) -> dict[str, str]:
        """Return the text of each submission by its id, in order."""
        return {path.stem: path.read_text() for path in sorted(self.state.glob("*.sh"))}

    def option(self, job: str, name: str) -> str:
        """Return an option of a submission; one that it has not is empty."""
        found = re.search(rf"^#SBATCH --{name}(?:=(.*))?$", self.submissions()[job], re.MULTILINE)
        return "" if found is None else (found[1] or "yes").strip("'")

    def elements(self, job: str) -> list[str]:
        """Return the ids of an array's jobs."""
        last = re.match(r"0-(\d+)", self.option(job, "array"))
        return [f"{job}_{index}" for index in range(int(last[1]) + 1)] if last else [job]

    def run(self, element: str) -> int:
        """Run a job as Slurm would, its output in its log; return its exit code."""
        job, _, index = element.partition("_")
        log = Path(self.option(job, "output").replace("%A", job).replace("%a", index).replace("%j", job))
        array = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": index} if index else {}
        environment = {"SLURM_JOB_ID": job, "SUBMITIT_EXECUTOR": "slurm", **array}
        process = start("-m", "submitit.core._submit", log.parent, PATH=self.path, **environment)
        code = process.wait()
        log.write_text(process.message())
        process.output.unlink()
        return code

    def run_all(self) -> dict[str, int]:
        """Run everything that was submitted, in order; return the exit codes by job."""
        return {element: self.run(element) for job in self.submissions() for element in self.elements(job)}
