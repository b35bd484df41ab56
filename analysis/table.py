"""Tables of results for a terminal, in monospace or markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..downstream.metrics import MIN_SPEAKERS, mean_and_spread
from ..runs.evaluation import task_result
from .columns import render

Result = Mapping[str, Any]  # what result.json of a run or a plan holds


def number(value: float | None) -> str:
    """Return a metric as every table shows it: a fraction with three digits, zero without a sign.

    >>> number(-0.0002)
    '0.000'
    """
    return "-" if value is None else f"{value:z.3f}"


def spread(mean: float, deviation: float | None) -> str:
    """Return a mean with its standard deviation over folds or seeds, where there is one."""
    return number(mean) if deviation is None else f"{number(mean)} ± {number(deviation)}"


def result_table(result: Result, *, markdown: bool = False) -> str:
    """Return one run's scores by split, with intervals or why there is none, and published values beside unmarked ones."""
    splits = list(result["scores"])
    if "trained_on_all" in result:
        return "\n".join([*_heading(result), unscored(result)])
    metrics = list(dict.fromkeys(metric for split in splits for metric in result["scores"][split]))
    rows = []
    for metric in metrics:
        row = {"metric": metric}
        for split in splits:
            row[split] = number(result["scores"][split].get(metric))
            if split != "dev" or splits == ["dev"]:  # dev chose the step: an interval there would promise too much
                count, word = _groups(result, split)
                row[f"95 % interval ({split})"] = interval(result.get("intervals", {}).get(split), metric, count, split, word)
        rows.append(row | _reference_cell(result, metric))
    lines = [*_heading(result), render(rows, markdown=markdown), *(_split_line(result, split) for split in splits)]
    lines += [line for split in splits for line in _detail_lines(result, split)]
    lines += [line for split in splits if split != "dev" for line in _group_lines(result, split, markdown)]
    return "\n".join(line for line in [*lines, *_reference_lines(result)] if line)


def run_tables(result: Result, *, markdown: bool = False) -> str:
    """Return the table of a run or a plan, of several tasks one for each."""
    if "tasks" in result:
        return "\n\n".join(run_tables(of_task(result, name), markdown=markdown) for name in result["tasks"])
    return (summary_table if "runs" in result else result_table)(result, markdown=markdown)


def of_task(result: Result, name: str) -> dict[str, Any]:
    """Return what a joint run's result, or a plan's of such runs, says of one task."""
    if "runs" in result:
        own = {key: value for key, value in result.items() if key != "tasks"} | result["tasks"][name]
        return {**own, "task": name, "runs": [{**row, "scores": row["scores"][name]} for row in result["runs"]]}
    chosen_by = {"gain": "mean gain"}.get(result["select"], "")
    own = {**task_result(result, name), "task": name, "select_by": chosen_by}
    return {**own, "trained_on_all": result["trained_on_all"][name]} if "trained_on_all" in result else own


def group_tables(result: Result) -> list[str]:
    """Return the lines of a run's scores by group alone, of several tasks those of each; without --by there are none."""
    if "tasks" in result:
        tables = {name: group_tables(task_result(result, name)) for name in result["tasks"]}
        return [line for name, lines in tables.items() if lines for line in ("", f"{name}:", *lines[1:])]
    return [line for split in result["scores"] if split != "dev" for line in _group_lines(result, split, markdown=False)]


def unscored(result: Result) -> str:
    """Return the lines of a final model in place of scores."""
    run, steps = result["steps_from"]["run"], result["steps"]
    return (
        f"trained on all {result['trained_on_all']} utterances for {steps} steps, as {run} chose; no score: nothing was held out "
        "(that run's is the estimate). Next: headwater predict, headwater export, or -m evaluate on another corpus."
    )


def summary_table(summary: Result, *, markdown: bool = False) -> str:
    """Return a plan's settings and runs as rows; then each metric's mean ± spread over the runs, beside all pooled, by split."""
    runs = _runs_of(summary, summary["chosen"]) if "sweep" in summary else list(summary["runs"])
    everywhere = [split for split in summary["mean"] if all(split in run["scores"] for run in runs)]
    tables = []
    for split in [split for split in everywhere if split != "dev"] or ["dev"]:
        settings = _sweep_lines(summary, split, markdown)
        if not settings or len(runs) > 1:
            settings += [f"scores on {split}", render(_run_rows(runs, split), markdown=markdown), ""]
        tables += [*settings, render(_mean_rows(summary, runs, split), markdown=markdown), ""]
    return "\n".join([*_heading(summary), *tables[:-1], *_reference_lines(summary)])


def _mean_rows(summary: Result, runs: Sequence[Result], split: str) -> list[dict[str, str]]:
    alone = len(runs) == 1  # its score is the mean and what is pooled: once is enough
    column = split if alone else f"mean ± spread over {_what_varies(runs)}"
    pooled, rows = summary["pooled"].get(split), []
    for metric, values in summary["mean"][split].items():
        row = {"metric": metric, column: spread(values["mean"], values["spread"])}
        if pooled:
            row |= {} if alone else {"pooled": number(pooled["scores"].get(metric))}
            row[f"95 % interval ({split if alone else 'pooled'})"] = interval(
                pooled["intervals"], metric, pooled["num_speakers"], split, pooled.get("resampled", "speaker")
            )
        rows.append(row | _reference_cell(summary, metric))
    return rows


def _runs_of(summary: Result, setting: str) -> list[Result]:
    return [run for run in summary["runs"] if run["setting"] == setting]


def _run_rows(runs: Sequence[Result], split: str) -> list[dict[str, str]]:
    shown = [key for key in ("seed", "fold") if any(run.get(key) is not None for run in runs)]
    return [
        {key: str(run[key]) for key in shown} | {name: number(value) for name, value in run["scores"][split].items()}
        for run in runs
    ]


def _groups(result: Result, split: str) -> tuple[int | None, str]:
    """Return how many speakers a split has, or recordings where these have no names, and which it is."""
    return result.get("num_speakers", {}).get(split), result.get("resampled", {}).get(split, "speaker")


def interval(intervals: Mapping[str, Any] | None, metric: str, count: int | None, split: str, word: str = "speaker") -> str:
    """Return a metric's interval, or the reason why there is none."""
    if not intervals or metric not in intervals:
        return ""
    ends = intervals[metric]
    if ends is not None:
        return f"[{number(ends[0])}, {number(ends[1])}]"
    if not count or count >= MIN_SPEAKERS:
        return "speakers not known: no interval"
    return f"{_counted(f'{split} {word}', count)}: no interval"


def _heading(result: Result) -> list[str]:
    where = [str(result[key]) for key in ("task", "upstream", "corpus", "protocol") if result.get(key)]
    other = result.get("trained_on") not in (None, result["corpus"])
    where += [f"trained on {result['trained_on']}"] if other else []
    where += [f"{key} {result[key]}" for key in ("fold", "seed") if result.get(key) is not None]
    if "exact" in result:
        keep, layers = result["exact"]["keep"], result["exact"].get("layers")  # a run of before does not say how many
        how = "all layers mixed" if keep == "mixture" else f"layer {keep} alone"
        where.append("exact" if layers == 1 else f"exact, {how}")
    elif result.get("best_step") is not None:
        why = f"best dev {result['select_by']}" if result["select_by"] else "the last"
        where.append(f"step {result['best_step']} ({why})")
    return [" ".join(result.get("marks") or ()), " · ".join(where)] if result.get("marks") else [" · ".join(where)]


def _references(result: Result) -> list[Mapping[str, Any]]:
    return [] if result.get("marks") else list(result.get("reference") or ())


def _reference_cell(result: Result, metric: str) -> dict[str, str]:
    values = [number(entry["value"]) for entry in _references(result) if entry["metric"] == metric]
    return {"reference": ", ".join(values)} if _references(result) else {}


def _reference_lines(result: Result) -> list[str]:
    return [f"reference {entry['metric']}: {entry['source']}, protocol {entry['protocol']}" for entry in _references(result)]


def _split_line(result: Result, split: str) -> str:
    counts = result.get("counts", {}).get(split, {})
    total = sum(counts.values()) or result.get("num_utterances", {}).get(split)
    if not total:
        return ""
    groups, word = _groups(result, split)
    voices = f", {_counted(word, groups)}" if groups else ""
    classes = f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""
    return f"{split}: {total} utterances{classes}{voices}"


def _detail_lines(result: Result, split: str) -> list[str]:
    details = result.get("details", {}).get(split)
    words = [f"{name} {_detail(value)}" for name, value in (details or {}).items()]
    return [f"{split}: {', '.join(words)}"] if words else []


def _detail(value: Any) -> str:
    """Return a number, a word, or several by name, as a line holds them."""
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name} {_detail(one)}' for name, one in value.items())})"
    return number(value) if isinstance(value, float) else str(value)


def _group_lines(result: Result, split: str, markdown: bool) -> list[str]:
    """A table for each label that --by names: a row for each of its groups."""
    lines = []
    for name, groups in result.get("by", {}).get(split, {}).items():
        rows = [
            {name: value, "utterances": str(scores["num_utterances"])}
            | {metric: number(score) for metric, score in scores.items() if metric != "num_utterances"}
            for value, scores in groups.items()
        ]
        lines += ["", f"{split} by {name}", render(rows, markdown=markdown)]
    return lines


def _sweep_lines(summary: Result, split: str, markdown: bool) -> list[str]:
    """A row for each setting (of a sweep, or a layer): the dev score that decides, and the means over its runs."""
    if "sweep" not in summary:
        return []
    rows = []
    for setting, dev in summary["sweep"].items():
        row = {"setting": setting, f"dev {summary['select_by']}": number(dev)}
        for metric in summary["mean"].get(split, {}) if split != "dev" else ():
            row[f"{split} {metric}"] = spread(
                *mean_and_spread([run["scores"][split][metric] for run in _runs_of(summary, setting)])
            )
        rows.append(row | {"": "chosen on dev" if setting == summary["chosen"] else ""})
    return [render(rows, markdown=markdown), "", f"{summary['chosen']}:"]


def _what_varies(runs: Sequence[Result]) -> str:
    counts = {key: len({run.get(key) for run in runs}) for key in ("seed", "fold")}
    return " x ".join(_counted(key, count) for key, count in counts.items() if count > 1) or _counted("run", len(runs))


def _counted(word: str, count: int) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
