"""Commands as a user types them, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Typed:
    """What came back of a command."""

    code: int
    stdout: str
    stderr: str


def type_command(words: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Typed:
    """Run `headwater WORDS` in a folder, and return what came back."""
    command = [sys.executable, "-m", "headwater", *words]
    own = {**os.environ, **(environment or {})}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=600, check=False)
    return Typed(done.returncode, done.stdout, done.stderr)
