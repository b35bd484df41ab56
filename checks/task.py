"""The contract tests of a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..downstream.labels import LabelsConfig
from ..downstream.validate import prediction_problem, score_problem
from ..training.batches import derive_seed
from .base import Failed, distance
from .trial import Trial, pooled

TOLERANCE = 1e-4  # of an answer, where only the order of sums differs
STEPS, RATE, LOSS_SHARE = 30, 1e-2, 0.9  # the loss falls below this share of where it began


def every_row_has_a_target(trial: Trial) -> None:
    """Every utterance that is selected has a target, and is drawn now and then."""
    expert = trial.expert()
    for row in trial.rows:
        trial.question.reference(trial.vocabulary, trial.question.target(trial.vocabulary, row))
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
    loss, _ = model(trial.task.name, trial.batch())
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
        one, _ = model(trial.task.name, trial.batch())
        other, _ = model(trial.task.name, trial.batch(trial.rows[::-1]))
    if abs(float(one - other)) > TOLERANCE * max(1.0, abs(float(one))):
        raise Failed(
            f"Expected one loss, found {float(one):.5f} and, in reverse order, {float(other):.5f}. Check the axes of loss()."
        )
    if expert.loss_needs == "whole_batch":  # what is compared within a batch may be more in one of twins
        return
    with torch.no_grad():
        twice, _ = model(trial.task.name, trial.batch([*trial.rows, *trial.rows]))
    if abs(float(one - twice)) > TOLERANCE * max(1.0, abs(float(one))):
        raise Failed(
            f"Expected the mean over the utterances from loss(), found {float(one):.5f} and, with each of them twice, "
            f"{float(twice):.5f}. Average instead of adding up."
        )


def mates_are_nothing(trial: Trial) -> None:
    """An utterance's output depends neither on its batch mates nor on the padding."""
    model = trial.model()
    expert = model.expert(trial.task.name)
    with torch.no_grad():
        together = model.output_of(trial.task.name, trial.batch())
        for number, row in enumerate(trial.rows):
            alone = model.output_of(trial.task.name, trial.batch([row]))
            many, one = trial.decided(expert, together), trial.decided(expert, alone)
            refuse_difference(many, one, number, f"'{row.id}' has another output in a batch")


Decided = tuple[tuple[Any, ...], Tensor | None]  # predictions, and their scores if there are any


def refuse_difference(together: Decided, alone: Decided, number: int, what: str) -> None:
    """Refuse a row of an output that differs from the output for that row alone."""
    advice = "Mask what is behind an utterance's end (frames.valid), after every linear layer."
    (many, scores), (one, own) = together, alone
    if scores is not None and own is not None:
        if distance(scores[number], own[0]) > TOLERANCE:
            raise Failed(f"Expected the same scores, found {what} ({distance(scores[number], own[0]):.2g} of them). {advice}")
    elif many[number] != one[0]:
        raise Failed(f"Expected the same output, found {what}: {many[number]!r} and {one[0]!r}. {advice}")


def eval_is_certain(trial: Trial) -> None:
    """Run twice, the expert gives the same output: in eval mode nothing is random."""
    model = trial.model()
    batch = trial.batch()
    with torch.no_grad():
        one, two = (model.output_of(trial.task.name, batch).values for _ in range(2))
    if not torch.equal(one, two):
        raise Failed("Expected one output in eval mode, found two. Use nn.Dropout, or check self.training.")


def one_prediction_each(trial: Trial) -> None:
    """decode() gives what each utterance's prediction is decided from: a score for each class where there are scores."""
    found = trial.outcome(trial.model())
    if len(found.predictions) != len(trial.rows):
        raise Failed(
            f"Expected {len(trial.rows)} predictions, found {len(found.predictions)}. decode() gives one for each utterance."
        )
    problem = prediction_problem(trial.answer, found)
    if problem:
        raise Failed(problem)
    if found.scores is None:
        return
    if not torch.isfinite(found.scores).all():
        raise Failed("Expected finite scores from decode(), found others. Mend decode().")
    expert = trial.expert()
    scores = expert.decode(trial.model().output_of(trial.task.name, trial.batch()))  # here with a gradient
    if not isinstance(scores, Tensor) or scores.requires_grad or scores.device.type != "cpu":
        raise Failed("Expected scores on the host without a gradient, found others. End decode() with .detach().cpu().")


def all_metrics(trial: Trial) -> None:
    """score() gives every metric that the question declares."""
    found = trial.question.score(trial.expert().vocabulary, trial.outcome(trial.model()), trial.tables)
    problem = score_problem(trial.question.metrics, found)
    if problem:
        raise Failed(problem)


def one_window_is_itself(trial: Trial) -> None:
    """A long file's prediction, of one window, is that window's; scores of two equal windows are theirs, in either order."""
    expert, model, kind = trial.expert(), trial.model(), trial.answer
    outcome = trial.outcome(model)
    with torch.no_grad():
        rows = expert.decode(model.output_of(trial.task.name, trial.batch()))
    each = [None] * len(rows) if outcome.scores is None else outcome.scores
    for row, prediction, scores in zip(rows, outcome.predictions, each, strict=True):
        joined, of_file = kind.joined([(2.0, row)])
        if kind.column and (joined != prediction or not alike(of_file, scores)):  # ratings are kept within their scale
            raise Failed(f"Expected {prediction!r} from Answer.average of that one window, found {joined!r}. Mend average().")
        if scores is not None and not alike(kind.joined([(2.0, row), (3.0, row)])[1], of_file):
            raise Failed("Expected the scores of one window from Answer.average of two equal ones, found others. Mend average().")
    if outcome.scores is not None:
        windows = [(1.0, outcome.scores[0]), (3.0, outcome.scores[-1])]
        if not alike(kind.joined(windows)[1], kind.joined(windows[::-1])[1]):
            raise Failed("Expected the same scores from Answer.average of two windows in either order, found others. Use both.")


def tables_keep_predictions(trial: Trial) -> None:
    """A prediction, written into a table and read back, is the same."""
    kind, found = trial.answer, trial.outcome(trial.model())
    for name, values in (("reference", found.references), ("prediction", found.predictions)):
        for value in values:
            row = dict(zip(kind.columns(name), kind.write(value), strict=True))
            again = kind.read(row, name)
            if kind.write(again) != kind.write(value) or not kind.fits(again):
                raise Failed(f"Expected {value!r} back from Answer.read of {row}, found {again!r}. Mend write() or read().")


def alike(found: Tensor | None, expected: Tensor | None) -> bool:
    """Tell whether two sets of scores are the same, or both are not there."""
    if found is None or expected is None:
        return found is expected
    return distance(found, expected) <= TOLERANCE


def state_is_all(trial: Trial) -> None:
    """Weights that are saved and loaded give the same outputs."""
    first, second = trial.model(1), trial.model(2)
    second.load_state_dict(first.state_dict())
    batch = trial.batch()
    with torch.no_grad():
        one, two = (model.output_of(trial.task.name, batch).values for model in (first, second))
    if not torch.allclose(one, two, atol=1e-6):
        raise Failed(
            "Expected the outputs of the weights that were loaded, found others. Make what is drawn in __init__ a buffer."
        )


def means_are_enough(trial: Trial) -> None:
    """Where `pools` says that a mean over time is enough, the output for the mean is the output for all frames."""
    model = trial.model()
    expert = model.expert(trial.task.name)
    if any(expert.pools.get(role) != "mean" for role in expert.roles):
        return
    batch = trial.batch()
    with torch.no_grad():
        whole, mean = (model.output_of(trial.task.name, features).values for features in (batch, pooled(batch)))
    if distance(mean, whole) > TOLERANCE:
        raise Failed(
            f"Expected the same output for the mean frame, found another ({distance(mean, whole):.2g}). Leave `pools` out."
        )


def other_corpora_fit(trial: Trial) -> None:
    """The vocabulary can be adapted to another corpus' labels, and calibrated on dev."""
    adapted, note = trial.question.adapt(trial.vocabulary, LabelsConfig(), trial.corpus)
    if json.loads(json.dumps(adapted)) != adapted or not isinstance(note, str):
        raise Failed("Expected (vocabulary as json, a line that says what was done) from Question.adapt, found others.")
    expert = trial.expert()
    calibrated = trial.question.calibrate(expert.vocabulary, trial.outcome(trial.model()), trial.tables)
    if json.loads(json.dumps(calibrated)) != calibrated:
        raise Failed("Expected a vocabulary as json from Question.calibrate, found that json changes it.")
    if trial.question.placed and not isinstance(calibrated.get(trial.question.placed), float):
        raise Failed(
            f"Expected a number '{trial.question.placed}' (Question.placed) in the vocabulary from Question.calibrate, "
            f"found {calibrated.get(trial.question.placed)!r}. Place it, or leave `placed` out."
        )


def it_trains(trial: Trial) -> None:
    """It can be trained on one batch: in 30 steps the loss falls, and its outputs differ."""
    model = trial.model().train()
    batch = trial.batch()
    optimizer = torch.optim.Adam(model.experts.parameters(), lr=RATE)
    losses = []
    torch.manual_seed(derive_seed("check"))
    for _ in range(STEPS):
        loss, _ = model(trial.task.name, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    if not min(losses[-3:]) < LOSS_SHARE * losses[0]:
        raise Failed(f"Expected a loss that falls from {losses[0]:.4f}, found {losses[-1]:.4f} after {STEPS} steps. See loss().")
    with torch.no_grad():
        outputs = model.eval().output_of(trial.task.name, batch).values
    if len(outputs) > 1 and all(distance(output, outputs[0]) < TOLERANCE for output in outputs[1:]):
        raise Failed("Expected outputs that differ after training, found one for all utterances. Use `frames` in forward().")


CHECKS: Sequence[Callable[[Trial], None]] = (
    every_row_has_a_target,
    vocabulary_is_json,
    gradients_reach_all,
    order_is_nothing,
    mates_are_nothing,
    eval_is_certain,
    one_prediction_each,
    all_metrics,
    one_window_is_itself,
    tables_keep_predictions,
    state_is_all,
    means_are_enough,
    other_corpora_fit,
    it_trains,
)
