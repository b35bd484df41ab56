"""Linear heads that are solved: the same as scikit-learn's, a mixture no worse than its parts, and the layer that knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from headwater.training.exact.losses import Loss, Multinomial, Squares
from headwater.training.exact.minimize import minimize
from headwater.training.exact.mixture import CERTAIN, Heads, Problem
from headwater.training.exact.probe import Split, fit_one, solve_probe

ROWS, LAYERS, DIM, CLASSES = 240, 4, 12, 3


@pytest.fixture
def layers() -> Tensor:
    """Standardised layers (layer, row, dim) whose dimensions go together, as those of a model do."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(LAYERS, DIM, DIM, generator=generator) * torch.logspace(0, -2, DIM)
    values = torch.randn(LAYERS, ROWS, DIM, generator=generator) @ turn
    return (values - values.mean(dim=1, keepdim=True)) / values.std(dim=1, correction=0, keepdim=True)


def classes_of(layer: Tensor, seed: int = 1) -> Tensor:
    """Return classes that a layer tells, but not all."""
    generator = torch.Generator().manual_seed(seed)
    logits = layer @ torch.randn(layer.shape[1], CLASSES, generator=generator)
    return (logits + 2 * torch.randn(logits.shape, generator=generator)).argmax(dim=1)


def multinomial(targets: Tensor, weights: Tensor | None = None) -> Multinomial:
    """Return the loss of classes."""
    weights = torch.ones(len(targets)) if weights is None else weights
    return Multinomial(targets, weights.double() / weights.double().sum(), CLASSES)


def split(layers: Tensor, loss: Loss, parts: Tensor | None = None) -> Split:
    """Return a split in two parts of memory."""
    return Split({"audio": list(layers.split(100, dim=1))}, loss, parts)


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_classes_equal_scikit_learn(layers: Tensor, penalty: float) -> None:
    targets = classes_of(layers[1])
    weights = 1 + (torch.arange(ROWS) % 3).double()
    problem = Problem.of({"audio": [layers[1:2].double()]}, multinomial(targets, weights), torch.float64)
    found = problem.solve([penalty, 10 * penalty], [0.0, 0.0], tolerance=1e-10)
    theirs = LogisticRegression(C=1 / (penalty * float(weights.sum())), tol=1e-10, max_iter=10_000)
    theirs.fit(layers[1].double().numpy(), targets.numpy(), sample_weight=weights.numpy())
    ours = found.take([0]).outputs({"audio": [layers[1:2].double()]})[0].softmax(dim=1).numpy()
    assert np.abs(ours - theirs.predict_proba(layers[1].double().numpy())).max() < 1e-6


def test_ratings_equal_ridge_regression_after_one_step(layers: Tensor) -> None:
    targets = layers[2, :, :2].double() + 3
    loss = Squares(targets, torch.full((ROWS,), 1 / ROWS, dtype=torch.float64))
    found = Problem.of({"audio": [layers[2:3].double()]}, loss, torch.float64).solve([0.1], [0.0], tolerance=1e-10)
    theirs = Ridge(alpha=0.1 * ROWS).fit(layers[2].double().numpy(), targets.numpy())
    ours = found.outputs({"audio": [layers[2:3].double()]})[0].numpy()
    assert np.abs(ours - theirs.predict(layers[2].double().numpy())).max() < 1e-6
    assert found.steps <= 4


def test_the_gradient_is_that_of_the_value(layers: Tensor) -> None:
    from headwater.training.exact.mixture import _Search

    blocks = {"audio": [layers[:3].double()], "text": [layers[3:].double()]}
    problem = Problem.of(blocks, multinomial(classes_of(layers[0])), torch.float64)
    search = _Search(problem, torch.tensor([0.1]).double(), torch.tensor([0.3]).double())
    start = 0.3 * torch.randn(search.start(None).shape, generator=torch.Generator().manual_seed(2)).double()
    start.requires_grad_()
    value, gradient = search.objective(start, torch.arange(1))
    (automatic,) = torch.autograd.grad(value.sum(), start)
    assert torch.allclose(gradient, automatic, atol=1e-10)


def test_the_mixture_is_never_worse_than_each_layer_and_the_even_one(layers: Tensor) -> None:
    for seed in range(3):
        targets = classes_of(layers[1] + 0.5 * layers[2], seed)
        train = split(layers, multinomial(targets))
        penalty, evenness = 0.01, 0.01
        found = solve_probe(train, None, penalty=penalty, evenness=evenness, keep="mixture")
        problem = Problem.of(train.blocks, train.loss, torch.float64)
        reached = float(problem.values_of(found.mixture.heads, [penalty], [evenness])[0])
        corners = [torch.zeros(1, LAYERS).index_fill(1, torch.tensor([layer]), CERTAIN) for layer in range(LAYERS)]
        alone = [fit_one(train.only("audio", layer), None, penalty).heads for layer in range(LAYERS)]
        even = fit_one(train.even(), None, penalty).heads
        starts = [*zip(alone, corners, strict=True), (even, torch.zeros(1, LAYERS))]
        for heads, logits in starts:
            there = Heads(heads.weights, heads.bias, {"audio": logits}, heads.values)
            assert reached <= float(problem.values_of(there, [penalty], [evenness])[0]) + 1e-9


def test_settings_are_chosen_on_what_is_held_out_and_twice_the_same(layers: Tensor) -> None:
    targets = classes_of(layers[1])
    train = split(layers[:, :180], multinomial(targets[:180]), torch.arange(180) % 4)
    dev = split(layers[:, 180:], multinomial(targets[180:]))
    first, second = solve_probe(train, dev), solve_probe(train, dev)
    assert first.mixture.penalty == min(first.mixture.tried, key=first.mixture.tried.__getitem__)[0]
    assert torch.equal(first.kept.heads.weights["audio"], second.kept.heads.weights["audio"])
    losses = [one.loss for one in first.alone["audio"]]
    assert losses.index(min(losses)) == 1
    assert first.layer == (1 if min(losses) < first.mixture.loss else None)


def test_noise_is_answered_by_a_large_penalty(layers: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(CLASSES, (ROWS,), generator=generator)
    train, dev = split(layers[:, :120], multinomial(targets[:120])), split(layers[:, 120:], multinomial(targets[120:]))
    found = solve_probe(train, dev)
    assert found.mixture.loss == pytest.approx(np.log(CLASSES), abs=0.05)


def test_many_problems_end_where_each_would_alone() -> None:
    centres = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [0.0, 0.0]]).double()
    bend = torch.tensor([[1.0, 100.0]]).double()

    def bowl(place: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return value and gradient of some bowls."""
        apart = place - centres[index]
        return 0.5 * (bend * apart**2).sum(dim=1), bend * apart

    found = minimize(bowl, torch.zeros(3, 2).double(), tolerance=1e-10)
    assert torch.allclose(found.parameters, centres, atol=1e-9)


def test_the_mixture_leans_to_what_dev_wants_where_classes_are_nearly_certain() -> None:
    """Values and gradients are small then: a search that ends by the size of its gradient would not begin."""
    generator = torch.Generator().manual_seed(3)
    layers = torch.randn(LAYERS, 240, 80, generator=generator)
    layers[2] = layers[1] + 0.1 * layers[2]
    targets = (layers[1] @ torch.randn(80, CLASSES, generator=generator)).argmax(dim=1)
    train = split(layers[:, :180], multinomial(targets[:180]), torch.arange(180) % 4)
    dev = split(layers[:, 180:], multinomial(targets[180:]))
    found = solve_probe(train, dev)
    tried = {evenness: loss for (_, evenness), loss in found.mixture.tried.items()}
    assert len({*tried.values()}) == len(tried) >= 4
    best = min(found.alone["audio"], key=lambda one: one.loss)
    assert (best.penalty, 1.0) in found.mixture.tried  # the search begins at the even mixture's penalty and at this one
    mixture = found.mixture.heads.mixtures("audio")[0]
    assert float(mixture[1] + mixture[2]) > 0.9
    assert found.mixture.loss < 1.02 * min(one.loss for one in found.alone["audio"])
