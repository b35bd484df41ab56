"""The controls: the same probe on random weights, shuffled labels, duration and loudness, and without the speaker's mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...core.errors import UserError
from ...downstream.base import Outcome
from ...runs.exact import outcome_of_layer
from ...runs.results import group_of
from ...runs.runtime import Runtime
from ..comparison.paired import differences
from .finding import Finding, Scale, within
from .fold import Fold, predictions, random_outcome, split_of_numbers, without_speaker_means
from .probes import SHUFFLES, shuffled_heads
from .sound import Sound

NUMBERS = {"duration": [0], "loudness": [1, 2], "duration and loudness": [0, 1, 2]}  # of Sound.size
SHARE = 0.1  # of what the run is above chance: a control above it is worth a warning
RARE = 0.002  # p below which a control is above chance


@dataclass
class Outcomes:
    """What each control predicts, fold after fold; or why it cannot."""

    found: dict[str, list[Outcome]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, outcome: Outcome) -> None:
        """Keep what a control predicts in one more fold."""
        self.found.setdefault(name, []).append(outcome)


def run_controls(fold: Fold, sounds: Mapping[str, Sound], outcomes: Outcomes, runtime: Runtime) -> None:
    """Add what every control predicts in a fold; random weights come last, since they change the fold."""
    task, tested = fold.task, fold.tested
    single = fold.mixed()
    assert fold.chosen.penalty is not None, "a finished run has chosen its penalty"
    for number in range(SHUFFLES):
        heads = shuffled_heads(single["train"], fold.chosen.penalty, number)
        outcomes.add(f"shuffled {number}", outcome_of_layer(task, task.splits[tested], single[tested], heads))
    names = [*fold.splits]
    for name, columns in NUMBERS.items():
        if not sounds:
            outcomes.left_out[name] = "the run reads no audio"
            continue
        numbers = {key: [sound.size[column] for column in columns] for key, sound in sounds.items()}
        outcomes.add(name, predictions(task, split_of_numbers(task, numbers, names, fold.splits), fold.exact, tested))
    speakers = {name: [group_of(example.utterance) for example in task.splits[name]] for name in names}
    if not all(all(of_split) for of_split in speakers.values()):
        outcomes.left_out["speaker"] = "speakers are not known"
    else:
        outcomes.add("speaker", predictions(task, without_speaker_means(fold.splits, speakers), fold.exact, tested))
    try:
        outcomes.add("random", random_outcome(fold, runtime))
    except UserError as problem:
        outcomes.left_out["random"] = str(problem)


def control_findings(run: Outcome, outcomes: Outcomes, scale: Scale) -> list[Finding]:
    """Return a line for each control, from its predictions over all folds."""
    chance = float(scale.of_chance(run).mean())
    joined = {name: in_order(Outcome.join(parts), run.ids) for name, parts in outcomes.found.items()}
    score = scale.score(run)
    found = [random_finding(run, joined["random"], scale, chance)] if "random" in joined else []
    found.append(shuffled_finding([joined[f"shuffled {number}"] for number in range(SHUFFLES)], scale, chance))
    found += [numbers_finding(name, joined[name], scale, score) for name in NUMBERS if name in joined]
    if "speaker" in joined:
        value = scale.score(joined["speaker"])
        line = f"{share_of(value, score, scale)} without each speaker's mean (chance: {chance:.3f})"
        found.append(Finding("controls", "speaker mean", line, facts={"score": value, "chance": chance}))
    names = {"random": "random weights", "speaker": "each speaker's mean"}
    found += [Finding("controls", name, f"{names.get(name, name)}: left out. {why}") for name, why in outcomes.left_out.items()]
    return found


def share_of(value: float, score: float, scale: Scale) -> str:
    """Return how much of a score is there: `0.41 of the 0.58 UA is there`, of errors how many there are."""
    if scale.sign > 0 and value < score:
        return f"{value:.3f} of the {score:.3f} {scale.title} is there"
    return f"{scale.title} is {value:.3f} (in the run {score:.3f})"


def random_finding(run: Outcome, random: Outcome, scale: Scale, chance: float) -> Finding:
    """Return how much of the score the architecture has without training."""
    value, score = scale.score(random), scale.score(run)
    gap = differences(([random], [run]), scale.speakers, scale.question, scale.vocabulary, scale.tables)[scale.metric]
    better = gap.value * scale.sign > 0 and not (gap.interval is not None and gap.holds_0)
    adds = f"the trained weights add {abs(gap.value):.3f}{within(sorted(gap.interval) if gap.interval else None)}"
    says = adds if better else "that the trained weights add anything cannot be told"
    line = f"{share_of(value, score, scale)} with random weights (chance: {chance:.3f}); {says}"
    facts = {"score": value, "chance": chance, "difference": gap.value, "interval": gap.interval}
    return Finding("controls", "random", line, not better, facts)


def shuffled_finding(outcomes: Sequence[Outcome], scale: Scale, chance: float) -> Finding:
    """Return whether shuffled labels score as chance does: more would be a mistake in the experiment."""
    values = np.array([scale.score(outcome) for outcome in outcomes])
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    above = bool((values.mean() - chance) * scale.sign > 4 * error + 0.005)
    says = "more than chance: something beside the labels leads to them" if above else "chance, as it must be"
    line = (
        f"{scale.title} is {values.mean():.3f} on shuffled labels ({len(values)} times, {values.min():.3f} to {values.max():.3f})"
    )
    facts = {"scores": values.tolist(), "chance": chance}
    return Finding("controls", "shuffled", f"{line}: {says} ({chance:.3f})", above, facts)


def numbers_finding(name: str, outcome: Outcome, scale: Scale, score: float) -> Finding:
    """Return how much of the score a few numbers have that say nothing of the voice."""
    value, drawn = scale.score(outcome), scale.of_chance(outcome, 1000)
    chance = float(drawn.mean())
    p = (1 + int(np.sum(drawn * scale.sign >= value * scale.sign))) / (1 + len(drawn))
    warns = is_shortcut(value, score, chance, p, scale.sign)
    says = f"{share_of(value, score, scale)} with {name} alone"
    line = f"{says}: so much takes no model (chance: {chance:.3f})" if warns else f"{says} (chance: {chance:.3f})"
    return Finding("controls", name, line, warns, {"score": value, "chance": chance, "p": p})


def is_shortcut(value: float, score: float, chance: float, p: float, sign: int) -> bool:
    """Return whether a control is above chance by more than luck, and by a part of the run's score that matters."""
    return p < RARE and (value - chance) * sign > SHARE * max((score - chance) * sign, 0)


def in_order(outcome: Outcome, ids: Sequence[str]) -> Outcome:
    """Return predictions in the order of some ids."""
    places = {name: row for row, name in enumerate(outcome.ids)}
    return outcome.take([places[name] for name in ids])
