"""What an exported folder holds of its user's own code, and whether that answers there."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...core import process as children
from ...core.errors import UserError
from ...core.files import plain_disk_errors, read_json
from ...downstream.base import TASKS
from ...plugins.code import OwnCode, digest_of, find, told_in_one_line, use
from ...plugins.registry import SECTIONS
from ..load import load_run
from ..trained_run import TrainedRun
from ..waveforms import SAMPLE_RATE

OWN = "code"  # the folder for what a run has of its user's own code
_LONGEST = 200  # characters of a string that may be a path
_JOINS = ("join", "joinpath", "with_name")


def typed_code(names: Mapping[str, str]) -> dict[str, OwnCode]:
    """Return what was typed of a run's names, by what it is there (task, audio, text)."""
    found = {role: find("upstream" if role in SECTIONS else "task", name) for role, name in names.items()}
    return {role: code for role, code in found.items() if code is not None}


def copy_own(folder: Path, names: Mapping[str, str]) -> None:
    """Copy the user's own code of a run, each role's to a folder of its own; it is executed only where its path is typed."""
    for role, code in typed_code(names).items():
        place = folder / OWN / role
        with plain_disk_errors(place):
            place.mkdir(parents=True)
            for path in [code.path, *beside(code.path)]:
                copied(path, place / path.relative_to(code.path.parent))


def copied(path: Path, place: Path) -> None:
    """Copy a file, or a folder without what is hidden or compiled."""
    if path.is_dir():
        shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__", ".*"), dirs_exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)


def beside(code: Path) -> list[Path]:
    """Return what lies beside a file of code and is named in it: files, and folders that a path is joined with."""
    if code.is_dir():
        return []  # it is copied whole
    words, joined = strings_of(code)
    parent = code.parent.resolve()
    found = {word: (parent / word.lstrip("/")).resolve() for word in words}
    near = {word: path for word, path in found.items() if parent in path.parents and path != code}
    return sorted({path for word, path in near.items() if path.is_file() or (word in joined and path.is_dir())})


def strings_of(file: Path) -> tuple[set[str], set[str]]:
    """Return the strings of a Python file that may be paths, and those among them that a path is joined with."""
    nodes = [*ast.walk(ast.parse(file.read_bytes()))]
    parts = [node.right for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    parts += [part for call in calls if call.func.attr in _JOINS for part in call.args]  # type: ignore[attr-defined]

    def words(among: Sequence[ast.AST]) -> set[str]:
        """Return the short strings among nodes."""
        texts = [node.value for node in among if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        return {text for text in texts if text.isprintable() and 0 < len(text) < _LONGEST}

    return words(nodes), words(parts)


def needed(names: Mapping[str, str]) -> list[str]:
    """Return what a run needs beside its folder: the package of its task, and files that its own code names by a whole path."""
    origin = TASKS.origin(names["task"])
    found = [f"the package {origin.place}"] if origin is not None and origin.kind == "installed" else []
    for code in typed_code(names).values():
        files = sorted(code.path.rglob("*.py")) if code.path.is_dir() else [code.path]
        for file in files:
            paths = [Path(word).expanduser() for word in sorted(strings_of(file)[0]) if word.startswith(("/", "~/"))]
            found += [f"{path.name}, which {file.name} reads elsewhere" for path in paths if path.is_file()]
    return found


def own_files(folder: Path) -> list[str]:
    """Return what an exported folder holds of its user's own code, as it is to be typed there."""
    digests = read_json(folder / "identity.json").get("code", {})
    there = [path for role in sorted(digests) for path in sorted((folder / OWN / role).glob("*"))]
    return [str(path.relative_to(folder)) for path in there if digest_of(path) == digests[path.parent.name]]


def refuse_silent(folder: Path) -> None:
    """Refuse a folder whose own code does not answer from it alone: a process of its own asks it once."""
    code = own_files(folder)
    if not code:
        return
    command = children.command("headwater.inference.export.code", str(folder), *code)
    done = subprocess.run(command, cwd=folder, env=children.environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1].replace(f"{folder}/", "").rstrip(". ")
        raise UserError(
            f"Expected own code that answers from a folder of its own, found that it does not ({said}). Nothing is written: what "
            "it reads goes along where it lies beside the code and is named in it, Path(__file__).parent / 'NAME'."
        )


def main(words: Sequence[str]) -> int:
    """Ask an exported folder once, with its own code; what stops it is told in one line."""
    folder = Path(words[0])
    try:
        for path in words[1:]:
            use(str(folder / path))
        run = load_run(folder)
        assert isinstance(run, TrainedRun), "an exported folder holds one run"
        run.predict(np.zeros(SAMPLE_RATE, dtype=np.float32), "words" if run.reads else None)
    except UserError as problem:
        print(" ".join(str(problem).split()), file=sys.stderr)
        return 1
    except Exception as problem:  # a user's code raises whatever it likes
        print(told_in_one_line(problem, folder), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
