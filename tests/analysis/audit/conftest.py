"""A finished run with a solved head, for audits."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime


@pytest.fixture(scope="session")
def solved(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare command over the tones; tests copy it before they write."""
    folder = tmp_path_factory.mktemp("audit") / "run"
    mapping = {"task": "emotion", "upstream": {"name": "test_hubert"}, "corpus": {"data": str(tones)}}
    run(resolve([task_default("emotion"), mapping]), folder, Runtime("cpu", quiet=True))
    return folder
