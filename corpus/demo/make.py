"""Miniatures of the corpora, spoken by espeak-ng, in the corpora's official layouts."""

from __future__ import annotations

import glob
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...core import process as children
from ...core.errors import UserError
from ...core.files import cache_folder
from ...core.locks import take
from ..base import Reader
from ..locate import MARKER

_VERSION = 2  # raise it when a demo's content changes: what lies in a cache is then made anew


def demo_root(reader: Reader, seed: int = 0, scale: float = 1.0) -> Path:
    """Return the folder of a corpus' miniature, made on the first call; the same seed gives the same files."""
    if reader.make_demo is None:
        raise UserError(f"Expected a corpus with a demo, found '{reader.name}'. See `headwater list corpora`.")
    if not 0.01 <= scale <= 100:
        raise UserError(f"Expected a demo scale between 0.01 and 100, found {scale:g}. Scale 1 is a few hundred utterances.")
    parent = cache_folder() / "demo"
    folder = parent / f"{reader.name}-seed{seed}-scale{scale:g}-v{_VERSION}"
    if (folder / MARKER).is_file():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _only_one(parent / f".{folder.name}.lock"):
            for left in parent.glob(f".{glob.escape(folder.name)}.*/"):  # of one that was killed: the lock is ours alone
                shutil.rmtree(left, ignore_errors=True)
            if not (folder / MARKER).is_file():
                _make_aside(reader.name, folder, seed, scale)
    except OSError as error:
        found = error.strerror or error
        raise UserError(
            f"Expected to write the demo corpus into {parent}, found: {found}. Choose another folder: HEADWATER_CACHE=FOLDER"
        ) from error
    return folder


def _make_aside(name: str, folder: Path, seed: int, scale: float) -> None:
    print(f"speaking the demo corpus into {folder} (once)", file=sys.stderr)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        # a process of its own: espeak-ng remembers what it said before, and a fresh one always begins alike
        command = children.command("headwater.corpus.demo", name, str(aside), str(seed), str(scale))
        done = subprocess.run(command, env=children.environment(), stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise UserError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"{command} ended without a word.")
        aside.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # no marker in it: somebody took parts away
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait until no other process makes the same demo."""
    with lock.open("w") as file:
        take(file, wait=True)
        yield
