"""How the losses of several tasks become one step: weights of losses, or what is made of the tasks' gradients."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from ..core.errors import UserError, nearest
from ..core.installation import install_command
from ..core.options import ABOVE_0, AT_LEAST_0

METHODS = ("sum", "fixed", "uncertainty", "dwa", "gradnorm")
SURGERY = "torchjd:"
# what torchjd leaves without a default; balance.settings has the last word
USUAL_SETTINGS: Mapping[str, Mapping[str, float]] = {"CAGrad": {"c": 0.5}, "FairGrad": {"alpha": 1.0}}
FORGETFUL = ("NashMTL",)  # what these remember of earlier steps no checkpoint could hold: they begin each step anew
UNKEPT = ("ExcessMTL",)  # the same, and that is all that they do: a resumed run would be another one


@dataclass(frozen=True)
class BalanceConfig:
    """The `balance:` section."""

    method: str = "sum"  # sum (the paper), fixed, uncertainty, dwa, gradnorm, or torchjd:PCGrad …
    weights: dict[str, float] = field(default_factory=dict)  # of fixed, by task; 1 where none is named
    temperature: Annotated[float, ABOVE_0] = 2.0  # of dwa
    every: Annotated[int, ABOVE_0] = 100  # steps over which dwa averages a loss
    alpha: Annotated[float, AT_LEAST_0] = 1.5  # of gradnorm: how much faster the slow tasks are pushed
    rate: Annotated[float, ABOVE_0] = 0.025  # of gradnorm's weights
    settings: dict[str, Any] = field(default_factory=dict)  # of torchjd's aggregator, by its own names: c of CAGrad …
    cosines_every: Annotated[int, AT_LEAST_0] = 0  # steps between logged cosines of the tasks' gradients; 0: never


class Balancer(nn.Module):
    """Weights the tasks' losses, all alike; its parameters and its memory are in its state."""

    needs: Literal["losses", "norms", "rows"] = "losses"  # what it needs of a step: norms or rows of the shared gradient

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = list(tasks)

    def weigh(self, task: str, loss: Tensor) -> Tensor:  # noqa: ARG002
        """Return what is differentiated in place of a task's loss."""
        return loss

    def weights(self) -> dict[str, float]:
        """Return what each task's loss is multiplied with now."""
        return dict.fromkeys(self.tasks, 1.0)

    def observe(self, losses: Mapping[str, float], norms: Mapping[str, float]) -> None:
        """Take note of a step's losses, and of the norms of its weighted gradients where it needs them."""

    def combine(self, rows: Tensor) -> Tensor:
        """Return the shared gradient of a step from the tasks' (task, weight)."""
        return rows.sum(dim=0)


class Fixed(Balancer):
    """Weights that the user gives."""

    def __init__(self, tasks: Sequence[str], given: Mapping[str, float]) -> None:
        super().__init__(tasks)
        for name in given:
            if name not in tasks:
                raise UserError(f"Expected a task of the run in balance.weights, found '{name}'.{nearest(name, tasks)}")
        self.given = {task: given.get(task, 1.0) for task in tasks}

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Return the loss times its weight."""
        return loss * self.given[task]

    def weights(self) -> dict[str, float]:
        """Return the weights given."""
        return dict(self.given)


class Uncertainty(Balancer):
    """Homoscedastic uncertainty (Kendall 2018): exp(-v) loss + v / 2 with a learned log variance v for each task."""

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Return the loss as the task's uncertainty sees it."""
        variance = self.log_variances[task]
        return (-variance).exp() * loss + variance / 2

    def weights(self) -> dict[str, float]:
        """Return exp(-v)."""
        return {task: math.exp(-float(value.detach())) for task, value in self.log_variances.items()}


class Dwa(Balancer):
    """Dynamic weight average (Liu 2019): tasks whose loss falls more slowly weigh more; compared over stretches of steps."""

    now: Tensor
    sums: Tensor
    counts: Tensor
    before: Tensor

    def __init__(self, tasks: Sequence[str], temperature: float, every: int) -> None:
        super().__init__(tasks)
        self.temperature, self.every = temperature, every
        size = len(self.tasks)
        self.register_buffer("now", torch.ones(size, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("counts", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("before", torch.full((2, size), torch.nan, dtype=torch.float64))  # the last two stretches' means

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Return the loss times its weight."""
        return loss * float(self.now[self.tasks.index(task)])

    def weights(self) -> dict[str, float]:
        """Return the weights of the present stretch; they sum to the number of tasks."""
        return dict(zip(self.tasks, self.now.tolist(), strict=True))

    def observe(self, losses: Mapping[str, float], norms: Mapping[str, float]) -> None:  # noqa: ARG002
        """Add a step's losses, and set the weights anew at the end of a stretch."""
        for task, loss in losses.items():
            self.sums[self.tasks.index(task)] += loss
            self.counts[self.tasks.index(task)] += 1
        if self.counts.min() < self.every:
            return
        self.before = torch.stack([self.before[1], self.sums / self.counts])
        self.sums.zero_()
        self.counts.zero_()
        ratio = self.before[1] / self.before[0]
        if torch.isfinite(ratio).all():
            self.now = len(self.tasks) * torch.softmax(ratio / self.temperature, dim=0)


class GradNorm(Balancer):
    """GradNorm (Chen 2018): weights trained such that the tasks' weighted gradients have norms that suit their pace.

    The target of a task's norm is the mean norm times (its relative inverse pace)^alpha; pace is loss / first loss. Departs
    from the paper in how a weight moves: by a factor that shrinks with the gap to the target, not by equal steps; and in
    whose norms count: all shared weights, where the paper takes those of the last shared layer.
    """

    needs = "norms"
    now: Tensor
    first: Tensor

    def __init__(self, tasks: Sequence[str], alpha: float, rate: float) -> None:
        super().__init__(tasks)
        self.alpha, self.rate = alpha, rate
        self.register_buffer("now", torch.ones(len(self.tasks), dtype=torch.float64))
        self.register_buffer("first", torch.full((len(self.tasks),), torch.nan, dtype=torch.float64))

    def weigh(self, task: str, loss: Tensor) -> Tensor:
        """Return the loss times its weight."""
        return loss * float(self.now[self.tasks.index(task)])

    def weights(self) -> dict[str, float]:
        """Return the weights; they sum to the number of tasks."""
        return dict(zip(self.tasks, self.now.tolist(), strict=True))

    def observe(self, losses: Mapping[str, float], norms: Mapping[str, float]) -> None:
        """Move the weights of the step's tasks a little, such that their norms come nearer to their targets."""
        places = [self.tasks.index(task) for task in losses]
        found = torch.tensor([losses[task] for task in losses], dtype=torch.float64)
        weighted = torch.tensor([norms[task] for task in losses], dtype=torch.float64)
        self.first[places] = torch.where(self.first[places].isnan(), found, self.first[places])
        if len(places) < 2:
            return
        pace = found / self.first[places].clamp(min=1e-12)
        target = weighted.mean() * (pace / pace.mean()).clamp(min=1e-12) ** self.alpha
        gap = ((weighted - target) / weighted.mean().clamp(min=1e-12)).clamp(-1.0, 1.0)
        moved = self.now.clone()
        # by factors: where gradients differ a hundredfold so must the weights, and equal steps would only swing about 0
        moved[places] = (self.now[places] * torch.exp(-self.rate * gap)).clamp(min=1e-6)
        self.now = moved * len(self.tasks) / moved.sum()


class Surgery(Balancer):
    """What torchjd makes of the tasks' gradients: PCGrad, MGDA, CAGrad, UPGrad …"""

    needs = "rows"

    def __init__(self, tasks: Sequence[str], name: str, settings: Mapping[str, Any]) -> None:
        super().__init__(tasks)
        self.aggregate = aggregator(name, len(self.tasks), settings)
        self.forgets = name in FORGETFUL

    def combine(self, rows: Tensor) -> Tensor:
        """Return the shared gradient as the aggregator forms it; one task's gradient is itself."""
        if len(rows) == 1:
            return rows[0]
        if self.forgets:
            self.aggregate.reset()
        return self.aggregate(rows)


def aggregator(name: str, tasks: int, settings: Mapping[str, Any]) -> Any:
    """Return torchjd's aggregator of a name, one like it tried before: some miss a package only when they are called."""
    try:
        import torchjd.aggregation as found
    except ImportError:
        raise UserError(f"Expected torchjd for --balance torchjd:…, found none. Run: {install_command('mtl')}") from None
    known = {
        word: kind
        for word, kind in vars(found).items()
        if isinstance(kind, type) and issubclass(kind, found.Aggregator) and not word.endswith("Aggregator")
    }
    if name not in known:
        raise UserError(f"torchjd has no aggregator '{name}'.{nearest(name, known)} It has: {', '.join(sorted(known))}.")
    if name in UNKEPT:
        raise UserError(
            f"Expected an aggregator whose memory a checkpoint can hold, found {name}. For instance: --balance torchjd:PCGrad"
        )
    vectors = {
        key: torch.tensor(value, dtype=torch.float32) if isinstance(value, list) else value for key, value in settings.items()
    }
    make = partial(known[name], **settings_of(name, inspect.signature(known[name]).parameters, tasks, vectors))
    try:
        made = make()
        made(torch.eye(max(tasks, 2)))
    except (ImportError, NameError) as problem:
        raise UserError(
            f"Expected the solver of torchjd's {name}, found none: {problem}. Run: {install_command('mtl-solvers')}"
        ) from None
    except (TypeError, ValueError, AttributeError, RuntimeError) as problem:
        raise UserError(f"Expected settings that torchjd's {name} takes, found: {problem}. See balance.settings.") from None
    for memory in made.buffers():  # made by that trial, so that a checkpoint finds them: as before the first step
        memory.zero_()
    return made


def settings_of(name: str, takes: Mapping[str, Any], tasks: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an aggregator is made with: the number of tasks, our values where it has none, the user's."""
    for key in given:
        if key not in takes:
            has = ", ".join(takes) or "none"
            raise UserError(
                f"Expected a setting of torchjd's {name} ({has}) in balance.settings, found '{key}'.{nearest(key, takes)}"
            )
    if name in FORGETFUL and given.get("update_weights_every", 1) != 1:
        raise UserError(
            f"Expected balance.settings.update_weights_every=1 for {name} (what it would remember is in no checkpoint), found "
            f"{given['update_weights_every']}. Leave it out."
        )
    made = {**({"n_tasks": tasks} if "n_tasks" in takes else {}), **USUAL_SETTINGS.get(name, {}), **given}
    missing = [key for key, what in takes.items() if what.default is what.empty and key not in made]
    if missing:
        raise UserError(
            f"Expected the setting '{missing[0]}' for torchjd's {name}, found none. Add -o balance.settings.{missing[0]}=…"
        )
    return made


def make_balancer(config: BalanceConfig, tasks: Sequence[str]) -> Balancer:
    """Return the balancer of a config."""
    if config.method.startswith(SURGERY):
        return Surgery(tasks, config.method.removeprefix(SURGERY), config.settings)
    if config.settings:
        raise UserError(f"Expected balance.method={SURGERY}NAME beside balance.settings, found '{config.method}'. Leave one out.")
    makers = {
        "sum": lambda: Balancer(tasks),
        "fixed": lambda: Fixed(tasks, config.weights),
        "uncertainty": lambda: Uncertainty(tasks),
        "dwa": lambda: Dwa(tasks, config.temperature, config.every),
        "gradnorm": lambda: GradNorm(tasks, config.alpha, config.rate),
    }
    if config.method not in makers:
        close = nearest(config.method, makers)
        raise UserError(
            f"Expected balance.method to be one of {', '.join(makers)} or {SURGERY}NAME, found '{config.method}'.{close}"
        )
    if config.weights and config.method != "fixed":
        raise UserError(f"Expected balance.method=fixed beside balance.weights, found '{config.method}'. Leave one out.")
    return makers[config.method]()


def cosines(rows: Tensor) -> Tensor:
    """Return the cosine of each pair of the tasks' gradients: (task, task); 0 where one is zero."""
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    return unit @ unit.T
