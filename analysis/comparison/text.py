"""The text of a comparison: a table, how it was computed, and a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...downstream.metrics import MIN_SPEAKERS, metric_title
from ..table import number, render
from .compare import ALPHA, Compared, Comparison
from .paired import MOST_EXACT, SAME, SWAPS, Difference

ARROWS = {"higher": "↑", "lower": "↓"}
# metrics that are shares: their differences are printed in points, hundredths of them
SHARES = {"wa", "ua", "acc", "accuracy", "visible_accuracy", "macro_f1", "eer", "auc", "far", "frr", "wer", "cer", "per"} | {
    *("wer_beam", "cer_beam")
}


def is_share(metric: str) -> bool:
    """Return whether a metric is a share: so are accuracies of parts of an answer and the diarization error rates."""
    return metric in SHARES or metric.startswith(("acc_", "der", "slot_"))


def compared_text(compared: Compared, *, markdown: bool = False) -> str:
    """Return the table, what it rests on, and a sentence for each comparison at the end."""
    parts = [heading(compared), render(difference_rows(compared), markdown=markdown)]
    lines = [mcnemar_line(compared, one) for one in compared.comparisons if one.discordant is not None]
    lines += [method(compared), *(f"note: {note}" for note in compared.notes)]
    blank = "\n\n" if markdown else "\n"
    sentences = [sentence(compared, comparison) for comparison in compared.comparisons]
    return blank.join([*parts, *lines]) + "\n\n" + blank.join(sentences)


def difference_rows(compared: Compared) -> list[dict[str, str]]:
    """Return the table of differences: of one comparison by metric, of several by run."""
    return rows_by_run(compared) if len(compared.comparisons) > 1 else rows_by_metric(compared)


def heading(compared: Compared) -> str:
    """Return what was compared on what."""
    side = compared.sides[0]
    voices = f", {counted(compared)}" if compared.speakers else ""
    seeds = f" · {compared.seeds} seeds, paired in order" if compared.seeds > 1 else ""
    folds = len(next(iter(side.seeds.values())))
    pooled = f" · {folds} folds, pooled" if folds > 1 else ""
    line = f"{side.question.name} · {side.corpus} · {compared.split}: {compared.utterances} utterances{voices}{pooled}{seeds}"
    return "\n".join([*[" ".join(compared.marks)] * bool(compared.marks), line])


def rows_by_metric(compared: Compared) -> list[dict[str, str]]:
    """Return one comparison: a row for each metric, the one that decides first."""
    (comparison,) = compared.comparisons
    rows = []
    for metric, direction in compared.directions.items():
        found = comparison.differences[metric]
        values = {compared.names[0]: value(found.first), comparison.name: value(found.second)}
        rows.append({"metric": f"{metric} {ARROWS[direction]}", **values, **cells(compared, found)})
    return rows


def rows_by_run(compared: Compared) -> list[dict[str, str]]:
    """Return several comparisons with the first run, in the metric that decides; the others' values stand behind it."""
    metric, others = compared.metric, [name for name in compared.directions if name != compared.metric]
    title = f"{metric} {ARROWS[compared.directions[metric]]}"
    start = compared.comparisons[0].differences
    rows = [{"run": compared.names[0], title: value(start[metric].first)}]
    for comparison in compared.comparisons:
        found = comparison.differences[metric]
        row = {"run": comparison.name, title: value(found.second), **cells(compared, found)}
        rows.append(row | {"p (Holm)": chance(comparison.corrected[metric])})
    columns = {name: f"{name} {ARROWS[compared.directions[name]]}" for name in others}
    rows[0] |= {columns[name]: value(start[name].first) for name in others}
    for row, comparison in zip(rows[1:], compared.comparisons, strict=True):
        row |= {columns[name]: value(comparison.differences[name].second) for name in others}
    titles = dict.fromkeys(name for row in rows[1:] for name in row)
    return [{name: row.get(name, "") for name in titles} for row in rows]


def cells(compared: Compared, found: Difference) -> dict[str, str]:
    """Return a difference with its interval and p."""
    spread = {f"spread over {compared.seeds} seeds": f"± {found.spread:.3f}"} if found.spread is not None else {}
    if found.interval is None:
        interval = ""
    else:
        digits = digits_of(*found.interval)
        interval = f"[{', '.join(signed(end, digits) for end in found.interval)}]"
    gap = "-" if math.isnan(found.value) else signed(found.value, digits_of(found.value))
    return {"difference": gap, **spread, "95 % interval": interval or why_none(compared), "p": chance(found.p)}


def value(score: float) -> str:
    """Return a score as tables show it."""
    return number(None if math.isnan(score) else score)


def signed(number: float, digits: int) -> str:
    """Return a number with its sign; a zero, and what rounding left of one, has none."""
    return f"{number:+.{digits}f}" if abs(number) >= SAME else f"{0:.{digits}f}"


def digits_of(*values: float, least: int = 3) -> int:
    """Return how many digits distinguish every one of the values from 0.

    >>> digits_of(-0.0004, 0.03), digits_of(0.1, 0.0)
    (4, 3)
    """
    there = [abs(number) for number in values if abs(number) >= SAME and not math.isnan(number)]
    return next((digits for digits in range(least, 9) if all(round(number, digits) for number in there)), 9)


def chance(p: float | None) -> str:
    """Return a p-value with as many digits as keep it on its side of 0.05.

    >>> [chance(p) for p in (None, 1.0, 0.0123, 0.0001, 0.0499)]
    ['-', '1.000', '0.012', '< 0.001', '0.0499']
    """
    if p is None:
        return "-"
    if p < 0.001:
        return "< 0.001"
    digits = next((digits for digits in range(3, 9) if (round(p, digits) < ALPHA) == (p < ALPHA)), 9)
    return f"{p:.{digits}f}"


def why_none(compared: Compared) -> str:
    """Return why there is no interval."""
    if not compared.speakers:
        return "speakers not known"
    return f"{counted(compared)}: no interval" if compared.speakers < MIN_SPEAKERS else "not defined"


def counted(compared: Compared) -> str:
    """Return how many speakers the test has, or recordings where nobody has a name."""
    return f"{compared.speakers} {compared.drawn}{'s' * (compared.speakers != 1)}"


def method(compared: Compared) -> str:
    """Return how interval and p came about, and what decides."""
    units, unit = (compared.speakers, compared.drawn) if compared.speakers else (compared.utterances, "utterance")
    lacking = f"it takes {MIN_SPEAKERS} {compared.drawn}s" if compared.speakers else "speakers are not known"
    interval = f"paired bootstrap over {compared.drawn}s" if compared.speakers >= MIN_SPEAKERS else f"none, {lacking}"
    ways = f"all {2**units:,} ways" if units <= MOST_EXACT else f"{SWAPS:,} random ways"
    holm = ", by Holm's correction," if len(compared.comparisons) > 1 else ""
    seeds = "; each draw and swap is of all seeds, whose scores are averaged" if compared.seeds > 1 else ""
    p = f"sides swapped {unit} by {unit} in {ways}{seeds}"
    if not compared.swaps:
        p = f"the level at which that interval ends at 0, since embeddings cannot change sides{seeds.replace(' and swap', '')}"
    return (
        f"difference: against {compared.names[0]}; interval: {interval}; p: {p}\n"
        f"better: where the interval leaves out 0 and p{holm} is below {ALPHA}"
    )


def mcnemar_line(compared: Compared, comparison: Comparison) -> str:
    """Return which predictions are right on one side alone."""
    found = comparison.discordant
    assert found is not None, "only predictions that can be right are counted"
    p, first = f"{'' if found.p < 0.001 else '= '}{chance(found.p)}", compared.names[0]
    return (
        f"McNemar's exact p {p} for {found.metric or 'whole predictions'}: {found.second} right in {comparison.name} alone, "
        f"{found.first} in {first} alone (utterances taken as independent: it decides nothing)"
    )


def sentence(compared: Compared, comparison: Comparison) -> str:
    """Return the verdict in words, in the metric that decides."""
    metric, first, second = compared.metric, compared.names[0], comparison.name
    found, title = comparison.differences[metric], metric_title(metric)
    winner = comparison.winner(metric, compared.directions[metric])
    marks = f"{' '.join(compared.marks)}: " if compared.marks else ""
    if winner:
        better, other = (second, first) if winner > 0 else (first, second)
        assert found.interval is not None, "without an interval nothing is better"
        low, high = sorted(abs(end) for end in found.interval)
        by, low_text, high_text = in_points(metric, abs(found.value), low, high)
        return f"{marks}{better} is better than {other} by {by} {title}, interval {low_text} to {high_text}"
    return f"{marks}{first} and {second} cannot be told apart in {title}: {why_alike(compared, comparison)}"


def why_alike(compared: Compared, comparison: Comparison) -> str:
    """Return why no side is better."""
    metric = compared.metric
    found, p = comparison.differences[metric], comparison.corrected[metric]
    if math.isnan(found.value):
        return "it is not defined on this split"
    if found.interval is None:
        if not compared.speakers:
            return "the speakers are not known, so that there is no interval"
        few = compared.speakers < MIN_SPEAKERS
        return (
            f"{counted(compared)} say too little, an interval takes {MIN_SPEAKERS}" if few else "it is not defined in many draws"
        )
    low, high = found.interval
    half = (high - low) / 2
    if half < SAME:
        return f"they score alike for every {compared.drawn}"
    corrected = "p by Holm's correction" if len(compared.comparisons) > 1 else "p"
    if not found.holds_0 and p is not None:
        return f"the interval leaves out 0, but {corrected} is {chance(p)}"
    if p is not None and p < ALPHA:
        return f"{corrected} is {chance(p)}, but the interval holds 0"
    width = half * (100 if is_share(metric) else 1)
    about = f"{float(f'{width:.2g}'):g}" if width >= 10 else f"{float(f'{width:.1g}'):g}"
    return f"{compared.speakers} {compared.drawn}s resolve about {about} {'points' if is_share(metric) else metric_title(metric)}"


def in_points(metric: str, *values: float) -> Sequence[str]:
    """Return values in points where the metric is a share, in its own unit elsewhere; none but 0 becomes 0."""
    factor, least = (100, 1) if is_share(metric) else (1, 3)
    scaled = [factor * number for number in values]
    return [f"{number:.{digits_of(*scaled, least=least)}f}" for number in scaled]


def as_json(compared: Compared) -> dict[str, Any]:
    """Return all that was found, unrounded."""
    names = [*compared.directions]
    first = compared.comparisons[0].differences
    runs = [
        {
            "name": name,
            "folder": str(side.folder),
            "upstream": side.upstream,
            "protocol": side.protocol,
            "marks": list(side.marks),
            "seeds": [*side.seeds],
            "scores": {key: defined(own[key].second if own else first[key].first) for key in names},
        }
        for name, side, own in zip(
            compared.names, compared.sides, [None, *(one.differences for one in compared.comparisons)], strict=True
        )
    ]
    return {
        "task": compared.sides[0].question.name,
        "corpus": compared.sides[0].corpus,
        "split": compared.split,
        "marks": list(compared.marks),
        "metric": compared.metric,
        "metrics": dict(compared.directions),
        "utterances": compared.utterances,
        "speakers": compared.speakers or None,
        "seeds": compared.seeds,
        "method": method(compared).splitlines(),
        "notes": list(compared.notes),
        "runs": runs,
        "comparisons": [comparison_json(compared, one) for one in compared.comparisons],
    }


def comparison_json(compared: Compared, comparison: Comparison) -> dict[str, Any]:
    """Return one comparison with the first run."""
    found = {
        name: {
            "difference": defined(gap.value),
            "interval": None if gap.interval is None else list(gap.interval),
            "p": gap.p,
            "p_holm": comparison.corrected[name],
            "spread_over_seeds": gap.spread,
            "better": {1: comparison.name, -1: compared.names[0], 0: None}[comparison.winner(name, compared.directions[name])],
        }
        for name, gap in comparison.differences.items()
    }
    pairs = comparison.discordant
    counts = {} if pairs is None else {"right_in_first_alone": pairs.first, "right_in_second_alone": pairs.second}
    mcnemar = None if pairs is None else {"p": pairs.p, "metric": pairs.metric, **counts}
    both = {"first": compared.names[0], "second": comparison.name}
    return {**both, "metrics": found, "mcnemar": mcnemar, "sentence": sentence(compared, comparison)}


def defined(number: float) -> float | None:
    """Return a number as json can hold it."""
    return None if math.isnan(number) else number
