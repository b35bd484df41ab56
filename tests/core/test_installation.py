"""The command that installs an extra works where it is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from headwater.core import installation
from headwater.core.installation import CLONE, install_command


def test_in_a_clone_the_extra_is_installed_from_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(CLONE)
    assert install_command("onnx") == "pip install -e '.[onnx]'"
    monkeypatch.chdir(tmp_path)  # where a dot would name the wrong folder
    assert shlex.split(install_command("onnx")) == ["pip", "install", "-e", f"{CLONE}[onnx]"]


def test_a_clone_in_a_folder_with_a_space_is_named_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my code").mkdir()
    (tmp_path / "my code" / "pyproject.toml").touch()
    monkeypatch.setattr(installation, "CLONE", tmp_path / "my code")
    assert shlex.split(install_command("onnx")) == ["pip", "install", "-e", f"{tmp_path / 'my code'}[onnx]"]


ELSEWHERE = {"sentencepiece", "torchaudio", "wheel"}  # what advice may name that constraints.txt does not list
NAMED = re.compile(r"pip install ((?:-\S+ |\S+\.txt )*)([^\s`\"]+)")  # the flags, and the first thing that is installed


def library() -> list[Path]:
    """Return the library's files."""
    inside = (path.relative_to(CLONE) for path in CLONE.rglob("*.py"))
    rooms = {"tests", "benchmarks", "docs", "build", "dist", "setup.py"}
    return sorted(path for path in inside if path.parts[0] not in rooms and path.parts[0][0] != ".")


def test_every_line_that_says_pip_install_names_what_there_is() -> None:
    listed = {line.partition("==")[0].lower() for line in (CLONE / "constraints.txt").read_text().splitlines() if "==" in line}
    setup, lines = (CLONE / "setup.py").read_text(), list[str]()
    for path in library():
        for flags, name in NAMED.findall((CLONE / path).read_text(encoding="utf-8")):
            lines.append(f"{path}: {flags}{name}")
            extra = re.search(r"\[([\w,-]+)\]", name)
            if extra is not None:
                assert all(f'"{each}": [' in setup for each in extra[1].split(",")), lines[-1]
            elif "{" not in name:  # a name that is filled in where the line is printed: the tests of these lines read it
                assert name.strip("'.,)}").lower() in {*listed, *ELSEWHERE, ""}, lines[-1]
    assert len(lines) > 8, lines


def test_every_extra_that_the_library_names_is_one() -> None:
    call = re.compile(r"install_command\(['\"]([\w-]+)['\"]\)")
    found = {name for path in library() for name in call.findall((CLONE / path).read_text(encoding="utf-8"))}
    assert found >= {"demo", "mtl", "onnx", "peft", "decode"}
    setup = (CLONE / "setup.py").read_text()
    assert not {name for name in found if f'"{name}": [' not in setup}
