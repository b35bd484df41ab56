"""The contract tests of a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..downstream.answer import fits
from ..downstream.base import Outcome, Output
from ..downstream.labels import LabelsConfig
from ..downstream.validate import unfit_answer, unfit_scores
from ..training.batches import derive_seed
from .base import Failed, distance
from .trial import Trial, pooled

TOLERANCE = 1e-4  # of an answer, where only the order of sums differs
STEPS, RATE, LEARNT = 30, 1e-2, 0.9  # the loss falls below this share of where it began


def every_row_has_a_target(trial: Trial) -> None:
    """Every utterance that is selected has a target, and is drawn now and then."""
    expert = trial.expert()
    for row in trial.rows:
        expert.reference(expert.target(row))
        if not expert.weight(row) > 0:
            raise Failed(
                f"Expected weight() above 0, found {expert.weight(row)} for '{row.id}'. Leave such rows out in Question.select."
            )
        crop = expert.crop(row, torch.Generator().manual_seed(0))
        if crop != expert.crop(row, torch.Generator().manual_seed(0)):
            raise Failed("Expected crop() to draw from its generator alone, found two stretches for one seed. Use no other one.")
        if crop.start < row.start or crop.start + (crop.duration or 0) > row.start + (row.duration or 0) + 1e-6:
            raise Failed(f"Expected a crop inside of the utterance, found {crop.start:g} s + {crop.duration} s. Mend crop().")


def vocabulary_is_json(trial: Trial) -> None:
    """The vocabulary is json, and rebuilds the expert without a corpus."""
    again = json.loads(json.dumps(trial.vocabulary))
    if again != trial.vocabulary:
        raise Failed("Expected a vocabulary of dicts with words as keys, lists, words and numbers, found that json changes it.")
    first, second = (expert.state_dict() for expert in (trial.expert(), trial.expert(vocabulary=again)))
    shapes = [{key: value.shape for key, value in state.items()} for state in (first, second)]
    if shapes[0] != shapes[1]:
        raise Failed("Expected the same weights from the vocabulary read back, found others. Build from the vocabulary alone.")
    kept = trial.expert().vocabulary
    if json.loads(json.dumps(kept)) != kept:
        raise Failed(
            "Expected Expert.vocabulary as json, found that json changes it. Keep the vocabulary that build() was given."
        )


def gradients_reach_all(trial: Trial) -> None:
    """The loss is one finite number, and its gradient reaches every weight of the head."""
    model = trial.model().train()
    expert = model.expert(trial.task.name)
    loss, _ = model(trial.task.name, trial.batch(expert))
    if loss.ndim or not torch.isfinite(loss):
        raise Failed(f"Expected one finite number from loss(), found {loss.detach().tolist()}. Average over the utterances.")
    loss.backward()
    without = [name for name, weight in expert.named_parameters() if weight.requires_grad and weight.grad is None]
    if without:
        raise Failed(
            f"Expected a gradient at all weights, found none at {', '.join(without)}. Use it in forward() or loss(), or drop it."
        )


def order_is_nothing(trial: Trial) -> None:
    """The loss is the same in whatever order the utterances of a batch come, and a mean over them."""
    model = trial.model()
    expert = model.expert(trial.task.name)
    with torch.no_grad():
        one, _ = model(trial.task.name, trial.batch(expert))
        other, _ = model(trial.task.name, trial.batch(expert, trial.rows[::-1]))
    if abs(float(one - other)) > TOLERANCE * max(1.0, abs(float(one))):
        raise Failed(
            f"Expected one loss, found {float(one):.5f} and, in reverse order, {float(other):.5f}. Check the axes of loss()."
        )
    if expert.loss_needs == "whole_batch":  # what is compared within a batch may be more in one of twins
        return
    with torch.no_grad():
        twice, _ = model(trial.task.name, trial.batch(expert, [*trial.rows, *trial.rows]))
    if abs(float(one - twice)) > TOLERANCE * max(1.0, abs(float(one))):
        raise Failed(
            f"Expected the mean over the utterances from loss(), found {float(one):.5f} and, with each of them twice, "
            f"{float(twice):.5f}. Average instead of adding up."
        )


def mates_are_nothing(trial: Trial) -> None:
    """An utterance's answer depends neither on its batch mates nor on the padding."""
    model = trial.model()
    expert = model.expert(trial.task.name)
    with torch.no_grad():
        together = model.answer(trial.task.name, trial.batch(expert))
        for number, row in enumerate(trial.rows):
            alone = model.answer(trial.task.name, trial.batch(expert, [row]))
            refuse_difference(expert.decode, together, number, alone, f"'{row.id}' answered otherwise in a batch")


Decode = Callable[[Output], tuple[tuple[Any, ...], Tensor | None]]


def refuse_difference(decode: Decode, together: Output, number: int, alone: Output, what: str) -> None:
    """Refuse that one row of an answer is another one than the answer to that row alone."""
    advice = "Mask what is behind an utterance's end (frames.valid), after every linear layer."
    (many, scores), (one, own) = decode(together), decode(alone)
    if scores is not None and own is not None:
        if distance(scores[number], own[0]) > TOLERANCE:
            raise Failed(f"Expected the same scores, found {what} ({distance(scores[number], own[0]):.2g} of them). {advice}")
    elif many[number] != one[0]:
        raise Failed(f"Expected the same answer, found {what}: {many[number]!r} and {one[0]!r}. {advice}")


def eval_is_certain(trial: Trial) -> None:
    """Asked twice the expert answers the same: in eval mode nothing is random."""
    model = trial.model()
    batch = trial.batch(model.expert(trial.task.name))
    with torch.no_grad():
        one, two = (model.answer(trial.task.name, batch).values for _ in range(2))
    if not torch.equal(one, two):
        raise Failed("Expected one answer in eval mode, found two. Use nn.Dropout, or ask self.training.")


def one_answer_each(trial: Trial) -> None:
    """decode() gives one prediction for each utterance, and a score for each class where there are scores."""
    found = trial.outcome(trial.model())
    if len(found.predictions) != len(trial.rows):
        raise Failed(
            f"Expected {len(trial.rows)} predictions, found {len(found.predictions)}. decode() gives one for each utterance."
        )
    vocabulary = trial.expert().vocabulary
    problem = unfit_answer(vocabulary, found)
    if problem:
        raise Failed(problem)
    if found.scores is None:
        return
    names = [*vocabulary.get("classes", ()), *vocabulary.get("dimensions", ())]
    if tuple(found.scores.shape) != (len(trial.rows), len(names)) or not torch.isfinite(found.scores).all():
        raise Failed(
            f"Expected finite scores of shape (batch {len(trial.rows)}, class {len(names)}), as vocabulary['classes'] or "
            f"['dimensions'] names them, found {tuple(found.scores.shape)}. Mend decode()."
        )
    refuse_other_decision(trial, vocabulary, found, found.scores)
    expert = trial.expert()
    _, scores = expert.decode(trial.model().answer(trial.task.name, trial.batch(expert)))  # here with a gradient
    if scores is None or scores.requires_grad or scores.device.type != "cpu":
        raise Failed("Expected scores on the host without a gradient, found others. End decode() with .detach().cpu().")


def refuse_other_decision(trial: Trial, vocabulary: Mapping[str, Any], found: Outcome, scores: Tensor) -> None:
    """Refuse that Question.decide, by which the folds of a plan answer together, makes something else of scores than decode()."""
    try:
        decided = tuple(trial.question.decide(vocabulary, scores))
    except (KeyError, IndexError, TypeError, ValueError) as problem:
        raise Failed(
            f"Expected the answers to scores from Question.decide, found {type(problem).__name__}: {problem}. "
            "Give the question one: decide(vocabulary, scores), a tuple of answers."
        ) from problem
    same = decided == found.predictions or ("dimensions" in vocabulary and all(fits(vocabulary, answer) for answer in decided))
    if len(decided) != len(found.predictions) or not same:
        raise Failed(
            f"Expected the answers of decode() from Question.decide(vocabulary, scores) too, found {str(decided)[:60]}. "
            "Let decode() return what it decides."
        )


def all_metrics(trial: Trial) -> None:
    """score() gives every metric that the question declares."""
    question, model = trial.question, trial.model()
    outcome = trial.outcome(model)
    for told, found in (
        ("Expert.score", model.expert(trial.task.name).score(outcome)),
        ("Question.score", question.score(trial.vocabulary, outcome)),
    ):
        problem = unfit_scores(question.metrics, found, told)
        if problem:
            raise Failed(problem)


def one_window_is_itself(trial: Trial) -> None:
    """join() of one window of a long file is what decode() says of it, and of two equal ones too."""
    expert, outcome = trial.expert(), trial.outcome(trial.model())
    ratings = "dimensions" in expert.vocabulary  # join() may keep them within their scale
    for number, answer in enumerate(outcome.predictions):
        scores = None if outcome.scores is None else outcome.scores[number]
        joined, of_file = expert.join([(2.0, answer if scores is None else scores)])
        if not ratings and (joined != answer or not alike(of_file, scores)):
            raise Failed(f"Expected {answer!r} with its scores from join() of that one window, found {joined!r}. Mend join().")
        if scores is not None and not alike(expert.join([(2.0, scores), (3.0, scores)])[1], of_file):
            raise Failed("Expected the scores of one window from join() of two equal ones, found others. Average by seconds.")
    if outcome.scores is not None:
        windows = [(1.0, outcome.scores[0]), (3.0, outcome.scores[-1])]
        if not alike(expert.join(windows)[1], expert.join(windows[::-1])[1]):
            raise Failed("Expected the same scores from join() of two windows in either order, found others. Use all of them.")


def alike(found: Tensor | None, expected: Tensor | None) -> bool:
    """Tell whether two sets of scores are the same, or both are not there."""
    if found is None or expected is None:
        return found is expected
    return distance(found, expected) <= TOLERANCE


def state_is_all(trial: Trial) -> None:
    """Weights that are saved and loaded give the same answers."""
    first, second = trial.model(1), trial.model(2)
    second.load_state_dict(first.state_dict())
    batch = trial.batch(first.expert(trial.task.name))
    with torch.no_grad():
        one, two = (model.answer(trial.task.name, batch).values for model in (first, second))
    if not torch.allclose(one, two, atol=1e-6):
        raise Failed(
            "Expected the answers of the weights that were loaded, found others. Make what is drawn in __init__ a buffer."
        )


def means_are_enough(trial: Trial) -> None:
    """Where `pools` says that a mean over time is enough, the answer to the mean is the answer to all frames."""
    model = trial.model()
    expert = model.expert(trial.task.name)
    if any(expert.pools.get(role) != "mean" for role in expert.roles):
        return
    batch = trial.batch(expert)
    with torch.no_grad():
        whole, mean = (model.answer(trial.task.name, heard).values for heard in (batch, pooled(batch)))
    if distance(mean, whole) > TOLERANCE:
        raise Failed(
            f"Expected the same answer to the mean of the frames, found another ({distance(mean, whole):.2g}). Leave `pools` out."
        )


def other_corpora_fit(trial: Trial) -> None:
    """The vocabulary can be adapted to another corpus' labels, and calibrated on dev."""
    adapted, said = trial.question.adapt(trial.vocabulary, LabelsConfig(), trial.corpus)
    if json.loads(json.dumps(adapted)) != adapted or not isinstance(said, str):
        raise Failed("Expected (vocabulary as json, a line that says what was done) from Question.adapt, found others.")
    model = trial.model()
    expert = model.expert(trial.task.name)
    expert.calibrate(trial.outcome(model))
    if json.loads(json.dumps(expert.vocabulary)) != expert.vocabulary:
        raise Failed("Expected json in Expert.vocabulary after calibrate(), found that json changes it.")


def it_learns(trial: Trial) -> None:
    """It learns one batch: in 30 steps the loss falls, and its answers differ."""
    model = trial.model().train()
    batch = trial.batch(model.expert(trial.task.name))
    optimizer = torch.optim.Adam(model.experts.parameters(), lr=RATE)
    losses = []
    torch.manual_seed(derive_seed("check"))
    for _ in range(STEPS):
        loss, _ = model(trial.task.name, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    if not min(losses[-3:]) < LEARNT * losses[0]:
        raise Failed(f"Expected a loss that falls from {losses[0]:.4f}, found {losses[-1]:.4f} after {STEPS} steps. See loss().")
    with torch.no_grad():
        answers = model.eval().answer(trial.task.name, batch).values
    if len(answers) > 1 and all(distance(answer, answers[0]) < TOLERANCE for answer in answers[1:]):
        raise Failed("Expected answers that differ after training, found one for all utterances. Use `frames` in forward().")


CHECKS: Sequence[Callable[[Trial], None]] = (
    every_row_has_a_target,
    vocabulary_is_json,
    gradients_reach_all,
    order_is_nothing,
    mates_are_nothing,
    eval_is_certain,
    one_answer_each,
    all_metrics,
    one_window_is_itself,
    state_is_all,
    means_are_enough,
    other_corpora_fit,
    it_learns,
)
