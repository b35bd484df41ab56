"""What every test stands on: one thread, no network, a cache of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that no other run shares, for this process and those it starts."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["HEADWATER_CACHE"] = str(folder)
    os.environ["OMP_NUM_THREADS"] = "1"
    return folder
