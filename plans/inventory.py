"""Inventory of a paper's folder: the runs of its recipe, and others."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder
from ..downstream.load import load_task
from ..runs.config.identity import identity_of
from ..runs.config.schema import RunConfig, roles_of
from .execute import PART, STAGE, Part, Result, at_hand, refuse_foreign
from .paper import PaperPlan

Twin = Callable[[Path, Path], str]  # what two folders do not have in common; "": all is alike


@dataclass(frozen=True)
class Inventory:
    """The runs of a plan that are there, by name."""

    folder: Path
    results: Mapping[str, Result]  # of the finished runs of the recipe
    foreign: Mapping[str, str]  # another run stands there: why


def find_runs(plan: PaperPlan, folder: Path) -> Inventory:
    """Return the runs with the recipe's options, from the recipe's starts, and on one corpus; and why others do not count."""
    results: dict[str, Result] = {}
    foreign: dict[str, str] = {}
    for run in (run for runs in plan.runs.values() for run in runs):  # those that others start from come first
        try:
            refuse_foreign(run, folder)
            if RunFolder(folder / run.name).is_finished:
                results[run.name] = at_hand(run, folder)
        except UserError as problem:
            foreign[run.name] = str(problem)
    for name, reason in mixed(plan, folder, results).items():
        results.pop(name)
        foreign[name] = reason
    for run in (run for runs in plan.runs.values() for run in runs if run.name in results):
        lost = next((start for start in run.needs.values() if start not in results), None)
        if lost is not None:
            results.pop(run.name)
            if lost in foreign:
                foreign[run.name] = f"'{run.name}' starts from '{lost}': {foreign[lost]}"
    return Inventory(folder, results, foreign)


def mixed(plan: PaperPlan, folder: Path, results: Mapping[str, Result]) -> dict[str, str]:
    """Return the finished runs on another corpus or upstream than those before them, with the reason."""
    first: dict[str, str] = {}  # what must be alike -> the first run that has it
    wrong: dict[str, str] = {}
    for part, runs in plan.runs.items():
        for run in (run for run in runs if run.name in results):
            for key, unlike in comparisons(plan, part, run):
                other = first.setdefault(key, run.name)
                found = "" if other == run.name else unlike(folder / other, folder / run.name)
                if found and run.name not in wrong:
                    wrong[run.name] = (
                        f"Expected '{run.name}' and '{other}' to be comparable, found {found}. "
                        "Remove the one that is wrong, or choose another folder with -p."
                    )
    return wrong


def comparisons(plan: PaperPlan, part: str, run: Part) -> list[tuple[str, Twin]]:
    """Return what a run must have in common with others: by a key that these share, how two of them are compared."""
    config = run.config
    corpus = corpus_key(config, plan.corpus_names[part])
    read = bool(config.text_upstream.name)
    exact = [corpus, [*roles_of(config)], read and config.only.corpus.transcripts]
    found: list[tuple[str, Twin]] = [(_key("answers", corpus), other_references)]
    if not load_task(config.only.task).question(config.only.expert).writes:  # what such a run can train on depends on its frames
        found.append((_key("corpus", exact), other_corpus))
    if not any(section.name.startswith((PART, STAGE)) for section in roles_of(config).values()):
        found.append((_key("upstreams", [part, run.stage]), other_upstreams))
    return found


def corpus_key(config: RunConfig, word: str) -> list[Any]:
    """Return what decides which utterances a run is tested on, but for where they lie."""
    identity, question = identity_of(config), load_task(config.only.task).question(config.only.expert)
    corpus = {key: value for key, value in identity["corpus"].items() if key not in ("transcripts", "missing_text")}
    left_out = bool(config.text_upstream.name) and config.only.corpus.missing_text == "drop"
    return [word, corpus, question.name, identity["labels"], [*question.metrics], left_out]


def _key(kind: str, value: Any) -> str:
    return json.dumps([kind, value], sort_keys=True, default=str)


def other_corpus(here: Path, there: Path) -> str:
    """Return what is different in the corpora of two runs with the same inputs."""
    known = [RunFolder(place).read().identity("corpus")["corpus"] for place in (here, there)]
    return "" if known[0] == known[1] else "two corpora (other utterances, cuts or labels, under the same name)"


def other_upstreams(here: Path, there: Path) -> str:
    """Return which upstreams of two runs of a part have other weights."""
    one, other = (RunFolder(place).read().identity("upstreams")["upstreams"] for place in (here, there))
    roles = [role for role in one if one[role] != other.get(role)]
    return f"other weights of the {' and '.join(roles)} upstream" if roles else ""


def other_references(here: Path, there: Path) -> str:
    """Return on which split two runs were tested on other utterances or references."""
    for split in RunFolder(here).splits():
        path, twin = (RunFolder(place).predictions(split) for place in (here, there))
        if twin.is_file():
            one, other = tested_utterances(path), tested_utterances(twin)
            if one != other:
                shared = len(one.items() & other.items())
                return f"{shared} utterances in common of {len(one)} and {len(other)} in split '{split}'"
    return ""


def tested_utterances(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the utterances of a split by id, each with its start and references."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        columns = [name for name in rows.fieldnames or () if name == "start" or name.startswith("reference")]
        return {row["id"]: tuple(row[name] for name in columns) for row in rows}
