"""Intent classification: slots, their loss, score and answers, solved and trained, equal to s3prl's head."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import headwater
from headwater.__main__ import dispatch as main
from headwater.core.errors import UserError
from headwater.core.files import read_json
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch
from headwater.downstream.base import Outcome, Output
from headwater.downstream.ic.answer import Slots
from headwater.downstream.ic.expert import TASK, IcConfig
from headwater.downstream.ic.question import question_of
from headwater.downstream.labels import LabelsConfig
from headwater.runs.config.recipes import task_default
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.training.exact.losses import Choices, Multinomial, loss_of
from headwater.training.exact.mixture import Problem
from headwater.upstream.base import UpstreamSpec

SPECS = {"audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)}
VOCABULARY = {"slots": {"action": ["off", "on"], "place": ["hall", "kitchen", "none"]}}
OPTIONS = IcConfig(slots=["action", "place"])
QUESTION = question_of(OPTIONS.slots)
ANSWER = Slots({slot: tuple(values) for slot, values in VOCABULARY["slots"].items()})


def corpus_of(**splits: list[dict[str, str]]) -> Corpus:
    return Corpus(
        "mine",
        "split",
        None,
        {
            split: tuple(Utterance(f"{split}{number}", "x.wav", labels=labels) for number, labels in enumerate(rows))
            for split, rows in splits.items()
        },
    )


def test_values_are_those_of_training_and_an_empty_slot_is_none() -> None:
    train = [{"action": "on", "place": "kitchen"}, {"action": "off"}, {"action": "on", "place": "hall"}]
    corpus = corpus_of(train=train, dev=[{"action": "on", "place": "attic"}])
    assert QUESTION.make_vocabulary(OPTIONS, LabelsConfig(), corpus) == VOCABULARY
    assert QUESTION.target(VOCABULARY, corpus.splits["train"][1]) == ("off", "none")


@pytest.mark.parametrize(
    ("slots", "train", "labels", "message"),
    [
        (["action", "where"], [{"action": "on"}], {}, r"Expected a column 'where' in mine, found action\. Say which"),
        (["action"], [{"action": "on"}, {"action": "on"}], {}, "Expected at least two values of slot 'action' .* only on"),
        (["action", "action"], [{"action": "on"}], {}, "Expected ic.slots to name each slot once"),
        ([], [{"action": "on"}], {}, "Expected ic.slots to name each slot once"),
        (["action"], [{"action": "on"}], {"keep": ["on"]}, "Expected no labels.keep for ic"),
        (["action"], [], {}, "Expected utterances in split 'train' of mine, found none"),
    ],
)
def test_slots_that_cannot_be_trained_are_refused(
    slots: list[str], train: list[dict[str, str]], labels: dict[str, Any], message: str
) -> None:
    corpus = corpus_of(train=train, dev=[{"action": "on"}])
    with pytest.raises(UserError, match=message):
        QUESTION.make_vocabulary(IcConfig(slots=slots), LabelsConfig(**labels), corpus)


def test_the_loss_is_the_sum_of_the_slots_and_a_value_unseen_in_training_costs_nothing() -> None:
    expert = TASK.build(OPTIONS, VOCABULARY, SPECS)
    values = torch.randn(2, 5)
    batch = Batch(None, (), ("a", "b"), targets=(("on", "none"), ("off", "attic")))
    expected = F.cross_entropy(values[:, :2], torch.tensor([1, 0]), reduction="sum") + F.cross_entropy(
        values[:1, 2:], torch.tensor([2]), reduction="sum"
    )
    assert expert.loss(Output(values), batch).item() == pytest.approx(expected.item() / 2)
    assert expert.decode(Output(values)).sum(dim=1).tolist() == pytest.approx([2, 2])


def test_it_is_right_where_all_slots_are() -> None:
    references = (("on", "hall"), ("off", "attic"), ("on", "none"), ("off", "none"))
    predictions = (("on", "hall"), ("off", "hall"), ("off", "none"), ("off", "none"))
    outcome = Outcome(("1", "2", "3", "4"), predictions, references)
    assert QUESTION.score(VOCABULARY, outcome, {}) == {"acc": 0.5, "acc_action": 0.75, "acc_place": 0.75}
    assert QUESTION.details(VOCABULARY, outcome) == {"values unseen in training": "place=attic (1)"}


def test_answers_are_decided_written_and_read() -> None:
    scores = torch.tensor([[0.4, 0.6, 0.1, 0.2, 0.7]])
    assert ANSWER.decide(scores) == (("on", "none"),)
    assert ANSWER.columns("prediction") == ["prediction_action", "prediction_place"]
    row = dict(zip(ANSWER.columns("prediction"), ANSWER.write(("on", "none")), strict=True))
    assert ANSWER.read(row, "prediction") == ("on", "none")
    assert ANSWER.fits(("on", "none"))
    assert not ANSWER.fits("on")
    assert ANSWER.graph().facts["places"] == {"action": [0, 2], "place": [2, 5]}
    assert "- `place`: `hall`, `kitchen`, `none`" in ANSWER.describe()


def test_solved_choices_equal_one_problem_for_each() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = torch.randn(1, 60, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (60, 2), generator=generator)
    targets[:20, 1] = -1  # a value that training had not
    weights = torch.full((60,), 1 / 60, dtype=torch.float64)
    both = Problem.of({"audio": [layer]}, Choices(targets, weights, (3, 3)), torch.float64)
    found = both.solve([0.1], [0.0], tolerance=1e-10).outputs({"audio": [layer]})[0]
    for choice, outputs in enumerate(found.split(3, dim=1)):
        loss = Multinomial(targets[:, choice].clamp(min=0), weights * (targets[:, choice] >= 0), 3)
        alone = Problem.of({"audio": [layer]}, loss, torch.float64).solve([0.1], [0.0], tolerance=1e-10)
        expected = alone.outputs({"audio": [layer]})[0]
        assert (outputs.softmax(1) - expected.softmax(1)).abs().max() < 1e-7
    assert loss_of(both.loss, found[None])[0] > 0


@pytest.fixture(scope="module")
def orders(tones: Path) -> Path:
    """The tones with two slots: which of three, and whether it is the first."""
    path = tones.with_name("orders.csv")
    with tones.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["audio", "split", "speaker", "action", "place"])
        for row in rows:
            place = "" if row["label"] == rows[0]["label"] else "hall"
            table.writerow([row["audio"], row["split"], row["speaker"], row["label"], place])
    return path


@pytest.mark.parametrize("over", [{}, {"training": {"steps": 20, "eval_every": 10}, "ic": {"projector_dim": 8}}])
def test_a_run_is_solved_or_trained_and_predicts(
    orders: Path, tmp_path: Path, over: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"task": "ic", "upstream": {"name": "fbank"}, "corpus": {"data": str(orders)}, "store": {"mode": "off"}}
    config = resolve([task_default("ic"), given, {"ic": {"slots": ["action", "place"]}}, over])
    assert config.solver == ("adam" if over else "exact")
    run(config, tmp_path / "run", Runtime("cpu", quiet=True))
    scores = read_json(tmp_path / "run" / "result.json")["scores"]["test"]
    assert {"acc", "acc_action", "acc_place", "loss"} == {*scores}
    if not over:
        assert scores["acc"] > 0.9
    with (tmp_path / "run" / "predictions-test.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    found = headwater.load_run(tmp_path / "run").predict(row["file"])
    assert found.label == (row["prediction_action"], row["prediction_place"])
    assert main(["predict", str(tmp_path / "run"), row["file"]]) == 0
    header, line = capsys.readouterr().out.splitlines()[:2]
    cells = dict(zip(header.split(","), line.split(","), strict=True))
    assert (cells["action"], cells["place"]) == found.label
    assert "score_place=none" in cells
