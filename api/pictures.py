"""Pictures as figures: those that `headwater plot` and a run write, made by the same code; nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..analysis.geometry import densities_figure, marks_of, plane_figure, plane_points, read_groups
from ..analysis.layers.curve import read_curves
from ..analysis.layers.picture import curves_figure as layers_figure
from ..analysis.layers.picture import is_exact, raw_weights
from ..analysis.layers.weights import find_files, read_layer_weights, weights_figure
from ..analysis.relations.graphs import relations_figure
from ..analysis.relations.relations import from_json, relations_of
from ..analysis.relations.table import read_table
from ..analysis.results import tasks_in
from ..core.errors import UserError
from ..core.figures import tidied
from ..core.files import read_json
from ..core.run_folder import RunFolder
from ..runs.pictures import chance_levels, confusion_figure, curves_figure, read_points, run_title
from .run import AnyRun, Run, one_at_least

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_layers(*runs: AnyRun, metric: str = "") -> Figure:
    """Return what the layers of runs are worth: with solver=exact the score of each alone above the mixture, else their weights.

    Several runs are folds or seeds of one; a run with solver=adam beside one with solver=exact adds its weights.

    >>> plot_layers("result/downstream/my_run").savefig("layers.png")  # doctest: +SKIP
    """
    places = one_at_least(runs)
    exact = [place for place in places if is_exact(place)]
    others = [place for place in places if place not in exact]
    if exact:
        curves = read_curves(exact, metric)
        return tidied(layers_figure(curves, raw_weights(curves, others) if others else None))
    if metric:
        raise UserError(f"Expected no metric for weights of layers, found '{metric}'. Leave it out, or train with solver=exact.")
    return tidied(weights_figure(read_layer_weights([file for place in places for file in find_files(place)])))


def plot_curves(run: AnyRun) -> Figure:
    """Return the loss and every metric of a run over its steps, with the step that was chosen, and what guessing scores.

    >>> plot_curves("result/downstream/my_run")  # doctest: +SKIP
    """
    there = RunFolder(Path(run).expanduser())
    result = one_run(there)
    if "exact" in result:
        raise UserError(f"Expected a run that is trained by steps in '{there.path}', found one of solver=exact. See plot_layers.")
    contents = tasks_in(result)
    corpora = ", ".join(dict.fromkeys(str(content.get("corpus", "")) for content in contents.values()))
    title = run_title("Learning curves", " + ".join(contents), str(result["upstream"]), corpora)
    chosen, chance = result.get("best_step"), chance_levels(contents)
    points = read_points(there.metrics)
    return tidied(curves_figure(points, title=title, chosen=chosen, chance=chance, marks=result["marks"]))


def plot_confusion(run: AnyRun, split: str = "test", task: str = "") -> Figure:
    """Return which class was taken for which, on a split of a run or of all runs of a plan together.

    >>> plot_confusion("result/downstream/my_run", split="dev")  # doctest: +SKIP
    """
    result = Run(run)
    contents = tasks_in(result)
    name = task or next(iter(contents))
    if name not in contents:
        raise UserError(f"Expected a task of the run ({', '.join(contents)}), found '{task}'. Name one of them.")
    content, pooled = contents[name], contents[name].get("pooled", {}).get(split, {})
    counts = pooled.get("confusion") or content.get("confusion", {}).get(split)
    if counts is None:
        there = ", ".join(
            content.get("confusion") or [key for key, one in content.get("pooled", {}).items() if "confusion" in one]
        )
        raise UserError(f"Expected a confusion of split '{split}' in '{result.folder}', found {there or 'none'}.")
    scores: Mapping[str, Any] = pooled.get("scores") or content["scores"][split]
    metric = str(content["select_by"])
    title = run_title(f"Confusion, {split}", name, str(result["upstream"]), str(content["corpus"]), metric, scores.get(metric))
    return tidied(confusion_figure(counts, pooled.get("classes") or content["classes"], title=title, marks=result["marks"]))


def plot_relations(plan: str | PathLike[str]) -> Figure:
    """Return which task helps which, as two graphs: of a plan of joint runs, its relations.json, or a csv of one's own.

    >>> plot_relations(headwater.mtl(["ks", "sid"], "hubert_mini", demo=True, scenario="relations"))  # doctest: +SKIP
    """
    place = Path(plan).expanduser()
    if place.suffix == ".csv":
        return tidied(relations_figure(relations_of(read_table(place))))
    path = place / "relations.json" if place.is_dir() else place
    if not path.is_file():
        advice = "Train all tasks together and without each: scenario='relations' (or 'paper')."
        raise UserError(f"Expected the relations of joint runs in '{place}', found none. {advice}")
    return tidied(relations_figure(from_json(read_json(path), path)))


def plot_geometry(
    *runs: AnyRun,
    kind: Literal["plane", "density"] = "plane",
    split: str = "test",
    names: Sequence[str] = (),
    points: Literal["run", "seed"] = "run",
) -> Figure:
    """Return where the audio and text of Turbo runs lie: alignment over uniformity, or the density of each audio space.

    `names` label the runs (one each) instead of their methods; of the plane a point is a run, or the mean of a seed's folds.

    >>> plot_geometry("result/downstream/vanilla", "result/downstream/turbo", kind="density")  # doctest: +SKIP
    """
    if names and len(names) != len(runs):
        raise UserError(f"Expected a name for each of {len(runs)} runs, found {len(names)}. Name all of them, or none.")
    groups = read_groups(one_at_least(runs), split, names)
    if kind == "plane":
        return tidied(plane_figure(plane_points(groups, points), marks_of(groups)))
    if kind != "density":
        raise UserError(f"Expected kind='plane' or 'density', found '{kind}'. Write one of these.")
    return tidied(densities_figure({name: group[0] for name, group in groups.items()}, marks_of(groups))[0])


def one_run(there: RunFolder) -> dict[str, Any]:
    """Return the result of a single finished run."""
    if there.runs() is not None:
        first = there.runs() or [{"name": "…"}]
        raise UserError(f"Expected one run, found the plan '{there.path}'. Name one of its runs: {there.path / first[0]['name']}")
    return dict(Run(there.path))
