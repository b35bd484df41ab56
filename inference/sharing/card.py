"""The model card of a run: the yaml that the hub reads, and what a person should know before using it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ...core.text import printable, without_folders
from ...downstream.metrics import chance_level, metric_title
from ..export.readme import made_from, prediction_text
from ..trained_run import TrainedRun
from .estimate import Estimate
from .lineage import OWN, Part, Terms

TAGS = {"classes": "audio-classification", "ratings": "audio-classification", "texts": "automatic-speech-recognition"}
TAGS |= {"turns": "voice-activity-detection", "embeddings": "feature-extraction"}
METRICS = {"wa": "accuracy", "acc": "accuracy", "macro_f1": "f1", "ua": "recall"}  # ours -> the hub's; others keep their name
MACRO = {"ua", "macro_f1"}  # means over classes
MEANS = {  # what a short name stands for
    "wa": "the share of utterances that are right",
    "ua": "the mean over classes of the share that is right",
    "wer": "word error rate",
    "cer": "character error rate",
    "per": "phone error rate",
    "eer": "equal error rate",
    "der": "diarization error rate",
}
ABOUT_PEOPLE = {  # tasks whose answers are about a person
    "emotion": "An emotion here is what annotators or actors called it. Do not use it to judge, rank or watch people.",
    "avd": "A rating here is what annotators gave on average. Do not use it to judge, rank or watch people.",
    "sid": "It knows the speakers of its training alone, and names one of them for any voice.",
    "asv": "Its threshold fits the trials of its dev set; it was not tested against recordings or made voices.",
}


@dataclass(frozen=True)
class Facts:
    """What a card is written from."""

    repository: str
    run: TrainedRun
    result: Mapping[str, Any]
    estimates: Sequence[Estimate]
    parts: Sequence[Part]
    terms: Terms
    needed: Sequence[str]  # packages that the folder does not hold
    audit: Mapping[str, Any] | None
    trained_on: int  # utterances; 0: not known

    @property
    def task(self) -> str:
        """The task's name."""
        return self.run.config.only.task

    @property
    def quotable(self) -> bool:
        """Whether the scores mean something: not those of a demo, or of random weights."""
        return not self.run.marks


def card(facts: Facts) -> str:
    """Return the README.md of a repository."""
    head = yaml.safe_dump(metadata(facts), sort_keys=False, allow_unicode=True, width=100)
    parts = [
        f"# {facts.repository.split('/')[1]}",
        *(f"**{mark}: not a result to quote.**" for mark in facts.run.marks),
        f"{prediction_text(facts.run)} A run of Headwater.",
        usage(facts),
        scores(facts),
        trained(facts),
        licences(facts),
        limits(facts),
        audited(facts),
        CHECKED,
    ]
    return f"---\n{head}---\n\n" + "\n\n".join(parts) + "\n"


CHECKED = """## What is in this repository

Tensors (safetensors) and texts (json, yaml): no pickle, no code. `checksums.json` has the sha256 of each file; Headwater checks
them all, and refuses the folder where one differs."""


def metadata(facts: Facts) -> dict[str, Any]:
    """Return the yaml head."""
    named = [part.name for part in facts.parts if part.kind == "corpus" and part.name not in OWN.values()]
    corpora = [*dict.fromkeys(name for name in named if " " not in name)]  # a demo is no data set
    models = [*dict.fromkeys(part.name for part in facts.parts if part.kind == "model" and part.on_hub)]
    tag = "text-classification" if facts.run.roles == ("text",) else TAGS.get(facts.run.answer.kind)
    entries: dict[str, Any] = {
        "library_name": "headwater",
        **facts.terms.head,
        **({"base_model": models if len(models) > 1 else models[0]} if models else {}),
        **({"datasets": corpora} if corpora else {}),
        **({"pipeline_tag": tag} if tag else {}),
        "tags": [*dict.fromkeys(["headwater", "speech", facts.task, *(mark.lower() for mark in facts.run.marks)])],
    }
    if facts.quotable and facts.estimates:
        entries["metrics"] = [*dict.fromkeys(METRICS.get(name, name) for one in facts.estimates for name in one.scores)]
        entries["model-index"] = [
            {"name": facts.repository.split("/")[1], "results": [result_row(facts, one) for one in facts.estimates]}
        ]
    return entries


def result_row(facts: Facts, estimate: Estimate) -> dict[str, Any]:
    """Return a row of model-index: each metric with its interval, in its name and as numbers."""
    corpus = str(facts.result.get("corpus", ""))
    rows = []
    for name, value in estimate.scores.items():
        ends = estimate.intervals.get(name)
        known = f"95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ends else "no interval"
        row = {"type": METRICS.get(name, name), "name": f"{metric_title(name)} ({known})", "value": round(value, 4)}
        args: dict[str, Any] = {"average": "macro"} if name in MACRO else {}
        if ends:
            numbers = [round(end, 4) for end in ends]
            args |= {"interval": numbers, "level": 0.95, "resampled": f"{estimate.groups} {estimate.resampled}s"}
        rows.append({**row, **({"args": args} if args else {})})
    tag = TAGS.get(facts.run.answer.kind, "other")
    dataset = {"name": OWN.get(corpus, corpus), "type": corpus, "split": estimate.split}
    return {"task": {"type": tag, "name": facts.task}, "dataset": dataset, "metrics": rows}


def usage(facts: Facts) -> str:
    """Return how to use it, on the command line and in Python."""
    has_text = "text" in facts.run.roles
    files = "list.csv   # columns audio, text" if has_text else "my.wav"
    words = ', "what is said"' if has_text else ""
    lines = ["## How to use it", "", "```sh", f"headwater predict hf:{facts.repository} {files}"]
    lines += [
        f"headwater downstream -u hf:{facts.repository} -d TASK --data clips.csv   # its upstream, for a task of yours",
        "```",
        "",
    ]
    lines += ["```python", "import headwater", "", f'run = headwater.load_run("hf:{facts.repository}")']
    lines += [f'print(run.predict("my.wav"{words}))', "```", ""]
    lines += [f"The first command prints the commit that it found: `hf:{facts.repository}@COMMIT` stays the same for ever."]
    if facts.needed:
        lines += [f"It needs {' and '.join(facts.needed)} beside Headwater."]
    return "\n".join(lines)


def scores(facts: Facts) -> str:
    """Return the table of scores with their intervals."""
    lines = ["## How well it does", ""]
    if not facts.estimates:
        return "\n".join([*lines, "Not known: nothing was held out, and no run that tested its recipe is at hand."])
    for one in facts.estimates:
        corpus = str(facts.result.get("corpus", ""))
        lines += [f"On {OWN.get(corpus, corpus)}, {one.split} ({one.size}), by {one.about}:", ""]
        lines += ["| metric | score | 95 % interval |", "|---|---|---|"]
        for name, value in one.scores.items():
            ends = one.intervals.get(name)
            lines.append(f"| {explained(name)} | {value:.3f} | {f'{ends[0]:.3f} to {ends[1]:.3f}' if ends else 'none'} |")
        if any(one.intervals.get(name) for name in one.scores):
            lines += [
                "",
                f"Other {one.resampled}s would give another score: 95 in 100 such intervals hold that over all of them.",
            ]
        else:
            lines += ["", f"No interval: {one.groups or 'unknown'} {one.resampled}{'s' * (one.groups != 1)} cannot be resampled."]
        level = chance_level("ua", len(facts.run.answer.classes)) if "ua" in one.scores else None
        lines += [f"Guessing scores {level:.3f} UA."] * (level is not None)
        lines.append("")
    return "\n".join(lines).rstrip()


def explained(metric: str) -> str:
    """Return a metric's name, and what it stands for where that is a word of the field."""
    return metric_title(metric) + (f": {MEANS[metric]}" if metric in MEANS else "")


def trained(facts: Facts) -> str:
    """Return what it was made from, how much it was trained on, and what the run noted about that."""
    lines = [made_from(facts.run, facts.result)]
    lines += [f"\nTrained on {facts.trained_on:,} utterances."] * (facts.trained_on > 0)
    lines += [f"\nThe run noted: {nameless(note)}." for note in facts.result.get("notes", ())]
    return "\n".join(lines)


def nameless(note: str) -> str:
    """Return a note without folders, and without the names of people and files that it gives in brackets."""
    return re.sub(r" \([^()]*\)", "", without_folders(printable(str(note)))).rstrip(".")


def licences(facts: Facts) -> str:
    """Return the licence and the parts that it comes from."""
    name = facts.terms.name if facts.terms.id == "other" else facts.terms.id
    lines = ["## Licence", "", f"`{name}`. {facts.terms.why}", "", "| part | what it is here | its licence |", "|---|---|---|"]
    lines += [f"| {part.name} | {part.how} | {part.licence} |" for part in facts.parts]
    return "\n".join(lines)


def limits(facts: Facts) -> str:
    """Return what it was not tested for."""
    corpus, classes = str(facts.result.get("corpus", "")), facts.run.answer.classes
    lines = [
        f"It was trained and tested on {OWN.get(corpus, corpus)} alone: other rooms, microphones and languages were not tried."
    ]
    if classes:
        lines.append(f"It always answers with one of its {len(classes)} classes, for other sounds too.")
    if facts.estimates and not any(one.intervals.get(name) for one in facts.estimates for name in one.scores):
        lines.append("Too few speakers were tested for an interval: the score may be chance.")
    if facts.result.get("transcripts", {}).get("wer") is not None:
        lines.append("It was trained on transcripts that a recogniser wrote.")
    lines += [ABOUT_PEOPLE[facts.task]] * (facts.task in ABOUT_PEOPLE)
    lines.append("This repository does not list what it was trained on: nothing warns where it is tested on the same recordings.")
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])


def audited(facts: Facts) -> str:
    """Return what an audit found; of recordings and people no names."""
    if facts.audit is None:
        return "## Audit\n\nNot audited (`headwater audit RUN` before `headwater push` puts the result here)."
    lines = ["## Audit", "", f"By `headwater audit`, of {without_folders(printable(str(facts.audit.get('about', ''))))}:", ""]
    findings = facts.audit.get("findings", ())
    for finding in (one for one in findings if one.get("section") == "controls"):
        warns = "**Careful:** " * bool(finding.get("warns"))
        lines.append(f"- {warns}{without_folders(printable(str(finding.get('line', ''))))}")
    rest = [one for one in findings if one.get("section") != "controls"]
    warned = [f"{one.get('section')}: {one.get('name')}" for one in rest if one.get("warns")]
    lines.append(
        f"- Of {len(rest)} further checks (leaks, audio, labels, groups) {len(warned)} warn{'s' * (len(warned) == 1)}" + "."
    )
    lines += [f"  Warned of {', '.join(warned)}."] * bool(warned)
    return "\n".join(lines)
