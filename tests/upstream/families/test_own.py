"""The model that comes with Headwater: its size, its card, and that it is no random one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from headwater.upstream.base import Upstream
from headwater.upstream.families.own import WEIGHTS
from headwater.upstream.load import load_upstream

FOLDER = WEIGHTS / "hubert_mini"


@pytest.fixture(scope="module")
def mini() -> Upstream:
    """The model."""
    return load_upstream("hubert_mini")


def test_it_is_as_small_as_its_card_says(mini: Upstream) -> None:
    weights = sum(weight.numel() for weight in mini.parameters())
    assert weights <= 4_000_000
    assert (FOLDER / "model.safetensors").stat().st_size <= 8_000_000
    card = (Path(__file__).parents[3] / "docs" / "hubert_mini.md").read_text(encoding="utf-8")
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() in card
    assert f"{weights:,}" in card


def test_its_frames_do_not_depend_on_its_batch(mini: Upstream) -> None:
    generator = torch.Generator().manual_seed(0)
    waves = [torch.randn(size, generator=generator) * 0.1 for size in (8_000, 24_000)]
    alone, together = mini(waves[:1]), mini(waves)
    assert together.lengths[0] == alone.lengths[0] == mini.spec.num_frames(8_000)
    for one, other in zip(alone.values, together.values, strict=True):
        assert torch.allclose(one[0], other[0, : alone.lengths[0]], atol=1e-5)


def test_it_is_marked_as_trained_and_comes_from_nowhere_else(mini: Upstream) -> None:
    assert (mini.untrained, mini.source) == (False, "built in")
    assert mini.spec.num_layers == 5
    assert mini.spec.num_frames(16_000 * 10) in (498, 499)  # 20 ms
