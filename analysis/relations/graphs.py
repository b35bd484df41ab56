"""The two relation graphs of tasks: who helps whom, and who hurts whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from ...core.figures import marked_title, new_figure, save_figure
from .relations import WIDTHS, Pair, Relations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FORMATS = (".png", ".pdf", ".svg")
POINTS = {"thin": 0.8, "medium": 2.0, "thick": 4.2}  # width of an edge
NODE = 19.0  # points from the middle of a node to its rim
MAX_LETTERS = 8  # of a name inside its node; a longer one stands below
# thin and medium, thick: lighter, since so much of it covers what lies below
GRAPHS = {"improvement: A → B, A helps B": ("#1f5fa8", "#7ba3cf"), "hurt: A → B, A hurts B": ("#b8432f", "#dd9b8d")}


def draw(relations: Relations, path: Path, marks: Sequence[str] | None = None, title: str = "Relations of tasks") -> list[Path]:
    """Draw both graphs side by side into `path`; a PNG gets a PDF beside it, and a PDF a PNG. Return what was written."""
    if path.suffix not in FORMATS:
        raise UserError(f"Expected a picture's name that ends in {', '.join(FORMATS)}, found '{path.name}'. Add one of these.")
    figure = relations_figure(relations, marks, title)
    written = [path] if path.suffix == ".svg" else [path.with_suffix(suffix) for suffix in (".png", ".pdf")]
    for picture in written:
        save_figure(figure, picture)
    return written


def relations_figure(relations: Relations, marks: Sequence[str] | None = None, title: str = "Relations of tasks") -> Figure:
    """Return both graphs side by side."""
    figure = new_figure(11.0, 5.9, marked_title(title, relations.marks if marks is None else marks))
    for place, ((caption, colors), edges) in enumerate(
        zip(GRAPHS.items(), (relations.improvement, relations.hurt), strict=True), 1
    ):
        axes = figure.add_subplot(1, 2, place)
        axes.set_title(f"{caption} ({len(edges)})", fontsize=10)
        draw_graph(axes, relations.tasks, edges, colors)
    draw_legend(figure, dashed=any(not edge.is_certain for edge in (*relations.improvement, *relations.hurt)))
    return figure


def places_of(tasks: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the nodes' places on a circle: the first at the top, the others clockwise."""
    angles = {task: math.pi / 2 - 2 * math.pi * number / len(tasks) for number, task in enumerate(tasks)}
    return {task: (math.cos(angle), math.sin(angle)) for task, angle in angles.items()}


def draw_graph(axes: Axes, tasks: Sequence[str], edges: Sequence[Pair], colors: tuple[str, str]) -> None:
    """Draw one graph: the widest edges first, so that none hides a thinner one."""
    places = places_of(tasks)
    axes.set(xlim=(-1.22, 1.22), ylim=(-1.22, 1.22), aspect="equal")
    axes.axis("off")
    for edge in sorted(edges, key=lambda edge: -POINTS[edge.width]):
        style = {
            "arrowstyle": f"-|>,head_length={0.35 + 0.05 * POINTS[edge.width]},head_width={0.16 + 0.04 * POINTS[edge.width]}",
            "connectionstyle": "arc3,rad=0.13",  # A -> B and B -> A lie side by side
            "shrinkA": NODE,
            "shrinkB": NODE + 1,
            "linewidth": POINTS[edge.width],
            "linestyle": "-" if edge.is_certain else (0, (3, 2)),
            "mutation_scale": 14,
            "color": colors[edge.width == "thick"],
        }
        axes.annotate("", xy=places[edge.target], xytext=places[edge.source], arrowprops=style)
    for task, (x, y) in places.items():
        axes.plot(x, y, "o", markersize=2 * NODE, markerfacecolor="white", markeredgecolor="#333333", zorder=3)
        fits = len(task) <= MAX_LETTERS
        size = min(10.0, 2.8 * NODE / max(len(task), 1)) if fits else 9.0
        below = (0.0, 0.0) if fits else (0.0, -NODE - 7)
        place: dict[str, Any] = {"xytext": below, "textcoords": "offset points", "ha": "center", "va": "center_baseline"}
        axes.annotate(task, (x, y), **place, fontsize=size, zorder=4, parse_math=False)


def draw_legend(figure: Figure, *, dashed: bool) -> None:
    """Say below both graphs what widths mean, and dashes where there are any."""
    from matplotlib.lines import Line2D

    limits = [f"{float(100 * least):g}" for least in WIDTHS.values()]
    ranges = [f"{low} % to below {high} %" for low, high in pairwise(limits)] + [f"{limits[-1]} % and more"]
    lines = [Line2D([], [], color="#555555", linewidth=POINTS[width]) for width in WIDTHS]
    words = [f"{width}: {span}" for width, span in zip(WIDTHS, ranges, strict=True)]
    if dashed:
        lines.append(Line2D([], [], color="#555555", linewidth=1.5, linestyle=(0, (3, 2))))
        words.append("95 % interval includes 0")
    figure.legend(lines, words, loc="outside lower center", ncols=len(lines), fontsize=9, frameon=False)
