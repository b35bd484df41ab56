"""The user's own code in an exported folder, and whether it runs there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...core import process as children
from ...core.errors import UserError
from ...core.files import plain_disk_errors
from ...core.run_folder import RunFolder
from ...downstream.base import TASKS
from ...plugins.code import UserCode, digest_of, find, one_line_error, use
from ...plugins.registry import SECTIONS
from ..load import load_run
from ..trained_run import TrainedRun
from ..waveforms import SAMPLE_RATE

CODE_FOLDER = "code"  # the folder for what a run has of its user's own code


def typed_code(names: Mapping[str, str]) -> dict[str, UserCode]:
    """Return what was typed of a run's names, by what it is there (task, audio, text)."""
    found = {role: find("upstream" if role in SECTIONS else "task", name) for role, name in names.items()}
    return {role: code for role, code in found.items() if code is not None}


def copy_user_code(folder: Path, own: Mapping[str, UserCode], extra: Sequence[str | Path]) -> None:
    """Copy the user's own code of a run, each role's to a folder of its own, and the extra files that it reads."""
    if extra and not own:
        raise UserError("Expected a run with code of your own for --with, found none of it in the run. Leave --with out.")
    for role, code in own.items():
        copied(code.path, folder / CODE_FOLDER / role / code.path.name)
    for path in (Path(os.path.abspath(Path(name).expanduser())) for name in extra):
        if not path.exists():
            raise UserError(f"Expected a file or folder after --with, found nothing at '{path}'. Check the path.")
        near = {role: path.relative_to(code.path.parent) for role, code in own.items() if code.path.parent in path.parents}
        for role, place in (near or dict.fromkeys(own, Path(path.name))).items():
            copied(path, folder / CODE_FOLDER / role / place)


def copied(path: Path, place: Path) -> None:
    """Copy a file, or a folder without what is hidden or compiled."""
    if place.exists():
        raise UserError(f"Expected files of different names after --with, found '{place.name}' twice. Rename one of them.")
    with plain_disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(path, place)


def needed_package(names: Mapping[str, str]) -> list[str]:
    """Return the package that a run's task comes from."""
    origin = TASKS.origin(names["task"])
    return [f"the package {origin.place}"] if origin is not None and origin.kind == "installed" else []


def user_code_files(folder: Path) -> list[str]:
    """Return what an exported folder holds of its user's own code, as it is to be typed there."""
    digests = RunFolder(folder).read().identity().get("code", {})
    there = [path for role in sorted(digests) for path in sorted((folder / CODE_FOLDER / role).glob("*"))]
    return [str(path.relative_to(folder)) for path in there if digest_of(path) == digests[path.parent.name]]


def try_out(folder: Path) -> list[str]:
    """Ask an exported folder once in a process of its own; return the files elsewhere that its own code read.

    A folder whose own code does not run from it alone is refused.
    """
    code = user_code_files(folder)
    if not code:
        return []
    command = children.command("headwater.inference.export.code", str(folder), *code)
    done = subprocess.run(command, cwd=folder, env=children.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        line = (done.stderr.strip().splitlines() or ["nothing"])[-1].replace(f"{folder}/", "").rstrip(". ")
        raise UserError(
            f"Expected own code that runs from a folder of its own, found that it does not ({line}). Nothing is written: add "
            "--with FILE for each file that it reads, which then lies beside the code: Path(__file__).parent / 'NAME'."
        )
    return json.loads(done.stdout.splitlines()[-1])


def main(words: Sequence[str]) -> int:
    """Predict once with an exported folder and its own code; report in one line what stops it, else what it read elsewhere."""
    folder = Path(words[0])
    read: dict[str, None] = {}
    sys.addaudithook(partial(note_elsewhere, folder, read))
    try:
        for path in words[1:]:
            use(str(folder / path))
        run = load_run(folder)
        assert isinstance(run, TrainedRun), "an exported folder holds one run"
        sound = np.random.default_rng(0).normal(scale=0.1, size=SAMPLE_RATE)
        run.predict(sound, "words" if run.uses_text else None, sampling_rate=SAMPLE_RATE)
    except UserError as problem:
        print(" ".join(str(problem).split()), file=sys.stderr)
        return 1
    except Exception as problem:  # a user's code raises whatever it likes
        print(one_line_error(problem, folder), file=sys.stderr)
        return 1
    print(json.dumps([*read]))
    return 0


def note_elsewhere(folder: Path, read: dict[str, None], event: str, arguments: tuple[Any, ...]) -> None:
    """Note a file outside a folder that code inside it opens, but for code and what is installed."""
    if event != "open" or not isinstance(arguments[0], str) or arguments[1] not in (None, "r", "rb"):
        return
    path, frame = Path(os.path.realpath(arguments[0])), sys._getframe(1)
    installed = [folder, *map(Path, (sys.prefix, sys.base_prefix, "/proc", "/sys"))]
    if path.suffix in {".py", ".pyc", ".so"} or not path.is_file() or any(place in path.parents for place in installed):
        return
    while frame is not None and folder / CODE_FOLDER not in Path(frame.f_code.co_filename).parents:
        frame = frame.f_back  # type: ignore[assignment]
    if frame is not None:
        read[f"{path.name}, which {Path(frame.f_code.co_filename).name} reads elsewhere"] = None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
