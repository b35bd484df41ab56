"""A finished run with a solved head: the features and targets that its probe was fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from ...core.errors import UserError
from ...core.files import read_json
from ...core.run_folder import RunFolder
from ...corpus.batch import Example
from ...downstream.base import Outcome
from ...runs.config.identity import refuse_other
from ...runs.config.resolve import config_of
from ...runs.config.schema import ExactConfig, RunConfig
from ...runs.exact import Gatherer, loss_of_targets, outcome_of_layer, spread, with_parts
from ...runs.features import with_store
from ...runs.prepare import RunSetup, prepare
from ...runs.runtime import Runtime, make_accelerator, print_progress
from ...training.exact.probe import Split, solve_probe
from ...training.step import TaskData
from ...upstream.random_weights import forget_training

Splits = Mapping[str, Split]


@dataclass(frozen=True)
class Fold:
    """A run, ready for controls."""

    setup: RunSetup
    task: TaskData
    splits: Splits  # train, dev and the tested one
    exact: ExactConfig  # how the run chose its settings
    chosen: ExactConfig  # the settings that it chose
    kept: Mapping[str, Tensor]  # role -> the weight of each layer in what the run answers with
    tested: str
    accelerator: Accelerator

    @property
    def examples(self) -> list[Example]:
        """Every utterance, split by split."""
        return [example for split in self.splits for example in self.task.splits[split]]

    def mixed(self) -> dict[str, Split]:
        """Return the layers as the run mixes them, in one."""
        return {name: mixed(split, self.kept) for name, split in self.splits.items()}


def refuse_steps(config: RunConfig, where: str) -> None:
    """Refuse a run by steps: controls are fitted as the run was, in seconds."""
    if config.solver != "exact":
        raise UserError(
            f"Expected a run with solver=exact to audit (its controls are fitted like it), found solver={config.solver} in "
            f"'{where}'. Train it with -o solver=exact."
        )


def read_fold(folder: Path, tested: str, runtime: Runtime) -> Fold:
    """Return a finished run whose corpus and weights are still those that it was trained on."""
    run = RunFolder(folder)
    config, _, _ = config_of(folder, None)
    refuse_steps(config, str(folder))
    chosen = run.read().result("exact")["exact"]
    kept = read_json(run.layers, ("roles",))["roles"]
    setup = prepare(config)
    refuse_other(folder, setup.identity)
    accelerator = make_accelerator(config, runtime)
    setup.model.to(accelerator.device)
    setup = with_store(setup, accelerator, partial(print_progress, replace(runtime, quiet=True)))
    [task] = setup.tasks.values()
    return Fold(
        setup,
        task,
        features_of(setup, tested, accelerator),
        config.exact,
        replace(config.exact, penalty=chosen["penalty"], evenness=chosen["evenness"], keep=chosen["keep"]),
        {role: torch.tensor(of_role["kept"]) for role, of_role in kept.items()},
        tested,
        accelerator,
    )


def features_of(setup: RunSetup, tested: str, accelerator: Accelerator) -> dict[str, Split]:
    """Return the standardised layers of the training split, of dev and of the tested split."""
    [task] = setup.tasks.values()
    gather = Gatherer(setup.model, task, setup.config.training, accelerator)
    standards = gather.standards(task.splits["train"])
    names = dict.fromkeys(["train", "dev", tested])
    splits = {name: gather.split(task.splits[name], standards) for name in names}
    return splits | {"train": with_parts(splits["train"], setup.config.exact, task.splits["train"], task.splits["dev"])}


def random_outcome(fold: Fold, runtime: Runtime) -> Outcome:
    """Return what the same probe predicts from the same architecture with weights that were never trained.

    The fold's upstreams are changed: nothing else can be computed from them afterwards.
    """
    upstreams = {**fold.setup.identity["upstreams"]}
    for role, upstream in fold.setup.upstreams.items():
        forget_training(upstream)
        upstreams[role] = upstream.weights_hash()
    sources = {name: replace(task, source=type(task.source)(task.source.roles)) for name, task in fold.setup.tasks.items()}
    setup = replace(fold.setup, tasks=sources, identity={**fold.setup.identity, "upstreams": upstreams})
    print_progress(runtime, "random    the same upstream with random weights: its features are computed once too")
    setup = with_store(setup, fold.accelerator, partial(print_progress, runtime))
    return predictions(fold.task, features_of(setup, fold.tested, fold.accelerator), fold.exact, fold.tested)


def predictions(task: TaskData, splits: Splits, config: ExactConfig, tested: str) -> Outcome:
    """Return what a probe predicts that is fitted and calibrated as a run's is."""
    dev = splits["dev"]
    solution = solve_probe(
        splits["train"],
        dev,
        penalty=config.penalty,
        evenness=config.evenness,
        keep=config.keep,
        each_alone=config.each_layer or config.keep.isdecimal(),
    )
    heads, _ = spread(solution.kept.heads, dev, config.gain)
    on_dev = outcome_of_layer(task, task.splits["dev"], dev, heads)
    vocabulary = task.question.calibrate(task.expert.vocabulary, on_dev, task.tables.get("dev", {}))
    return outcome_of_layer(task.with_vocabulary(vocabulary), task.splits[tested], splits[tested], heads)


def mixed(split: Split, weights: Mapping[str, Tensor]) -> Split:
    """Return a mixture of each role's layers as the only layer."""
    blocks = {
        role: [torch.einsum("l,lrd->rd", weights[role].to(part.device), part.float())[None] for part in parts]
        for role, parts in split.blocks.items()
    }
    return Split(blocks, split.loss, split.parts)


def split_of_numbers(task: TaskData, numbers: Mapping[str, Sequence[float]], names: Sequence[str], like: Splits) -> Splits:
    """Return a few numbers of each utterance (by id), standardised by the training split, in place of layers."""
    rows = {
        name: torch.tensor([numbers[example.utterance.id] for example in task.splits[name]], dtype=torch.float64)
        for name in names
    }
    mean, scale = rows["train"].mean(dim=0), rows["train"].std(dim=0, correction=0).clamp(min=1e-6)
    return {
        name: Split(
            {"audio": [((values - mean) / scale).float()[None]]}, loss_of_targets(task, task.splits[name]), like[name].parts
        )
        for name, values in rows.items()
    }


def without_speaker_means(splits: Splits, speakers: Mapping[str, Sequence[str]]) -> Splits:
    """Return layers minus their mean over each speaker's utterances of the split, standardised again by the training split."""
    centred = {name: _centred(split, speakers[name]) for name, split in splits.items()}
    scales = {role: _scale(parts) for role, parts in centred["train"].blocks.items()}
    return {
        name: Split(
            {role: [part / scales[role] for part in parts] for role, parts in split.blocks.items()}, split.loss, split.parts
        )
        for name, split in centred.items()
    }


def _centred(split: Split, speakers: Sequence[str]) -> Split:
    names = {name: place for place, name in enumerate(dict.fromkeys(speakers))}
    of_row = torch.tensor([names[name] for name in speakers])
    counts = torch.bincount(of_row).clamp(min=1)
    blocks = {}
    for role, parts in split.blocks.items():
        rows = of_row.to(parts[0].device).split([part.shape[1] for part in parts])
        layers, _, dim = parts[0].shape
        sums = torch.zeros(layers, len(names), dim, dtype=torch.float64, device=parts[0].device)
        for part, index in zip(parts, rows, strict=True):
            sums.index_add_(1, index, part.double())
        means = (sums / counts.to(sums)[None, :, None]).float()
        blocks[role] = [part.float() - means[:, index] for part, index in zip(parts, rows, strict=True)]
    return Split(blocks, split.loss, split.parts)


def _scale(parts: Sequence[Tensor]) -> Tensor:
    """Return the root of the mean square of each dimension: (layer, 1, dim)."""
    total = sum(part.double().square().sum(dim=1) for part in parts)
    assert isinstance(total, Tensor), "a split has rows"
    root = (total / sum(part.shape[1] for part in parts)).sqrt()
    return torch.where(root > 1e-6, root, torch.ones_like(root)).float()[:, None]
