"""The headline of a run or plan in each of its tasks: the score, its interval, and what they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.run_folder import RunFolder, counted
from ...downstream.load import list_tasks, load_question
from ...downstream.metrics import chance_level, metric_title
from ..comparison.compare import usual_test
from ..table import interval, number, of_task
from .html import element, paragraph, text
from .sections import Content, Run


@dataclass(frozen=True)
class Headline:
    """The scores of a run or plan in one task on its test."""

    name: str  # of the run or plan
    about: Mapping[str, str]  # task, upstream, corpus, protocol, split
    metric: str  # the one that the task reports
    higher_is_better: bool
    scores: Mapping[str, float | None]  # of every metric
    ends: tuple[float, float] | None  # of the 95 % interval
    interval: str  # as tables show it, or why there is none
    basis: str  # "5 folds, pooled"; "" for one run
    utterances: int
    speakers: int
    drawn: str  # what these are that the interval draws: speaker, or recording where nobody has a name
    seconds: float
    chance: float | None
    marks: tuple[str, ...]

    @property
    def value(self) -> float | None:
        """The score."""
        return self.scores.get(self.metric)

    @property
    def group(self) -> tuple[str, ...]:
        """What another headline must share to stand in one table with this one."""
        return (self.about["task"], self.about["corpus"], self.about["split"], self.metric)


def headlines_of(title: str, folder: Path, runs: Sequence[Run]) -> list[Headline]:
    """Return the headline of each task of a run, or of a plan: there all its predictions count together."""
    rows = RunFolder(folder).runs()
    if rows is None:
        alone = [run for run in runs if run.folder == folder]
        found = [of_run(title, run, content) for run in alone for content in run.chosen.values()]
    else:
        summary = RunFolder(folder).read().result()
        tasks = {name: of_task(summary, name) for name in summary["tasks"]} if "tasks" in summary else {summary["task"]: summary}
        found = [of_plan(title, runs, name, {**summary, **content}, counted(rows)) for name, content in tasks.items()]
    return [headline for headline in found if headline is not None]


def of_run(title: str, run: Run, content: Content) -> Headline | None:
    """Return the headline of a run in one of its tasks; None of a model that was tested on nothing."""
    if not content.get("scores"):
        return None
    split = test_of(content, content["scores"])
    facts = {
        key: (content.get(key) or {}).get(split) for key in ("scores", "intervals", "num_speakers", "resampled", "num_utterances")
    }
    return headline(title, [run], content, split, facts, "")


def of_plan(title: str, runs: Sequence[Run], task: str, content: Content, basis: str) -> Headline | None:
    """Return the headline of a plan in one of its tasks."""
    pooled = {split: found for split, found in (content.get("pooled") or {}).items() if found}
    if not pooled:
        return None
    split = test_of(content, pooled)
    classes = next((run.chosen[task].get("classes") for run in runs if task in run.chosen), None)
    return headline(title, runs, {**content, "task": task, "classes": classes}, split, pooled[split], f"{basis}, pooled")


def test_of(content: Content, splits: Iterable[str]) -> str:
    """Return the split that speaks for a run: its corpus' test, another that is not dev, or dev."""
    found, usual = list(splits), usual_test(str(content.get("corpus", "")))
    return usual if usual in found else next((split for split in found if split != "dev"), found[0])


def headline(title: str, runs: Sequence[Run], content: Content, split: str, facts: Content, basis: str) -> Headline | None:
    """Return the headline from the scores, intervals and counts of a split."""
    scores, directions = facts["scores"], content.get("metrics") or dict.fromkeys(facts["scores"], "higher")
    shown = {metric: value for metric, value in scores.items() if metric in directions}
    if not shown:
        return None
    metric, intervals, speakers = reported(content, shown), facts.get("intervals") or {}, facts.get("num_speakers") or 0
    ends, drawn = intervals.get(metric), facts.get("resampled") or "speaker"
    about = {key: str(content.get(key) or "") for key in ("task", "upstream", "corpus", "protocol")}
    return Headline(
        name=title,
        about={**about, "split": split},
        metric=metric,
        higher_is_better=directions[metric] == "higher",
        scores=shown,
        ends=None if ends is None else (float(ends[0]), float(ends[1])),
        interval=interval(intervals, metric, speakers, split, drawn),
        basis=basis,
        utterances=facts.get("num_utterances") or 0,
        speakers=speakers,
        drawn=drawn,
        seconds=sum(float((run.result.get("environment") or {}).get("seconds") or 0) for run in runs),
        chance=chance_level(metric, len(content.get("classes") or ())),
        marks=tuple(dict.fromkeys(mark for run in runs for mark in run.marks)),
    )


def reported(content: Content, scores: Content) -> str:
    """Return the metric that a task reports; of a task that is not loaded here the one that chose the step."""
    task = str(content.get("task"))
    wanted = load_question(task).primary_metric if task in list_tasks() else str(content.get("select_by"))
    return wanted if wanted in scores else next(iter(scores))


def headline_html(found: Headline, *, small: bool) -> str:
    """Return a headline as the page shows it: the score large, its interval, and what it rests on."""
    within = found.interval if found.ends is not None else ""
    score = element("span", text(f"{metric_title(found.metric)} {number(found.value)}"), class_="score")
    lines = [element("p", score, " ", element("span", text(within), class_="within"), class_="small" if small else "large")]
    why_none = [] if found.ends is not None or not found.interval else [found.interval]
    voices = [f"{found.speakers} {found.drawn}{'s' * (found.speakers != 1)}"] if found.speakers and found.ends else []
    counts = [f"{found.utterances} utterances", *voices] if found.utterances else voices
    rest = [found.about["split"], *counts, *filter(None, [found.basis]), *why_none]
    where = [paragraph(" · ".join(found.about[key] for key in ("task", "upstream", "corpus") if found.about[key]))] * small
    lines += [*where, paragraph(" · ".join(rest), "soft")]
    return element("div", *lines, class_="headline")
