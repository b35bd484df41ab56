"""The weights that an architecture starts from, in place of those that it was trained to."""

from __future__ import annotations

import torch
from torch import nn

from ..core.errors import UserError
from .base import Upstream
from .hub.family import families
from .hub.models import new_model

SEED = 1  # the test_* models are drawn from 0


def forget_training(upstream: Upstream, seed: int = SEED) -> None:
    """Leave weights in an upstream that were never trained, the same ones every time; refuse one that has none."""
    if not any(True for _ in upstream.parameters()):
        raise UserError(
            f"Expected an upstream with weights, found that '{upstream.name}' has no weights. Nothing in it is trained."
        )
    model = getattr(upstream, "model", None)
    if getattr(getattr(model, "config", None), "model_type", None) in families():
        assert isinstance(model, nn.Module), "a model with a config is a module"
        model.load_state_dict(new_model(model.config, seed).state_dict())
    else:
        _reset_modules(upstream, seed)
    upstream.name, upstream.untrained = f"{upstream.name} (random weights)", True


def _reset_modules(upstream: Upstream, seed: int) -> None:
    """Draw the weights of each module anew, as torch does where it makes one."""
    reset: set[int] = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in upstream.modules():
            if callable(again := getattr(module, "reset_parameters", None)):
                again()
                reset |= {id(weight) for weight in module.parameters(recurse=False)}
    left = [name for name, weight in upstream.named_parameters() if id(weight) not in reset]
    if left:
        raise UserError(
            f"Expected modules of '{upstream.name}' that can draw all their weights anew (reset_parameters), found none for "
            f"'{left[0]}'. Give its module a method reset_parameters()."
        )
