"""A package hands on its public names, and imports a file of its own when one of them is used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import headwater.corpus

PACKAGES = ("", "corpus", "upstream", "downstream")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_of_a_face_is_there(package: str) -> None:
    module = importlib.import_module(f"headwater.{package}".rstrip("."))
    assert len(module.__all__) > 6
    assert all(getattr(module, name) is not None for name in module.__all__)  # one that is gone is an AttributeError


@pytest.mark.parametrize("package", PACKAGES)
def test_a_type_checker_sees_the_names_that_are_handed_on(package: str) -> None:
    module = importlib.import_module(f"headwater.{package}".rstrip("."))
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name for block in blocks for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert imported == {*module.__all__}


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(AttributeError, match=r"headwater\.corpus has no name 'Speaker'\. It has: Batch, Corpus"):
        _ = headwater.corpus.Speaker


def test_a_face_alone_imports_nothing_heavy() -> None:
    code = "import sys, headwater.corpus, headwater.upstream, headwater.downstream; print('torch' in sys.modules)"
    report = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert report.stdout.strip() == "False"
