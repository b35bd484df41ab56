"""A linear probe of layers: each layer alone, and their convex mixture; dev chooses how strongly weights are held back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .losses import Loss, loss_of
from .mixture import CERTAIN, Blocks, Heads, Problem, mixed

ROUGH = 1e-4  # share of its value by which a step lowers a setting that is tried (float32)
FINE = 1e-6  # largest entry of the gradient of what is kept (float64)
LEANING = 4.0  # logit above the others of a layer that a search starts from
MIXED = 1e-7  # share of its value by which a step lowers the mixture that is kept (float32)
FIRST, STEP, FINER = 1e-2, 10.0, 10.0**0.5  # where the path of penalties begins, how it goes on, and its last refinement
WEAKEST, LARGEST = 0.03, 1e3  # penalties: the smallest times the utterances (scikit-learn's C is one over that), the largest
WORTH = 0.99  # a path goes on while its loss falls below this share of the best
Setting = tuple[float, float]  # penalty, evenness
Corner = tuple[str, int]  # a role, and the layer that has all its weight
EVEN: Corner = ("", -1)  # no corner: the even mixture
EVENNESS = (1.0, 0.1, 0.01, 0.001)  # that are tried at first, each
LEAST_EVENNESS, MOST_MOVES = 2e-6, 12  # where the search of the mixture's settings ends


@dataclass(frozen=True)
class Split:
    """Utterances of a split: their standardised layers, and the loss of what is made of them."""

    blocks: Blocks
    loss: Loss
    parts: Tensor | None = None  # (row): number of the part that an utterance is held out with, where dev alone is too small

    def only(self, role: str, layer: int) -> Split:
        """Return one layer alone."""
        return Split({role: [part[layer : layer + 1] for part in self.blocks[role]]}, self.loss, self.parts)

    def even(self) -> Split:
        """Return the even mixture of each role's layers, in one."""
        return Split(
            {role: [part.mean(dim=0, dtype=torch.float32)[None] for part in parts] for role, parts in self.blocks.items()},
            self.loss,
            self.parts,
        )

    def losses(self, heads: Heads) -> list[float]:
        """Return the loss of each head."""
        outputs = heads.outputs(self.blocks)
        return loss_of(self.loss.to(outputs), outputs).tolist()


@dataclass(frozen=True)
class Fitted:
    """A head, and the settings that dev chose for it."""

    heads: Heads  # of one problem
    penalty: float
    evenness: float = 0.0
    tried: Mapping[Setting, float] = field(default_factory=dict)  # (penalty, evenness) -> loss of what was held out
    of_parts: Heads | None = None  # while settings are chosen: of the whole training split, then without each part

    @property
    def loss(self) -> float:
        """The loss of what was held out, with the settings that were chosen."""
        return self.tried[self.penalty, self.evenness]


@dataclass(frozen=True)
class Solution:
    """What the layers of each role know, one by one and together."""

    mixture: Fitted
    alone: Mapping[str, Sequence[Fitted]]  # role -> a head on each layer
    start: str  # where the mixture's search began: "even", or the layer that it left
    layer: int | None = None  # the single layer that is kept in place of the mixture, where it does better on what was held out

    @property
    def kept(self) -> Fitted:
        """The head that the run answers with."""
        if self.layer is None:
            return self.mixture
        [[role, found]] = self.alone.items()
        logits = torch.zeros(len(found))
        logits[self.layer] = CERTAIN
        chosen = found[self.layer]
        return replace(chosen, heads=_started(chosen.heads, {role: logits}))


def solve_probe(
    train: Split,
    dev: Split | None,
    *,
    penalty: float | None = None,
    evenness: float | None = None,
    keep: str = "auto",
    each_alone: bool = True,
    advance: Callable[[str], None] = lambda _: None,
) -> Solution:
    """Return the probe of the training split; what is not given of penalty and evenness is chosen on dev.

    `keep`: "mixture", the number of a layer, or "auto", whichever did best on what was held out.
    """
    assert dev is not None or (penalty is not None and evenness is not None), "without dev, nothing can be chosen"
    alone: dict[str, list[Fitted]] = {}
    near = FIRST
    layers = {role: len(parts[0]) for role, parts in train.blocks.items()}
    for role, count in layers.items() if each_alone and sum(layers.values()) > 1 else ():
        alone[role] = []
        for layer in range(count):
            advance(f"{role} layer {layer}" if len(layers) > 1 else f"layer {layer}")
            found = fit_one(train.only(role, layer), dev and dev.only(role, layer), penalty, near)
            alone[role].append(found)
            near = found.penalty
    advance("the mixture")
    even = fit_one(train.even(), dev and dev.even(), penalty, near)
    if max(layers.values()) == 1:
        return Solution(even, alone, "even")
    fitted = {EVEN: even}
    for role, of_role in alone.items() if len(layers) == 1 else ():
        fitted |= {(role, layer): one for layer, one in enumerate(of_role)}
    mixture, start = fit_mixture(train, dev, fitted, penalty, evenness)
    if keep == "auto":
        return Solution(mixture, alone, start, _better_alone(alone, mixture))
    return Solution(mixture, alone, start, None if keep == "mixture" else int(keep))


def _better_alone(alone: Mapping[str, Sequence[Fitted]], mixture: Fitted) -> int | None:
    """Return the layer that does better alone than in the mixture, on what was held out; of several roles there is none."""
    if len(alone) != 1 or not mixture.tried:
        return None
    [found] = alone.values()
    if not all(one.tried for one in found):
        return None
    best = min(range(len(found)), key=lambda layer: found[layer].loss)
    return best if found[best].loss < mixture.loss else None


class Trial:
    """Fits settings, and judges them by what was left out: dev, and parts of the training split where it has some."""

    def __init__(self, rough: Problem, train: Split, dev: Split, gain: float = ROUGH) -> None:
        self.rough, self.train, self.dev, self.gain = rough, train, dev, gain
        self.losses: dict[Setting, float] = {}
        self.heads: dict[Setting, Heads] = {}  # of the whole training split
        self.held_out = _held_out(train)

    @property
    def best(self) -> Setting:
        """The setting of least loss."""
        return min(self.losses, key=self.losses.__getitem__)

    def attempt(self, settings: Sequence[Setting], start: Heads | None = None) -> None:
        """Fit and judge what was not tried yet; the head without a part starts from one that did without it, too."""
        new = [setting for setting in settings if self.is_new(setting)]
        if not new:
            return
        repeated = [setting for setting in new for _ in range(1 + len(self.held_out))]
        if start is not None and len(start.bias) <= len(self.held_out):
            start = None  # of the whole split alone: without a part it would have seen what it is judged by
        weights = self.train.loss.weights[None] * torch.cat([torch.ones_like(self.held_out[:1]), 1 - self.held_out])
        weights = (weights / weights.sum(dim=1, keepdim=True)).repeat(len(new), 1)
        before = None if start is None else start.take([*range(1 + len(self.held_out))] * len(new))
        found = self.fit(repeated, before, weights if len(self.held_out) else None)
        of_dev = self.dev.losses(found)
        of_parts = self.losses_of_parts(found) if len(self.held_out) else []
        for place, setting in enumerate(new):
            first = place * (1 + len(self.held_out))
            self.heads[setting] = found.take(range(first, first + 1 + len(self.held_out)))
            rows = float(len(self.dev.loss.weights))
            total = of_dev[first] * rows
            for number, held_out in enumerate(self.held_out):
                count = float(held_out.sum())
                total, rows = total + of_parts[first + 1 + number] * count, rows + count
            self.losses[setting] = total / rows

    def fit(self, settings: Sequence[Setting], start: Heads | None, weights: Tensor | None) -> Heads:
        """Return the heads of some settings; `weights` (setting, row) leave parts out."""
        penalties, evenness = zip(*settings, strict=True)
        return self.rough.solve(penalties, evenness, gain=self.gain, start=start, weights=weights)

    def losses_of_parts(self, found: Heads) -> list[float]:
        """Return the loss of each head on the part that it left out."""
        outputs = found.outputs(self.train.blocks)
        weights = self.train.loss.weights[None] * torch.cat([torch.ones_like(self.held_out[:1]), self.held_out])
        weights = weights / weights.sum(dim=1, keepdim=True)
        repeated = weights.repeat(len(outputs) // len(weights), 1)
        return loss_of(self.train.loss.to(outputs), outputs, repeated.to(outputs)).tolist()

    def is_new(self, setting: Setting) -> bool:
        """Return whether a penalty is within bounds and not among those tried, but for rounding."""
        penalty, evenness = setting
        near = (abs(penalty / known - 1) < 1e-6 and evenness == other for known, other in self.losses)
        smallest = WEAKEST / len(self.train.loss.weights)
        return smallest <= penalty <= LARGEST and not any(near)


def _held_out(train: Split) -> Tensor:
    """Return 1 where an utterance is of a part: (part, row)."""
    if train.parts is None:
        return torch.zeros(0, len(train.loss.weights))
    return torch.stack([(train.parts == part).double() for part in train.parts.unique()])


def fit_one(train: Split, dev: Split | None, penalty: float | None, near: float = FIRST) -> Fitted:
    """Return the head on one layer of each role; its penalty is chosen on a path that begins near one."""
    exact = Problem.of(train.blocks, train.loss, torch.float64)
    if penalty is not None:
        return Fitted(exact.solve([penalty], [0.0], tolerance=FINE), penalty)
    assert dev is not None, "a penalty is chosen on dev"
    trial = Trial(exact.to(torch.float32), train, dev)
    trial.attempt([(near * STEP, 0.0), (near, 0.0), (near / STEP, 0.0)])
    while True:
        best, loss = trial.best, trial.losses[trial.best]
        trial.attempt([(best[0] * STEP, 0.0), (best[0] / STEP, 0.0)], trial.heads[best])
        if trial.losses[trial.best] >= WORTH * loss:
            break
    best = trial.best
    trial.attempt([(best[0] * FINER, 0.0), (best[0] / FINER, 0.0)], trial.heads[best])
    found = trial.heads[trial.best]
    kept = exact.near(found.take([0])).solve([trial.best[0]], [0.0], tolerance=FINE, start=found.take([0]))
    return Fitted(kept, *trial.best, trial.losses, found)


def fit_mixture(
    train: Split, dev: Split | None, fitted: Mapping[Corner, Fitted], penalty: float | None, evenness: float | None
) -> tuple[Fitted, str]:
    """Return the head on the mixture that is best of all starts, and the start that led to it.

    `fitted` has the even mixture's solution and, of one role, each layer's.

    The mixture is not convex. A search that starts from the even mixture's head, and one from each single layer's, end no
    worse than they began, so that what is returned is never above any of these.
    """
    rough = Problem.of(train.blocks, train.loss, torch.float32)
    roles = {role: len(parts[0]) for role, parts in train.blocks.items()}
    even = fitted[EVEN]
    begin = _started(even.of_parts or even.heads, {role: torch.zeros(count) for role, count in roles.items()})
    tried: Mapping[Setting, float] = {}
    if penalty is not None and evenness is not None:
        best, start = (penalty, evenness), begin
    else:
        assert dev is not None, "settings are chosen on dev"
        trial = Trial(rough, train, dev)
        begun = [even.penalty] if penalty is not None else _begun(fitted)
        for first in begun:
            trial.attempt([(first, value) for value in (EVENNESS if evenness is None else (evenness,))], begin)
        for _ in range(MOST_MOVES):
            best, loss = trial.best, trial.losses[trial.best]
            moves = [] if penalty is not None else [(best[0] * FINER, best[1]), (best[0] / FINER, best[1])]
            if evenness is None:
                moves += [(best[0], value) for value in (best[1] * STEP, best[1] / STEP) if LEAST_EVENNESS < value < 2]
            trial.attempt(moves, trial.heads[best])
            if trial.losses[trial.best] >= WORTH * loss:
                break
        best, tried = trial.best, trial.losses
        start = trial.heads[best].take([0])

    def descend(heads: Heads) -> Heads:
        """Return where a search from a head ends, its weights solved exactly for the mixture that it found."""
        return exact_head(train, rough.solve([best[0]], [best[1]], gain=MIXED, start=heads), best)

    kept, name = descend(start), "even"
    found = _lowest_start(train, float(kept.values[0]), fitted, best)
    if found is not None and found[1].values[0] < kept.values[0]:
        lowest, at = found
        leaning = {role: torch.where(logits[0] == CERTAIN, LEANING, 0.0) for role, logits in at.logits.items()}
        others = [descend(_started(at, leaning)), at]  # where a layer has all the weight, the slope is zero
        kept, name = min(others, key=lambda found: float(found.values[0])), lowest
    return Fitted(kept, *best, tried), name


def _begun(fitted: Mapping[Corner, Fitted]) -> list[float]:
    """Return the penalties that a search of the mixture's begins at: the even mixture's, and that of the best layer alone."""
    best = min(fitted, key=lambda corner: fitted[corner].loss)
    return [*dict.fromkeys([fitted[EVEN].penalty, fitted[best].penalty])]


def exact_head(train: Split, heads: Heads, setting: Setting) -> Heads:
    """Return the head whose weights are the solution for a mixture as it is: this part of the problem is convex."""
    penalty, evenness = setting
    mixtures = {role: heads.mixtures(role).float() for role in train.blocks}
    blocks = {
        role: [mixed(part.to(mixtures[role]), mixtures[role])[:1].double() for part in parts]
        for role, parts in train.blocks.items()
    }
    problem = Problem.of(blocks, train.loss, torch.float64)
    alone = replace(heads, logits={role: torch.zeros(1, 1) for role in blocks})
    found = problem.near(alone).solve([penalty], [0.0], tolerance=FINE, start=alone)
    logits = {role: of_role.to(found.bias) for role, of_role in heads.logits.items()}
    return replace(found, logits=logits, values=found.values + evenness * unevenness(heads))


def unevenness(heads: Heads) -> Tensor:
    """Return how far mixtures are from even ones: the divergence, summed over roles, of each problem."""
    logs = [logits.double().log_softmax(dim=1) for logits in heads.logits.values()]
    return torch.stack([(of_role.exp() * of_role).sum(dim=1) + math.log(of_role.shape[1]) for of_role in logs]).sum(dim=0)


def _lowest_start(train: Split, below: float, fitted: Mapping[Corner, Fitted], best: Setting) -> tuple[str, Heads] | None:
    """Return the lowest of the even mixture and those of one single layer, other roles even; None where none is below a value."""
    penalty, evenness = best
    roles = {role: len(parts[0]) for role, parts in train.blocks.items()}
    evens = train.even().blocks
    corners = [(role, layer) for role, count in roles.items() for layer in (range(count) if count > 1 else ())]
    found: list[tuple[str, Heads]] = []
    for role, layer in [EVEN, *corners]:
        logits = {name: torch.zeros(count) for name, count in roles.items()}
        if role:
            logits[role][layer] = CERTAIN
        apart = evenness * (math.log(roles[role]) if role else 0.0)
        if _least(fitted.get((role, layer)), penalty) + apart >= below:
            continue
        only = {role: [part[layer : layer + 1] for part in train.blocks[role]]} if role else {}
        alone = Problem.of({**evens, **only}, train.loss, torch.float32).solve([penalty], [0.0], tolerance=ROUGH)
        heads = replace(_started(alone, logits), values=alone.values + apart)
        found.append((f"{role} layer {layer}" if role else "even", heads))
    if not found:
        return None
    name, heads = min(found, key=lambda one: float(one[1].values[0]))
    return name, exact_head(train, heads, best)


def _least(fitted: Fitted | None, penalty: float) -> float:
    """Return what the value of a convex problem is at least, from its solution for another penalty: it is concave in that."""
    if fitted is None:
        return 0.0
    return float(fitted.heads.values[0]) * min(penalty / fitted.penalty, 1.0)


def _started(heads: Heads, logits: Mapping[str, Tensor]) -> Heads:
    """Return a head with other mixtures."""
    count = len(heads.bias)
    return replace(heads, logits={role: of_role.to(heads.bias)[None].repeat(count, 1) for role, of_role in logits.items()})
