"""Layer weights of runs: weights, and weights times the layers' norms, over folds and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import UserError
from ...core.figures import marked_title, new_figure, save_csv, save_figure
from ...core.files import read_json
from ...core.run_folder import RunFolder
from ..table import number, render, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayerWeights:
    """The weighted sums of one or several runs over the same upstream."""

    upstream: str
    marks: tuple[str, ...]
    weights: Mapping[str, np.ndarray]  # task/role -> (run, layer), each row sums to one
    norms: Mapping[str, np.ndarray]  # task/role -> (run, layer), mean L2 norm of the valid frames

    def num_runs(self, key: str) -> int:
        """Return how many runs speak of a weighted sum."""
        return len(self.weights[key])

    def contributions(self, key: str) -> np.ndarray:
        """Return weight times norm, (run, layer), scaled so that each run sums to one."""
        products = self.weights[key] * self.norms[key]
        return products / np.maximum(products.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)


def layer_weights(runs: Sequence[Path], out: Path | None = None) -> str:
    """Write layer-weights.csv, .png and .pdf of the runs (plans are looked through) into `out`; return a small table.

    Without `out` they go to the plots folder of the first run.
    """
    found = read_layer_weights([file for run in runs for file in find_files(run)])
    folder = RunFolder(Path(runs[0])).plots if out is None else Path(out)
    _save_numbers(found, folder / "layer-weights.csv")
    figure = weights_figure(found)
    for suffix in (".png", ".pdf"):
        save_figure(figure, folder / f"layer-weights{suffix}")
    return f"{_table(found)}\nwritten to {folder / 'layer-weights'}.png, .pdf and .csv"


def find_files(run: Path) -> list[Path]:
    """Return the layer_weights.json of a run, or those of all runs below a plan's folder."""
    own = RunFolder(Path(run)).layer_weights
    files = [own] if own.is_file() else sorted(Path(run).rglob(own.name))
    if not files:
        raise UserError(f"Expected {own.name} in '{run}' or in runs below it, found none. Give the folder of a finished run.")
    return files


def read_layer_weights(files: Sequence[Path]) -> LayerWeights:
    """Join the files of several runs; they must speak of the same upstream and as many layers."""
    contents = {file.resolve(): _checked(file) for file in files}  # a run named twice counts once
    upstreams = sorted({str(content["upstream"]) for content in contents.values()})
    if len(upstreams) > 1:
        raise UserError(f"Expected runs of one upstream, found {', '.join(upstreams)}. Draw each with a command of its own.")
    keys = dict.fromkeys(key for content in contents.values() for key in content["layers"])
    rows = {key: [content["layers"][key] for content in contents.values() if key in content["layers"]] for key in keys}
    for key, of_key in [*rows.items()]:
        sizes = sorted({len(row[kind]) for row in of_key for kind in ("weights", "norms")})
        if len(sizes) > 1:
            found = " and ".join(map(str, sizes))
            apart = "Draw such runs apart, or a probe of single layers with --probe."
            raise UserError(f"Expected as many layers in every run for '{key}', found {found}. {apart}")
        if sizes == [1]:  # nothing is summed there
            rows.pop(key)
    if not rows:
        raise no_weights(upstreams[0], RunFolder(next(iter(contents)).parent))
    return LayerWeights(
        upstream=upstreams[0],
        marks=tuple(dict.fromkeys(mark for content in contents.values() for mark in content.get("marks", ()))),
        weights={key: np.array([row["weights"] for row in of_key], dtype=np.float64) for key, of_key in rows.items()},
        norms={key: np.array([row["norms"] for row in of_key], dtype=np.float64) for key, of_key in rows.items()},
    )


def no_weights(upstream: str, run: RunFolder) -> UserError:
    """Return the error about a run that sums no layers, since -l chose one of them or the upstream has no more."""
    sections = run.read().config() if run.config.is_file() else {}
    chosen = (sections.get("upstream") or {}).get("layer")
    if chosen is not None:
        return UserError(
            f"Expected a weighted sum of layers, found layer {chosen} of {upstream} alone (-l {chosen}): there are no weights "
            "to show. Train a run without -l."
        )
    return UserError(
        f"Expected an upstream of several layers, found that {upstream} has one layer: there are no weights to show. "
        "Draw a run of another upstream."
    )


def _checked(file: Path) -> dict[str, Any]:
    content = read_json(file)
    complete = isinstance(content, dict) and "upstream" in content and isinstance(content.get("layers"), dict)
    if complete and not content["layers"]:
        raise UserError(f"Expected a run with a weighted sum of layers, found one without in '{file.parent}'. Draw another run.")
    if not complete or not all({"weights", "norms"} <= set(row) for row in content["layers"].values()):
        raise UserError(f"Expected upstream, and weights and norms of layers in '{file}', found another format. Train again.")
    return content


def over_runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mean over runs by layer and, of several runs, its sample deviation."""
    return values.mean(axis=0), values.std(axis=0, ddof=1) if len(values) > 1 else None


def weight_rows(found: LayerWeights) -> list[dict[str, Any]]:
    """Return a row for each layer of each weighted sum: weight, norm and their product, as means and spreads over runs."""
    kinds = {"weight": found.weights, "norm": found.norms}
    kinds["weight_x_norm"] = {key: found.weights[key] * found.norms[key] for key in found.weights}
    kinds["weight_x_norm_share"] = {key: found.contributions(key) for key in found.weights}
    header = ["upstream", "task", "role", "layer", "runs"]
    header += [f"{kind}_{statistic}" for kind in kinds for statistic in ("mean", "std")]
    rows: list[dict[str, Any]] = []
    for key, weights in found.weights.items():
        task, _, role = key.partition("/")
        statistics = [over_runs(values[key]) for values in kinds.values()]
        for layer in range(weights.shape[1]):
            cells = [
                cell for mean, std in statistics for cell in (float(mean[layer]), None if std is None else float(std[layer]))
            ]
            rows.append(dict(zip(header, [found.upstream, task, role, layer, len(weights), *cells], strict=True)))
    return rows


def _save_numbers(found: LayerWeights, path: Path) -> None:
    rows = weight_rows(found)
    save_csv(path, list(rows[0]), [["" if cell is None else cell for cell in row.values()] for row in rows], found.marks)


def weights_figure(found: LayerWeights) -> Figure:
    """Return a row for each weighted sum: its weights, and these times the norms of the layers."""
    keys = list(found.weights)
    layers = max(weights.shape[1] for weights in found.weights.values())
    width = min(12.0, max(7.5, 0.55 * layers + 1.5))
    title = marked_title(f"Layers of {found.upstream} (0 = input of block 1)", found.marks)
    figure = new_figure(width, 2.6 * len(keys) + 0.6, title)
    for row, key in enumerate(keys):
        for column in range(2):
            axes = figure.add_subplot(len(keys), 2, 2 * row + column + 1)
            draw_panel(axes, found, key, column, f"C{column}")
            axes.set_xlabel("layer" if row == len(keys) - 1 else "")
            axes.set_title(_caption(key, found.num_runs(key)), fontsize=9)
    return figure


def draw_panel(axes: Axes, found: LayerWeights, key: str, panel: int, color: str) -> None:
    """Draw bars by layer: the weights (panel 0) with a line where each one started, or weight times norm (panel 1)."""
    values = (found.weights[key], found.contributions(key))[panel]
    mean, std = over_runs(values)
    layers = np.arange(values.shape[1])
    axes.bar(layers, mean, yerr=std, color=color, width=0.8, error_kw={"elinewidth": 0.9, "capsize": 2})
    axes.set_ylim(bottom=0)
    axes.set_xticks(layers[:: 1 if len(layers) <= 16 else 2])
    axes.set_ylabel(("weight", "weight × norm, sum 1")[panel])
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if panel == 0:
        axes.axhline(1 / values.shape[1], color="black", linewidth=0.7, linestyle=":")


def _caption(key: str, runs: int) -> str:
    return key if runs == 1 else f"{key}, mean ± std of {runs} runs"


def _table(found: LayerWeights) -> str:
    lines = [marked_title(f"layers of {found.upstream} (0 = input of block 1)", found.marks)]
    for key, weights in found.weights.items():
        statistics = {"weight": over_runs(weights), "norm": over_runs(found.norms[key])}
        statistics["weight × norm, sum 1"] = over_runs(found.contributions(key))
        rows = []
        for layer in range(weights.shape[1]):
            cells = {"layer": str(layer)}
            for name, (mean, std) in statistics.items():
                cells[name] = number(mean[layer]) if std is None else spread(mean[layer], std[layer])
            rows.append(cells)
        lines += ["", _caption(key, len(weights)), render(rows)]
    return "\n".join(lines)
