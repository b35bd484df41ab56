"""Several runs or plans side by side: one table, a picture of their intervals, and which one is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.errors import UserError
from ...core.figures import marked_title, new_figure, save_figure
from ...downstream.metrics import metric_title
from ..comparison.compare import Compared, compare
from ..comparison.text import ARROWS, difference_rows, heading, method, sentence
from ..table import number
from .headline import Headline
from .html import element, paragraph, picture, table, text


def side_by_side(headlines: Sequence[Headline], folders: Mapping[str, Path], drawings: Path) -> list[str]:
    """Return the sections that compare: one for each task, corpus, split and metric that several results share."""
    groups: dict[tuple[str, ...], list[Headline]] = {}
    for found in headlines:
        groups.setdefault(found.group, []).append(found)
    body: list[str] = []
    for place, ((task, corpus, split, _), group) in enumerate(groups.items()):
        body.append(element("h2", text(f"{task} on {corpus}, {split}"), id=f"c{place}"))
        rows = sorted(group, key=lambda found: sorting_key(found))
        body.append(element("div", table([row_of(found) for found in rows]), class_="comparison"))
        if len(group) > 1:
            body += [interval_picture(rows, drawings), *verdicts(group, folders)]
    return body


def sorting_key(found: Headline) -> tuple[bool, float]:
    """Return what puts the best first, and those without a score last."""
    value = found.value
    return value is None, 0.0 if value is None else -value if found.higher_is_better else value


def row_of(found: Headline) -> dict[str, object]:
    """Return a line of the table: the score and its interval first, which a narrow screen shows too."""
    arrow = ARROWS["higher" if found.higher_is_better else "lower"]
    others = {metric_title(name): number(value) for name, value in found.scores.items() if name != found.metric}
    return {
        "": found.name,
        f"{metric_title(found.metric)} {arrow}": number(found.value),
        "95 % interval": found.interval if found.ends is not None else found.interval or "none",
        **others,
        "n": found.utterances or "",
        "speakers": found.speakers or "",
        "training seconds": f"{found.seconds:.0f}",
        "upstream": found.about["upstream"],
        "runs": found.basis or "one",
    }


def interval_picture(rows: Sequence[Headline], drawings: Path) -> str:
    """Draw a point and its interval for each result, the best on top."""
    first, scored = rows[0], [found for found in rows if found.value is not None]
    marks = list(dict.fromkeys(mark for found in rows for mark in found.marks))
    title = f"{metric_title(first.metric)} of {first.about['task']} on {first.about['corpus']}, {first.about['split']}"
    figure = new_figure(5.8, 1.3 + 0.36 * len(scored), marked_title(title, marks))
    axes = figure.add_subplot()
    for place, found in enumerate(scored):
        value = float(found.value or 0)
        if found.ends is not None:
            axes.plot(found.ends, [place, place], color="C0", linewidth=2.2, solid_capstyle="butt", alpha=0.55)
        axes.plot([value], [place], marker="o", color="C0", markersize=7)
    if first.chance is not None:
        axes.axvline(first.chance, color="black", linewidth=1, linestyle=":", label="chance")
        axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)  # above: it covers no interval
    axes.set(ylim=(len(scored) - 0.5, -0.5), yticks=range(len(scored)), yticklabels=[found.name for found in scored])
    axes.set_xlabel(f"{metric_title(first.metric)}, 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    path = drawings / "intervals.svg"
    save_figure(figure, path)
    return picture(path, title)


def verdicts(group: Sequence[Headline], folders: Mapping[str, Path]) -> list[str]:
    """Return which of the results is better than the first one named, as `headwater compare` says it."""
    first, *others = [folders[found.name] for found in group]
    task, comparable, refused = group[0].about["task"], [], []
    try:
        return verdict(compare([first, *others], task=task))
    except UserError:
        for other in others:  # leave out those that cannot be compared with the first one
            try:
                compare([first, other], task=task)
            except UserError as problem:
                refused.append(paragraph(f"no comparison: {first_sentence(problem)}", "absent"))
            else:
                comparable.append(other)
    return [*(verdict(compare([first, *comparable], task=task)) if comparable else []), *refused]


def first_sentence(problem: UserError) -> str:
    """Return what was expected and what was found, without the advice."""
    return str(problem).splitlines()[0].partition(". ")[0]


def verdict(compared: Compared) -> list[str]:
    """Return a comparison: a sentence for each, the differences, and how they came about."""
    sentences = [
        paragraph(sentence(compared, one).removeprefix(f"{' '.join(compared.marks)}: "), "verdict")
        for one in compared.comparisons
    ]
    about = [heading(compared).splitlines()[-1], *method(compared).splitlines(), *(f"note: {note}" for note in compared.notes)]
    return [*sentences, table(difference_rows(compared)), *(paragraph(line, "soft") for line in about)]
