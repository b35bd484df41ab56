"""Random weights in place of trained ones: the same architecture, the same weights every time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headwater.core.errors import UserError
from headwater.upstream.base import Layers, Upstream, UpstreamSpec
from headwater.upstream.load import load_upstream
from headwater.upstream.random_weights import forget_training


@pytest.mark.parametrize("name", ["test_hubert", "test_whisper", "test_bert"])
def test_random_weights_are_others_and_the_same_every_time(name: str) -> None:
    trained, first, second = load_upstream(name), load_upstream(name), load_upstream(name)
    before = torch.get_rng_state()
    forget_training(first)
    forget_training(second)
    assert torch.equal(before, torch.get_rng_state())
    assert first.weights_hash() == second.weights_hash() != trained.weights_hash()
    assert first.untrained
    assert first.name == f"{name} (random weights)"
    assert {*first.state_dict()} == {*trained.state_dict()}


def test_whisper_keeps_its_table_of_positions() -> None:
    trained, random = load_upstream("test_whisper"), load_upstream("test_whisper")
    forget_training(random)
    assert torch.equal(trained.model.embed_positions.weight, random.model.embed_positions.weight)


class Own(Upstream):
    """An upstream of a user's own, with a weight that no module draws where it is asked to."""

    name = "own"

    def __init__(self, *, bare: bool) -> None:
        super().__init__()
        self.spec = UpstreamSpec("audio", 1, 4, 16_000, lambda samples: samples)
        self.layer = nn.Linear(4, 4)
        if bare:
            self.scale = nn.Parameter(torch.ones(4))

    def forward(self, *_: object, **__: object) -> Layers:  # type: ignore[override]
        """Give nothing."""
        return Layers([], ())


def test_modules_of_ones_own_are_drawn_anew() -> None:
    upstream = Own(bare=False)
    before = upstream.layer.weight.clone()
    forget_training(upstream)
    assert not torch.equal(before, upstream.layer.weight)


def test_what_cannot_be_random_is_refused() -> None:
    with pytest.raises(UserError, match=r"Expected an upstream with weights, found that 'fbank' has no weights\."):
        forget_training(load_upstream("fbank"))
    with pytest.raises(UserError, match=r"draw all their weights anew \(reset_parameters\), found none for 'scale'"):
        forget_training(Own(bare=True))
