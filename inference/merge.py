"""One upstream out of several of the same architecture: a weighted mean, or a base with task vectors added and taken away."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import folder_aside
from ..core.run_folder import RunFolder
from ..core.tensors import load_tensors
from ..upstream.base import Upstream
from ..upstream.load import load_upstream
from .export.hub_format import write_model

_PREFIX = "upstreams.audio."
_ROUNDING = 1e-6  # by which weights of a mean may miss one


@dataclass(frozen=True)
class Ingredient:
    """One of the upstreams that are merged."""

    name: str  # as the user typed it: an upstream, a run, a checkpoint of a run
    upstream: Upstream

    @classmethod
    def load(cls, name: str) -> Ingredient:
        """Return an upstream, a run's, or that of one checkpoint of a run (RUN/checkpoints/last.safetensors)."""
        path = Path(name).expanduser()
        if path.suffix != ".safetensors" or not path.is_file():
            return cls(name, load_upstream(name, "audio"))
        run = next((folder for folder in path.parents if RunFolder(folder).config.is_file()), None)
        if run is None:
            raise UserError(
                f"Expected a checkpoint in the folder of a run, found '{name}' in none. Name the folder of the model."
            )
        upstream, tensors = load_upstream(str(run), "audio"), load_tensors(path)[0]
        weights = {key.removeprefix(_PREFIX): value for key, value in tensors.items() if key.startswith(_PREFIX)}
        if {*weights} != {*upstream.state_dict()}:
            raise UserError(
                f"Expected the weights of the upstream in '{name}', found others, or a frozen one. Name a finetuned run."
            )
        upstream.load_state_dict(weights)
        return cls(name, upstream)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Its weights by name."""
        return self.upstream.state_dict()


def merged(names: Sequence[str], shares: Sequence[float], base: str | None = None) -> Upstream:
    """Return an upstream with merged weights.

    Without a base: the mean of the upstreams, weighted by `shares`, which sum to one. With one: the base plus each share of what
    leads from it to an upstream (task vectors; below zero they are taken away). A share of one alone gives that upstream to the
    digit, and one of zero counts for nothing.
    """
    refuse_shares(names, shares, base)
    ingredients = [Ingredient.load(name) for name in names]
    start = None if base is None else Ingredient.load(base)
    refuse_others([*ingredients, *([] if start is None else [start])])
    into = (start or ingredients[0]).upstream
    taken = [(one.weights, share) for one, share in zip(ingredients, shares, strict=True) if share]
    into.load_state_dict({key: merge(key, value, taken, start) for key, value in (start or ingredients[0]).weights.items()})
    into.name = into.source = " + ".join(f"{share:g} x {name}" for name, share in zip(names, shares, strict=True))
    into.untrained = any(one.upstream.untrained for one in ingredients)
    return into


def merge(key: str, value: Tensor, taken: Sequence[tuple[dict[str, Tensor], float]], base: Ingredient | None) -> Tensor:
    """Return one weight of the merged upstream, added up in float64."""
    if not value.is_floating_point():
        return value
    if len(taken) == 1 and taken[0][1] == 1.0:
        return taken[0][0][key].clone()
    start = torch.zeros_like(value, dtype=torch.float64) if base is None else value.double()
    away = torch.zeros_like(start) if base is None else start
    return sum((share * (weights[key].double() - away) for weights, share in taken), start).to(value.dtype)


def refuse_shares(names: Sequence[str], shares: Sequence[float], base: str | None) -> None:
    """Refuse shares that are too few, no numbers, or none of a mean."""
    if len(names) < 1 + (base is None):
        raise UserError(f"Expected at least {1 + (base is None)} upstreams to merge, found {len(names)}. Name more.")
    if len(shares) != len(names):
        raise UserError(f"Expected a weight for each of {len(names)} upstreams, found {len(shares)}. Write --weights 0.5,0.5")
    if not all(map(math.isfinite, shares)):
        raise UserError(f"Expected finite weights, found {', '.join(map(str, shares))}. Write --weights 0.5,0.5")
    if base is None and abs(sum(shares) - 1) > _ROUNDING:
        raise UserError(
            f"Expected weights that sum to 1 without --base, found {sum(shares):g}. Mend them, or name the --base that the "
            "upstreams were finetuned from, to add and subtract the differences."
        )


def refuse_others(ingredients: Sequence[Ingredient]) -> None:
    """Refuse upstreams of different architectures."""
    first = ingredients[0]
    shapes = {key: value.shape for key, value in first.weights.items()}
    for other in ingredients[1:]:
        found = {key: value.shape for key, value in other.weights.items()}
        different = sorted(key for key in {*shapes} | {*found} if shapes.get(key) != found.get(key))
        if different:
            raise UserError(
                f"Expected upstreams of one architecture, found that '{first.name}' and '{other.name}' differ at "
                f"'{different[0]}' ({len(different)} in all). Merge those of one start."
            )


def write_merged(names: Sequence[str], shares: Sequence[float], target: str | Path, base: str | None = None) -> Upstream:
    """Write a merged upstream as a model folder of the hub's format."""
    place = Path(os.path.realpath(Path(target).expanduser()))
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        raise UserError(f"Expected a new folder after --to, found something at '{target}'. Choose another name, or remove it.")
    upstream = merged(names, shares, base)
    with folder_aside(place, fills_empty=True) as aside:
        write_model(upstream, aside)
    return upstream
