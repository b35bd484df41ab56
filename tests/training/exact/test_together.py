"""A head on all layers at once: its objective is the least, and layers that add nothing are let go of."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from headwater.training.exact.losses import Loss, Multinomial, Squares, loss_of
from headwater.training.exact.mixture import Heads, Problem
from headwater.training.exact.probe import Split, solve_probe
from headwater.training.exact.together import alternate, apart, fit_together, shares_of

ROWS, LAYERS, DIM, CLASSES, PENALTY = 200, 4, 10, 3, 0.05


@pytest.fixture
def layers() -> Tensor:
    """Layers (layer, row, dim) in float64."""
    return torch.randn(LAYERS, ROWS, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def losses(layers: Tensor) -> dict[str, Loss]:
    """Return a loss of classes and one of ratings that layers 1 and 2 tell."""
    generator = torch.Generator().manual_seed(1)
    known = torch.cat([layers[1], layers[2]], dim=1) @ torch.randn(2 * DIM, CLASSES, generator=generator, dtype=torch.float64)
    weights = torch.full((ROWS,), 1 / ROWS, dtype=torch.float64)
    return {"classes": Multinomial(known.argmax(dim=1), weights, CLASSES), "ratings": Squares(known, weights)}


def objective(split: Split, heads: Heads) -> float:
    """Return the loss plus penalty / 2 times the squared sum of the layers' norms, from its definition."""
    outputs = heads.outputs(split.blocks)
    norms = torch.stack([values.flatten(1).norm(dim=1) for values in heads.weights.values()])
    return float(loss_of(split.loss, outputs)[0] + PENALTY / 2 * norms.sum() ** 2)


@pytest.mark.parametrize("kind", ["classes", "ratings"])
def test_its_objective_is_the_least_and_never_above_the_mixtures(layers: Tensor, kind: str) -> None:
    train = Split({"audio": list(layers.split(90, dim=1))}, losses(layers)[kind])
    whole = apart(train)
    heads = alternate(Problem.of(whole.blocks, whole.loss, torch.float64), [PENALTY], 1e-9, None, None, 300)
    least = objective(whole, heads)
    mixed = solve_probe(train, None, penalty=PENALTY, evenness=0.0, keep="mixture").mixture.heads
    shares = mixed.mixtures("audio")[0]
    tied = {f"audio/{layer}": shares[layer] * mixed.weights["audio"] for layer in range(LAYERS)}
    assert least < objective(whole, Heads(tied, mixed.bias, heads.logits, mixed.values))
    generator = torch.Generator().manual_seed(2)
    for scale in (1e-3, 1e-2, 1e-1):
        moved = {
            name: values + scale * torch.randn(values.shape, generator=generator, dtype=values.dtype)
            for name, values in heads.weights.items()
        }
        assert objective(whole, Heads(moved, heads.bias, heads.logits, heads.values)) > least
    found = shares_of(heads)
    assert float(found["audio/1"] + found["audio/2"]) > 0.9


def test_its_penalty_is_chosen_on_what_is_held_out(layers: Tensor) -> None:
    loss = losses(layers)["classes"]
    assert isinstance(loss, Multinomial)
    rows = torch.arange(ROWS)
    train, dev = (
        Split({"audio": [layers[:, part]]}, Multinomial(loss.targets[part], loss.weights[part] * ROWS / len(part), CLASSES))
        for part in (rows[:150], rows[150:])
    )
    found = fit_together(train, dev, None)
    assert found.fitted.loss == min(found.fitted.tried.values())
    assert len(found.fitted.tried) >= 5
    assert float(found.shares["audio"].sum()) == pytest.approx(1)
    assert {*found.shares["audio"].topk(2).indices.tolist()} == {1, 2}
    with_parts = Split(train.blocks, train.loss, torch.arange(150) % 4)
    assert fit_together(with_parts, dev, None).fitted.loss > 0
    assert fit_together(train, None, 0.1).fitted.penalty == 0.1
