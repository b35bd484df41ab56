"""What the tests of upstreams share."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from headwater.upstream.load import list_upstreams


@pytest.fixture
def speechlike() -> Callable[..., list[Tensor]]:
    """Return waveforms of the lengths asked for: noise whose level and offset differ from one to the next."""

    def make(*lengths: int, seed: int = 1) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        noises = [torch.randn(length, generator=generator) for length in lengths]
        return [noise * 0.1 * (index + 1) + 0.01 * index for index, noise in enumerate(noises)]

    return make


@pytest.fixture
def material(speechlike: Callable[..., list[Tensor]]) -> Callable[[str], list[Tensor] | list[str]]:
    """Return two utterances as an upstream takes them: texts where it reads, waveforms where it listens."""
    modality = {row.name: row.modality for row in list_upstreams()}
    texts = ["why did you ask me that? I told you all of it before", "I do not think so, no"]
    return lambda name: texts if modality[name] == "text" else speechlike(6000, 5000)


@pytest.fixture
def difference() -> Callable[[Tensor, Tensor], float]:
    """Return the norm of a difference over the norm of what was expected."""

    def relative(found: Tensor, expected: Tensor) -> float:
        assert found.shape == expected.shape, f"{tuple(found.shape)} beside {tuple(expected.shape)}"
        return float((found - expected).norm() / expected.norm().clamp(min=1e-9))

    return relative


@pytest.fixture(scope="session")
def s3prl() -> ModuleType:
    """The package s3prl; without it the test is skipped, or fails where HEADWATER_REQUIRE_S3PRL is set."""
    if os.environ.get("HEADWATER_REQUIRE_S3PRL") == "1":
        import s3prl as package

        return package
    return pytest.importorskip("s3prl")
