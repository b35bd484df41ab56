"""The joint spaces of several runs: how aligned, how uniform, and where audio lies on the sphere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..core.errors import UserError
from ..core.figures import marked_title, new_figure, save_csv, save_figure
from ..core.run_folder import RunFolder
from ..core.tensors import load_tensors
from ..downstream.turbo.geometry import by_role, geometry_of, on_sphere
from .table import render, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MEASURES = ("alignment", "uniformity", "uniformity_audio", "uniformity_text")
_MOST_ROWS = 4000  # of a density: its picture is the same with more
_BINS = 45  # of directions
_WIDTH = 0.1  # of the kernel, where the circle's radius is 1


@dataclass(frozen=True)
class Space:
    """The embeddings of one run's split, as its folder keeps them."""

    folder: Path
    group: str  # what the runs of one method share
    audio: Tensor  # (utterance, dim)
    text: Tensor
    marks: tuple[str, ...]
    seed: int | None

    @property
    def measures(self) -> dict[str, float]:
        """Alignment and uniformity."""
        return geometry_of(self.audio, self.text)


def runs_below(folders: Sequence[Path]) -> list[Path]:
    """Return the run folders named, those of a plan one by one."""
    found = []
    for folder in folders:
        inside = [folder] if RunFolder(folder).config.is_file() else RunFolder(folder).below()
        if not inside:
            raise UserError(f"Expected a run folder (or a plan of runs) at '{folder}', found none. Check the path.")
        found += inside
    return found


def read_space(folder: Path, split: str = "test") -> Space:
    """Return the embeddings that a run saved of a split."""
    run = RunFolder(folder)
    path = run.outcome(split)
    if not path.is_file():
        raise UserError(f"Expected '{path.name}' in '{folder}', found none. Is it a finished run with that split?")
    tensors, facts = load_tensors(path)
    with run.usable_vocabulary():
        vocabulary: dict[str, Any] = next(iter(run.read().vocabulary().values()), {})
        roles = by_role(vocabulary, tensors["embeddings"]) if "embeddings" in tensors else {}
    if not roles:
        raise UserError(f"Expected a run with a joint space (-d turbo) in '{folder}', found one without embeddings.")
    config, marks = run.read().config(), tuple(facts.get("marks", ()))
    return Space(folder, method_of(folder, config), roles["audio"], roles["text"], marks, config.get("seed"))


def method_of(folder: Path, config: Mapping[str, Any]) -> str:
    """Return what a run's picture is labelled with: its method."""
    section: Mapping[str, Any] = config.get("turbo", {})
    return str(section.get("method", folder.name))


def geometry(
    folders: Sequence[Path], out: Path, split: str = "test", names: Sequence[str] = (), points: Literal["run", "seed"] = "run"
) -> str:
    """Draw the runs' align-uniform plane and the densities of their audio spaces into a folder, and return their table.

    `names` label the folders (one each) instead of their methods. A point of the plane is a run, or the mean of a seed's runs.
    """
    groups = read_groups(folders, split, names)
    spaces, marks = [space for group in groups.values() for space in group], marks_of(groups)
    measured = {name: [space.measures for space in group] for name, group in groups.items()}
    rows = [[space.group, str(space.folder), *(float(space.measures.get(name, np.nan)) for name in MEASURES)] for space in spaces]
    save_csv(out / "geometry.csv", ("group", "run", *MEASURES), rows, marks)
    densities, angles = densities_figure({name: group[0] for name, group in groups.items()}, marks)
    save_csv(out / "audio-density.csv", ("group", "angle", "density"), angles, marks)
    for name, figure in (("align-uniform", plane_figure(plane_points(groups, points), marks)), ("audio-density", densities)):
        for suffix in (".png", ".pdf"):
            save_figure(figure, out / f"{name}{suffix}")
    table = [
        {"": name, "runs": str(len(found))}
        | {measure: _mean_of([row[measure] for row in found]) for measure in MEASURES if all(measure in row for row in found)}
        for name, found in measured.items()
    ]
    return "\n".join(
        [*([" ".join(marks)] if marks else []), f"alignment and uniformity on {split}: lower is better", render(table)]
    )


def read_groups(folders: Sequence[Path], split: str = "test", names: Sequence[str] = ()) -> dict[str, list[Space]]:
    """Return the spaces of runs by method, or by the name of their folder."""
    groups: dict[str, list[Space]] = {}
    for index, folder in enumerate(folders):
        for run in runs_below([folder]):
            space = read_space(run, split)
            space = replace(space, group=names[index]) if names else space
            groups.setdefault(space.group, []).append(space)
    return groups


def marks_of(groups: Mapping[str, Sequence[Space]]) -> tuple[str, ...]:
    """Return the marks of all runs."""
    return tuple(dict.fromkeys(mark for group in groups.values() for space in group for mark in space.marks))


def plane_points(groups: Mapping[str, Sequence[Space]], points: Literal["run", "seed"]) -> dict[str, list[dict[str, float]]]:
    """Return the points of the plane by group: a run's measures, or the mean of a seed's."""
    return {name: points_of(group) if points == "seed" else [space.measures for space in group] for name, group in groups.items()}


def points_of(spaces: Sequence[Space]) -> list[dict[str, float]]:
    """Return the mean measures of each seed's runs: a training with all its folds."""
    seeds: dict[Any, list[dict[str, float]]] = {}
    for space in spaces:
        seeds.setdefault(space.seed, []).append(space.measures)
    return [{name: float(np.mean([row[name] for row in rows])) for name in rows[0]} for rows in seeds.values()]


def _mean_of(values: Sequence[float]) -> str:
    return spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


def plane_figure(measured: Mapping[str, Sequence[Mapping[str, float]]], marks: Sequence[str]) -> Figure:
    """Return alignment over uniformity: a point for each run (or seed), a colour for each method."""
    figure = new_figure(4.8, 4.2, marked_title("Alignment and uniformity (lower is better)", marks))
    axes = figure.add_subplot()
    for index, (name, rows) in enumerate(measured.items()):
        there = [row for row in rows if "alignment" in row]
        axes.scatter(
            [row["uniformity"] for row in there], [row["alignment"] for row in there], s=42, color=f"C{index}", label=name
        )
    axes.set(xlabel="uniformity (mean of audio and text)", ylabel="alignment")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def directions(values: Tensor) -> NDArray:
    """Return rows on the unit circle: the sphere's points along their two largest axes, each row of length one.

    The axes go through the sphere's centre, not the points' own: around that, a space that has collapsed would look even too.
    """
    rows = on_sphere(values)
    _, _, axes = torch.linalg.svd(rows, full_matrices=False)
    turned = (rows @ axes.T).sum(dim=0, keepdim=True).T < 0  # an axis has no sign of its own
    axes = torch.where(turned, -axes, axes)
    flat = F.pad(rows @ axes[:2].T, (0, max(0, 2 - len(axes))))  # of a single row there is one axis
    return (flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy()


def densities_figure(spaces: Mapping[str, Space], marks: Sequence[str]) -> tuple[Figure, list[list[Any]]]:
    """Return where each method's audio lies: a Gaussian kernel density in the plane, and the share of each direction below.

    The rows beside the figure are the numbers below: group, angle, density.
    """
    figure = new_figure(3.3 * len(spaces) + 0.3, 5.2, marked_title("Distribution of the audio space", marks))
    rows: list[list[Any]] = []
    histograms = []
    for column, (name, space) in enumerate(spaces.items()):
        points = directions(space.audio[:_MOST_ROWS])
        above = figure.add_subplot(2, len(spaces), column + 1)
        _draw_plane_density(above, points)
        above.set_title(name, fontsize=10)
        below = figure.add_subplot(2, len(spaces), len(spaces) + column + 1)
        angles = np.arctan2(points[:, 1], points[:, 0])
        shares, edges = np.histogram(angles, bins=_BINS, range=(-np.pi, np.pi), density=True)
        below.fill_between((edges[1:] + edges[:-1]) / 2, shares, step="mid", alpha=0.7)
        below.set(xlabel="angle", ylabel="density" if column == 0 else "")
        below.grid(alpha=0.3)
        histograms.append(below)
        rows += [[name, float(left), float(share)] for left, share in zip(edges, shares, strict=False)]
    highest = 1.05 * max(row[2] for row in rows)  # one scale, so that methods can be compared
    for below in histograms:
        below.set_ylim(0, highest)
    return figure, rows


def _draw_plane_density(axes: Axes, points: NDArray) -> None:
    # one width for all spaces: one that follows the points' spread would draw a collapsed space as broad as an even one
    grid = np.linspace(-1.4, 1.4, 80)
    across, up = (np.exp(-(((grid - points[:, [side]]) / _WIDTH) ** 2) / 2) for side in (0, 1))  # each (point, grid)
    axes.contourf(grid, grid, up.T @ across, levels=12, cmap="viridis")
    axes.set(aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
