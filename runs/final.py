"""The final model: trained on all data, for as many steps as an earlier run chose on its dev split; nothing is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from ..core.errors import UserError
from ..core.options import differences, plain
from ..core.run_folder import Row, RunFolder, counted
from ..corpus.base import Corpus, Utterance
from ..downstream.load import load_task
from .config.identity import identity_of
from .config.resolve import resolve
from .config.schema import ExactConfig, RunConfig

# options that say for how long, which the earlier run decides
TRAINED_FOR = {
    "training": ("steps", "patience", "eval_every"),
    "optimizer": ("schedule_steps",),
    "exact": ("penalty", "evenness", "keep", "gain", "each_layer", "together"),
}

TINY = 1e-12  # of an evenness of 0, where a mean of logarithms is formed
CHOSEN_BY = ("seed", "select", "baselines")  # what may differ beside the fold and the metrics that choose


@dataclass(frozen=True)
class EarlierRun:
    """What an earlier run, or the folds of a plan, decided on dev."""

    run: str
    counted: str  # "5 folds", or nothing
    best_steps: tuple[int, ...]
    total: int  # steps that it was given, and at which its schedule ends
    placed: Mapping[str, Mapping[str, float]]  # task -> what dev placed in its vocabulary: a threshold
    upstreams: Mapping[str, str]  # role -> hash of its weights
    solutions: tuple[Mapping[str, Any], ...] = ()  # of solver=exact: what was chosen, in place of steps

    def exact(self, config: ExactConfig) -> ExactConfig:
        """Return the settings of a final model: the folds' geometric means, and what most of them kept."""
        kept = Counter(str(solution["keep"]) for solution in self.solutions)
        most = max(kept, key=lambda name: (kept[name], name == "mixture", name))
        agreeing = [solution for solution in self.solutions if str(solution["keep"]) == most]
        gains = [solution["gain"] for solution in agreeing if "gain" in solution]
        return replace(
            config,
            penalty=geometric_mean([solution["penalty"] for solution in agreeing]),
            evenness=geometric_mean([max(solution["evenness"], TINY) for solution in agreeing]),
            keep=most,
            gain=[sum(column) / len(column) for column in zip(*gains, strict=True)] if gains else None,
            each_layer=False,
            together=False,
        )

    @property
    def steps(self) -> int:
        """For how many steps the final model is trained: the mean of the best ones."""
        return max(1, round(sum(self.best_steps) / len(self.best_steps)))

    def notes(self) -> tuple[str, ...]:
        """Return what a user should know of it."""
        if self.solutions:
            found = self.exact(ExactConfig())
            words = f"penalty {found.penalty:.2g}, {found.keep if found.keep == 'mixture' else f'layer {found.keep}'}"
            return (f"{words}, as {self.run} chose; nothing is held out, so there will be no score",)
        mean = f", the mean best step of its {self.counted} ({', '.join(map(str, self.best_steps))})" if self.counted else ""
        steps = f"{self.steps} steps, as {self.run} chose on dev{mean}; nothing is held out, so there will be no score"
        placed = [item for found in self.placed.values() for item in found.items()]
        return (steps, *(f"{name} {value:.4f}, as {self.run} placed it on dev" for name, value in placed))


def with_steps(config: RunConfig) -> RunConfig:
    """Return a final model's config with the steps that the earlier run chose, at the same rates; the last one is the model."""
    earlier, training, optimizer = earlier_of(config), config.training, config.optimizer
    if config.solver == "exact":
        return replace(config, exact=earlier.exact(config.exact))
    steps = earlier.steps
    logged = min(training.log_every, steps)  # without dev, what is logged of training is all that can be drawn
    training = replace(training, steps=steps, eval_every=steps, patience=None, log_every=logged)
    falls = optimizer.schedule != "constant"
    return replace(config, training=training, optimizer=replace(optimizer, schedule_steps=earlier.total if falls else None))


def earlier_of(config: RunConfig) -> EarlierRun:
    """Return what the run (or plan) that a final model takes its steps from decided; one of other options is refused."""
    place = Path(config.steps_from or "")
    rows, folders = folders_of(place)
    best, vocabularies, total = [], [], 0
    solutions: list[Mapping[str, Any]] = []
    for folder in folders:
        stored = RunFolder(refuse_unfinished(folder)).read()
        there = refuse_other(config, folder)
        found = stored.result("best_step")
        best.append(int(found["best_step"]))
        solutions += [found["exact"]] if "exact" in found else []
        total = there.optimizer.schedule_steps or there.training.steps
        vocabularies.append(stored.vocabulary(*config.tasks))
    questions = {name: load_task(task.task).question(task.expert) for name, task in config.tasks.items()}
    with RunFolder(folders[0]).usable_vocabulary():
        placed = {name: question.mean_placed([found[name] for found in vocabularies]) for name, question in questions.items()}
    weights = RunFolder(folders[0]).read().identity("upstreams")["upstreams"]
    return EarlierRun(str(place), "" if rows is None else counted(rows), tuple(best), total, placed, weights, tuple(solutions))


def folders_of(place: Path) -> tuple[list[Row] | None, list[Path]]:
    """Return the rows of a plan (none of a single run), and the folders of its runs."""
    rows = RunFolder(place).runs()
    return rows, [RunFolder.open(place).path] if rows is None else [place / row["name"] for row in rows]


def refuse_typed(config: RunConfig, typed: Mapping[str, Any]) -> None:
    """Refuse an option that the earlier run decides where the user typed another value: it would be passed over."""
    folder = folders_of(Path(config.steps_from or ""))[1][0]
    there = plain(refuse_other(config, folder))
    for key, now in decided(typed):
        section, name = key.split(".")
        before = there[section][name]
        if now != before:
            raise UserError(
                f"Expected {key} of '{config.steps_from}' ({before}) beside steps_from, found {now}: that run decided for how "
                f"long the final model is trained. Leave {key} out, or train a run with it and name that after steps_from."
            )


def decided(typed: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the options in a mapping that the earlier run decides."""
    for section, names in TRAINED_FOR.items():
        options = typed.get(section)
        if isinstance(options, Mapping):
            yield from ((f"{section}.{name}", options[name]) for name in names if name in options)


def refuse_unfinished(folder: Path) -> Path:
    """Return the folder of a finished run."""
    if not RunFolder(folder).result.is_file():
        raise UserError(
            f"Expected a finished run after steps_from, found that '{folder}' is not. Repeat the command that trains it."
        )
    return folder


def refuse_other(config: RunConfig, folder: Path) -> RunConfig:
    """Return an earlier run's config; steps of one that is another but for its data were enough there, here nobody knows."""
    there = resolve([RunFolder(folder).read().config()])
    if there.is_joint != config.is_joint:
        wanted, found = ("several tasks", "one") if config.is_joint else ("one task", "several")
        advice = "the joint run" if config.is_joint else "a single-task run"
        raise UserError(f"Expected a run of {wanted} after steps_from, found '{folder}', of {found}. Name {advice}.")
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
    return there


def comparable(config: RunConfig) -> dict[str, Any]:
    """Return what two runs must have in common for the steps of one to be right for the other."""
    identity = identity_of(replace(config, split="", steps_from=None))
    sections = identity["tasks"] if config.is_joint else {"": identity}
    for own in sections.values():
        own["corpus"] = {key: value for key, value in own["corpus"].items() if key != "fold"}
        own.pop("select_by")
    for section, names in ((section, names) for section, names in TRAINED_FOR.items() if section in identity):
        identity[section] = {key: value for key, value in identity[section].items() if key not in names}
    return {key: value for key, value in identity.items() if key not in CHOSEN_BY}


def refuse_other_weights(earlier: EarlierRun, weights: Mapping[str, str]) -> None:
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
    ordered = tuple(rows[name] for name in sorted(rows))  # the same whichever fold was named
    return replace(corpus, fold=None, splits={"train": ordered, "dev": ordered})
