"""Audit a finished run or plan: its controls, its leaks, its labels, in one line each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.files import write_json, write_text
from ...core.run_folder import RunFolder
from ...core.text import without_folders
from ...corpus.batch import Example
from ...downstream.base import Outcome
from ...runs.results import damaged_predictions
from ...runs.runtime import Runtime, print_progress
from ..comparison.compare import known_metric, one_seed, same_tables, split_of
from ..comparison.sides import Side, read_side
from ..comparison.theirs import read_theirs
from .controls import Outcomes, control_findings, run_controls
from .finding import Finding, Scale, within
from .fold import read_fold
from .groups import group_findings, their_finding
from .material import (
    audio_findings,
    find_pairs,
    groups_of,
    leak_findings,
    leaks_of,
    noise_finding,
    noise_of,
    read_sounds,
    suspects_csv,
)
from .sound import Sound


def audit(
    folder: Path,
    runtime: Runtime,
    *,
    metric: str | None = None,
    split: str | None = None,
    by: Sequence[str] = (),
    theirs: Path | None = None,
) -> dict[str, Any]:
    """Return what the audit of a run, or of the folds of a plan, finds, and leave it in its folder."""
    side = read_side(folder)
    tested = split_of([side], split)
    seed, places = next(iter(side.seeds.items()))
    outcome, speakers = one_seed(side, seed, tested)
    refuse_lost_rows(places, tested, len(outcome.ids))
    decides = known_metric(metric or side.question.primary_metric, side.question)
    scale = Scale(side.question, side.vocabulary, same_tables([side], tested), decides, speakers)
    given = None if theirs is None else read_theirs(theirs, side, tested, outcome).given  # a mistake in it costs no time
    findings = findings_of(places, tested, outcome, scale, runtime, by)
    if given is not None and theirs is not None:
        findings.append(their_finding(theirs.name, outcome, given, scale))
    content = {
        "about": about(side, tested, outcome, scale),
        "run": str(folder),
        "task": side.task,
        "corpus": side.corpus,
        "upstream": side.upstream,
        "marks": list(side.marks),
        "split": tested,
        "metric": decides,
        "score": scale.score(outcome),
        "interval": scale.interval(outcome),
        "findings": [finding.as_json() for finding in findings],
    }
    run = RunFolder(folder)
    for finding in (one for one in findings if one.name == "noise" and one.warns):
        write_text(run.doubtful_labels, suspects_csv(finding))
    write_json(run.audit, content)
    return content


def refuse_lost_rows(places: Sequence[Path], split: str, found: int) -> None:
    """Refuse predictions of other numbers of utterances than the results beside them count."""
    results = [RunFolder(place).read().result() for place in places if RunFolder(place).result.is_file()]
    counts = [result["num_utterances"].get(split) for result in results if isinstance(result.get("num_utterances"), dict)]
    written = sum(counts) if len(counts) == len(places) and None not in counts else found
    if written != found:
        raise damaged_predictions(RunFolder(places[0]).predictions(split), f"{found} rows, {written} were written")


def findings_of(
    places: Sequence[Path], tested: str, outcome: Outcome, scale: Scale, runtime: Runtime, by: Sequence[str]
) -> list[Finding]:
    """Return every finding about the runs of one plan, or about one run."""
    sounds: dict[str, Sound] = {}
    everything: dict[str, Example] = {}
    folds, outcomes, noise = [], Outcomes(), None
    for number, place in enumerate(places):
        fold = read_fold(place, tested, runtime)
        print_progress(runtime, f"audit     {place}")
        new = [row for row in fold.examples if row.utterance.id not in everything]
        everything |= {row.utterance.id: row for row in new}
        if "audio" in fold.task.source.roles:
            sounds |= read_sounds(new)
        folds.append({name: fold.task.splits[name] for name in fold.splits})
        if not number:
            found = noise_of(fold)
            noise = None if found is None else noise_finding(*found, fold.task.answer.classes)
            reads_text = "text" in fold.task.source.roles
        run_controls(fold, sounds, outcomes, runtime)
    findings = control_findings(outcome, outcomes, scale)
    rows = [*everything.values()]
    pairs = find_pairs(rows, sounds) if sounds else []
    recordings = dict(zip(everything, groups_of(len(rows), pairs), strict=True)) if sounds else {}
    speakers_of = {(row.utterance.speaker, str(row.target)) for row in rows}
    same = len(speakers_of) == len({speaker for speaker, _ in speakers_of}) == len({target for _, target in speakers_of})
    findings += leak_findings(leaks_of(folds, tested, recordings), reads_text=reads_text, labels_are_speakers=same)
    if sounds:
        classes = fold.task.answer.classes
        labels = {name: str(classes[row.target] if classes else row.target) for name, row in everything.items()}
        findings += audio_findings(rows, sounds, pairs, labels)
    findings += [noise] if noise is not None else []
    return findings + group_findings(outcome, everything, scale, by)


def about(side: Side, split: str, outcome: Outcome, scale: Scale) -> str:
    """Return what is audited, and its score."""
    count = len({*scale.speakers})
    voices = f", {count} speaker{'s' * (count != 1)}" if all(scale.speakers) else ""
    marks = f"{' '.join(side.marks)}: " if side.marks else ""
    score = f"{scale.title} {scale.score(outcome):.3f}{within(scale.interval(outcome))}"
    what = f"{without_folders(side.upstream)}: {side.task} on {side.corpus}, {split}"
    return f"{marks}{what}: {len(outcome.ids)} utterances{voices}: {score}"
