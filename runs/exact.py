"""A run whose head is computed: layers gathered, standardised, solved, and put into the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..core.errors import UserError
from ..corpus.batch import Example, silent_batch
from ..downstream.base import Outcome, Output
from ..training.config import TrainingConfig
from ..training.exact.losses import Choices, Loss, Multinomial, Squares
from ..training.exact.mixture import Heads
from ..training.exact.probe import Solution, Split, solve_probe
from ..training.exact.together import Together, apart, fit_together
from ..training.loop import ahead, outcome_of, refuse_no_numbers
from ..training.model import Model
from ..training.step import TaskData
from ..upstream.statistics import pooled_layers
from .config.schema import ExactConfig
from .results import finite, group_of

ROWS = 1024  # utterances that are held together as one part
HALF_FROM = 2**28  # numbers of the training split above which its standardised layers are held in float16
DEV_IS_ENOUGH = 400  # utterances of dev above which it judges alone
PARTS = 4  # of the training split, each left out in turn, where dev is smaller
MOST_GAIN = 3.0  # by which ratings are spread at most


@dataclass(frozen=True)
class Standard:
    """Mean and scale of a role's layers over the training split: (layer, dim) each."""

    mean: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Solved:
    """The solution of a run, and what each layer alone predicts."""

    solution: Solution
    gain: tuple[float, ...]  # by which each rating was spread; () of classes
    judged_by: str
    alone: Mapping[str, Sequence[Mapping[str, Outcome]]]  # role -> layer -> split -> its predictions
    together: Together | None  # the head on all layers at once, where it is asked for
    all_layers: Mapping[str, Outcome]  # split -> its predictions


def solve(
    model: Model,
    task: TaskData,
    config: ExactConfig,
    training: TrainingConfig,
    accelerator: Accelerator,
    show: Callable[[str], None],
) -> Solved:
    """Return the solution of a task, and leave it in the model."""
    linear = task.expert.linear()
    if linear is None:
        raise UserError(
            f"Expected a head of one linear layer for solver=exact, found that '{task.name}' has another one with these options. "
            "Use solver=adam."
        )
    gather = Gatherer(model, task, training, accelerator)
    train_rows, dev_rows = task.splits["train"], task.splits.get("dev") or ()
    standards = gather.standards(train_rows)
    train = gather.split(train_rows, standards)
    dev = gather.split(dev_rows, standards) if dev_rows else None
    train = with_parts(train, config, train_rows, dev_rows)
    solution = solve_probe(
        train,
        dev,
        penalty=config.penalty,
        evenness=config.evenness,
        keep=config.keep,
        each_alone=config.each_layer or config.keep.isdecimal(),
        advance=show,
    )
    together = None
    if config.together:
        show("all layers together")
        together = fit_together(train, dev, config.penalty, solution.mixture.penalty)
    kept, gain = spread(solution.kept.heads, dev, config.gain)
    put(model, task, kept, standards)
    splits = {name: rows for name, rows in task.splits.items() if name != "train" and rows and dev is not None}
    gathered = {name: gather.split(rows, standards) for name, rows in splits.items()}
    alone: dict[str, list[dict[str, Outcome]]] = {}
    for role, of_role in solution.alone.items() if dev is not None else ():
        alone[role] = []
        for layer, fitted in enumerate(of_role):
            heads, _ = spread(fitted.heads, gathered["dev"].only(role, layer))
            parts = {name: found.only(role, layer) for name, found in gathered.items()}
            alone[role].append({name: outcome_of_layer(task, splits[name], part, heads) for name, part in parts.items()})
    all_layers: dict[str, Outcome] = {}
    if together is not None and dev is not None:
        heads, _ = spread(together.fitted.heads, apart(dev))
        all_layers = {name: outcome_of_layer(task, splits[name], apart(found), heads) for name, found in gathered.items()}
    judged = "dev" if train.parts is None else f"dev and {PARTS} parts of train, each left out in turn"
    return Solved(solution, gain, judged if dev_rows else "an earlier run", alone, together, all_layers)


def with_parts(train: Split, config: ExactConfig, train_rows: Sequence[Example], dev_rows: Sequence[Example]) -> Split:
    """Return the training split with the parts that are left out in turn, where dev does not judge alone."""
    by_parts = bool(dev_rows) and (config.judge == "parts" or (config.judge == "auto" and len(dev_rows) < DEV_IS_ENOUGH))
    return replace(train, parts=parts_of(train_rows, dev_rows)) if by_parts else train


def refuse_keep(config: ExactConfig, model: Model) -> None:
    """Refuse to answer with a layer that there is not; a word is no layer, and of several upstreams none is meant."""
    counts = [1 if section.layer is not None else model.upstream(role).spec.num_layers for role, section in model.configs.items()]
    last = counts[0] - 1
    if config.keep in ("auto", "mixture") or (len(counts) == 1 and config.keep.isdecimal() and int(config.keep) <= last):
        return
    layers = f", or a layer from 0 to {last}" if len(counts) == 1 else ""
    raise UserError(f"Expected exact.keep auto, mixture{layers}, found '{config.keep}'. Leave it out.")


def described(solved: Solved, task: TaskData) -> dict[str, object]:
    """Return what result.json says of a solution."""
    solution, kept = solved.solution, solved.solution.kept
    return {
        "penalty": kept.penalty,
        "evenness": kept.evenness,
        "keep": "mixture" if solution.layer is None else str(solution.layer),
        "layers": max(len(solution.mixture.heads.mixtures(role)[0]) for role in task.expert.roles),
        **({"gain": list(solved.gain)} if solved.gain else {}),
        "judged_by": solved.judged_by,
        "start": solution.start,
        "tried": [[*setting, loss] for setting, loss in sorted(solution.mixture.tried.items())],
    }


def curve_of(solved: Solved, task: TaskData) -> dict[str, object]:
    """Return what layers.json says: of each role the mixture's weights, and of each layer alone its penalty and scores."""
    roles: dict[str, object] = {}
    for role in task.expert.roles:
        fitted = solved.solution.alone.get(role, ())
        outcomes = solved.alone.get(role, [{}] * len(fitted))
        roles[role] = {
            "mixture": solved.solution.mixture.heads.mixtures(role)[0].tolist(),
            "kept": solved.solution.kept.heads.mixtures(role)[0].tolist(),
            "layers": [
                {
                    "penalty": one.penalty,
                    "held_out_loss": one.loss if one.tried else None,
                    "scores": {split: finite(task.score(split, outcome)) for split, outcome in of_layer.items()},
                }
                for one, of_layer in zip(fitted, outcomes, strict=True)
            ],
        }
    loss = solved.solution.mixture.loss if solved.solution.mixture.tried else None
    return {
        "task": task.name,
        "select_by": task.select_by,
        "mixture_held_out_loss": loss,
        "roles": roles,
        **({} if solved.together is None else {"together": together_of(solved, task, solved.together)}),
    }


def together_of(solved: Solved, task: TaskData, together: Together) -> dict[str, object]:
    """Return what layers.json says of the head on all layers at once."""
    return {
        "penalty": together.fitted.penalty,
        "held_out_loss": together.fitted.loss if together.fitted.tried else None,
        "shares": {role: shares.tolist() for role, shares in together.shares.items()},
        "scores": {split: finite(task.score(split, outcome)) for split, outcome in solved.all_layers.items()},
    }


class Gatherer:
    """Reads or computes the pooled layers of a task's utterances."""

    def __init__(self, model: Model, task: TaskData, training: TrainingConfig, accelerator: Accelerator) -> None:
        self.model, self.task, self.accelerator = model, task, accelerator
        self.training = training.without_training()

    @torch.no_grad()
    def pieces(self, examples: Sequence[Example]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Yield the places of some examples, and each role's layers of them: (layer, row, dim)."""
        self.model.eval()
        places = {example.utterance.id: place for place, example in enumerate(examples)}
        source, expert = self.task.source, self.task.expert
        cut = source.pieces(examples, self.training)
        pieces = [piece[start : start + ROWS] for piece in cut for start in range(0, len(piece), ROWS)]
        for index, batch in ahead(range(len(pieces)), lambda index: source.batch(pieces[index]), threaded=source.slow):
            found = {}
            with self.accelerator.autocast():
                for role in expert.roles:
                    layers = self.model.layers(role, batch.to(self.accelerator.device))
                    pooled = pooled_layers(layers, expert.pools[role] or "mean")
                    found[role] = torch.stack([value[:, 0].float() for value in pooled.values])
            yield [places[example.utterance.id] for example in pieces[index]], found

    def standards(self, examples: Sequence[Example]) -> dict[str, Standard]:
        """Return mean and scale of each role's layers, in float64; a dimension that never changes has scale 1."""
        count = len(examples)
        means: dict[str, Tensor] = {}
        squares: dict[str, Tensor] = {}
        for _, found in self.pieces(examples):
            for role, values in found.items():
                total = values.double().sum(dim=1)
                means[role] = means.get(role, torch.zeros_like(total)) + total / count
        for _, found in self.pieces(examples):
            for role, values in found.items():
                total = (values.double() - means[role][:, None]).square().sum(dim=1)
                squares[role] = squares.get(role, torch.zeros_like(total)) + total / count
        return {role: Standard(mean, scale_of(mean, squares[role].sqrt())) for role, mean in means.items()}

    def split(self, examples: Sequence[Example], standards: Mapping[str, Standard]) -> Split:
        """Return the standardised layers of a split in the order of its examples, with the loss of their targets."""
        blocks: dict[str, list[Tensor]] = {}
        starts = range(0, len(examples), ROWS)
        for role, standard in standards.items():
            layers, dim = standard.mean.shape
            kind = torch.float16 if len(examples) * layers * dim > HALF_FROM else torch.float32
            sizes = [min(ROWS, len(examples) - start) for start in starts]
            blocks[role] = [torch.empty(layers, size, dim, dtype=kind, device=standard.mean.device) for size in sizes]
        for places, found in self.pieces(examples):
            for role, values in found.items():
                standard = standards[role]
                values = ((values.double() - standard.mean[:, None]) / standard.scale[:, None]).float()
                for row, place in enumerate(places):
                    blocks[role][place // ROWS][:, place % ROWS] = values[:, row]
        return Split(blocks, loss_of_targets(self.task, examples))


def scale_of(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return what a dimension is divided by: its deviation, or 1 where that is rounding alone."""
    return torch.where(deviation > 1e-6 * mean.abs() + 1e-12, deviation, torch.ones_like(deviation))


def loss_of_targets(task: TaskData, examples: Sequence[Example]) -> Loss:
    """Return the loss of a split: cross entropy of classes, squares of ratings; utterances count as in training by steps."""
    targets = [example.target for example in examples]
    weights = torch.tensor([example.weight * task.expert.importance(example.target) for example in examples]).double()
    weights = weights / weights.sum()
    sizes = task.expert.choices()
    if sizes:
        return Choices(torch.tensor([task.expert.places(target) for target in targets]), weights, sizes)
    if isinstance(targets[0], int):
        return Multinomial(torch.tensor(targets), weights, cast(nn.Linear, task.expert.linear()).out_features)
    return Squares(torch.tensor(targets, dtype=torch.float64), weights)


def parts_of(train: Sequence[Example], dev: Sequence[Example]) -> Tensor:
    """Return which part of the training split each utterance belongs to.

    Parts share no speaker, as train and dev share none. Where they do, and where there are too few speakers, utterances of
    each target are dealt out in turn.
    """
    groups = [group_of(example.utterance) for example in train]
    others = {group_of(example.utterance) for example in dev}
    sizes = Counter(groups)
    if len(sizes) >= PARTS and all(groups) and not others & {*groups}:
        fill, part_of = [0] * PARTS, dict[str, int]()
        for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
            part_of[name] = fill.index(min(fill))
            fill[part_of[name]] += size
        return torch.tensor([part_of[name] for name in groups])
    order = sorted(range(len(train)), key=lambda row: (repr(train[row].target), train[row].utterance.id))
    parts = torch.empty(len(train), dtype=torch.long)
    parts[torch.tensor(order)] = torch.arange(len(train)) % PARTS
    return parts


def spread(heads: Heads, dev: Split | None, gain: Sequence[float] | None = None) -> tuple[Heads, tuple[float, ...]]:
    """Return a head of ratings whose outputs vary as much as the ratings of dev; one of classes as it is.

    Least squares draw ratings towards their mean, which concordance counts as disagreement.
    """
    if (dev is None and gain is None) or (dev is not None and not isinstance(dev.loss, Squares)):
        return heads, ()
    if gain is None:
        assert dev is not None, "without dev, the gain is given"
        outputs = heads.outputs(dev.blocks)[0].double()
        targets = cast(Squares, dev.loss).targets.to(outputs)
        gain = (targets.std(dim=0) / outputs.std(dim=0).clamp(min=1e-12)).clamp(min=1.0, max=MOST_GAIN).tolist()
    factor = heads.bias.new_tensor(list(gain))
    weights = {role: values * factor[None, :, None] for role, values in heads.weights.items()}
    # standardised layers are 0 at the mean of the training split: the bias is what outputs are spread about
    return replace(heads, weights=weights), tuple(gain)


@torch.no_grad()
def put(model: Model, task: TaskData, heads: Heads, standards: Mapping[str, Standard]) -> None:
    """Leave a head, its mixture and its standards in the model."""
    linear = cast(nn.Linear, task.expert.linear())
    linear.weight.copy_(torch.cat([heads.weights[role][0] for role in task.expert.roles], dim=1))
    linear.bias.copy_(heads.bias[0])
    for role in task.expert.roles:
        mixing = model.weighted_sum(task.name, role)
        mixing.mean.copy_(standards[role].mean)
        mixing.scale.copy_(standards[role].scale)
        mixing.logits.copy_(heads.logits[role][0])


def outcome_of_layer(task: TaskData, examples: Sequence[Example], split: Split, heads: Heads) -> Outcome:
    """Return the predictions of one layer's head."""
    outputs = heads.outputs(split.blocks)[0].float()
    batch = silent_batch(examples)
    outcome = outcome_of(task, batch, Output(outputs), torch.tensor(0.0))
    refuse_no_numbers("one layer", outcome)
    return outcome
