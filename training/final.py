"""The final model: trained on all data, for as many steps as an earlier run chose on its dev split; nothing is held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..corpus.base import Corpus, Utterance
from ..errors import UserError
from .checkpoint import read_json, run_folder
from .config import RunConfig, identity_of, read_yaml, resolve
from .plan_runs import PLACED, counted, mean_placed, runs_of_plan
from .strict import differences

TRAINED_FOR = ("steps", "patience", "eval_every")  # options of training that say for how long, which the earlier run decides


@dataclass(frozen=True)
class Earlier:
    """What an earlier run, or the folds of a plan, decided on dev."""

    run: str
    said: str  # "5 folds", or nothing
    best_steps: tuple[int, ...]
    placed: float | None  # a threshold
    upstreams: Mapping[str, str]  # role -> hash of its weights

    @property
    def steps(self) -> int:
        """For how many steps the final model is trained: the mean of the best ones."""
        return max(1, round(sum(self.best_steps) / len(self.best_steps)))

    def notes(self) -> tuple[str, ...]:
        """Return what a user should know of it."""
        mean = f", the mean best step of its {self.said} ({', '.join(map(str, self.best_steps))})" if self.said else ""
        steps = f"{self.steps} steps, as {self.run} chose on dev{mean}; nothing is held out, so there will be no score"
        placed = () if self.placed is None else (f"{PLACED} {self.placed:.4f}, as {self.run} placed it on dev",)
        return (steps, *placed)


def with_steps(config: RunConfig) -> RunConfig:
    """Return a final model's config with the steps that the earlier run chose; the last one is the model."""
    steps, told = earlier_of(config).steps, config.training
    logged = min(told.log_every, steps)  # without dev, what is logged of training is all that can be drawn
    return replace(config, training=replace(told, steps=steps, eval_every=steps, patience=None, log_every=logged))


def earlier_of(config: RunConfig) -> Earlier:
    """Return what the run (or plan) that a final model takes its steps from decided; one of other options is refused."""
    place = Path(config.steps_from or "")
    rows = runs_of_plan(place)
    folders = [run_folder(place)] if rows is None else [place / row["name"] for row in rows]
    best, vocabularies = [], []
    for folder in folders:
        result = read_json(refuse_unfinished(folder) / "result.json", ("best_step", "select_by"))
        refuse_other(config, folder)
        best.append(int(result["best_step"]))
        vocabularies.append(read_json(folder / "vocabulary.json", (config.task,))[config.task])
    placed = mean_placed(vocabularies) if PLACED in vocabularies[0] else None
    weights = read_json(folders[0] / "identity.json", ("upstreams",))["upstreams"]
    return Earlier(str(place), "" if rows is None else counted(rows), tuple(best), placed, weights)


def refuse_unfinished(folder: Path) -> Path:
    """Return the folder of a finished run."""
    if not (folder / "result.json").is_file():
        raise UserError(
            f"Expected a finished run after steps_from, found that '{folder}' is not. Repeat the command that trains it."
        )
    return folder


def refuse_other(config: RunConfig, folder: Path) -> None:
    """Refuse steps of a run that is another but for its data: there they were enough, here nobody knows."""
    mapping = read_yaml(folder / "config.yaml")
    if "tasks" in mapping:
        raise UserError(f"Expected a run of one task after steps_from, found '{folder}', of several. Name a single-task run.")
    there = resolve([mapping])
    if there.split:
        raise UserError(
            f"Expected a run that chose its best step on dev after steps_from, found the final model '{folder}'. "
            f"Name the run that it took its own from: {there.steps_from}"
        )
    lines = differences(comparable(there), comparable(config))
    if lines:
        raise UserError(
            f"Expected steps_from a run with these options, found in '{folder}' (there -> now): {'; '.join(lines[:8])}. "
            "Give both the same options, or name another run."
        )


def comparable(config: RunConfig) -> dict[str, Any]:
    """Return what two runs must have in common for the steps of one to be right for the other."""
    identity = identity_of(replace(config, split="", steps_from=None))
    identity["corpus"] = {key: value for key, value in identity["corpus"].items() if key != "fold"}
    identity["training"] = {key: value for key, value in identity["training"].items() if key not in TRAINED_FOR}
    return {key: value for key, value in identity.items() if key not in ("seed", "select_by")}


def refuse_other_weights(earlier: Earlier, weights: Mapping[str, str]) -> None:
    """Refuse an upstream that has the earlier one's name, but not its weights."""
    other = [role for role, found in weights.items() if earlier.upstreams.get(role) != found]
    if other:
        raise UserError(
            f"Expected the upstream of '{earlier.run}', which the steps come from, found other weights ({', '.join(other)}). "
            "Name the same ones, or train that run with these."
        )


def everything(corpus: Corpus) -> Corpus:
    """Return a corpus that is all one split: what every class, count and threshold is made of."""
    rows: dict[str, Utterance] = {}
    for split in corpus.splits.values():
        rows |= {row.id: row for row in split if row.id not in rows}
    told = tuple(rows[name] for name in sorted(rows))  # the same whichever fold was named
    return replace(corpus, fold=None, splits={"train": told, "dev": told})
