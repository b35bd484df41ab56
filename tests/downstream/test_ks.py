"""Keyword spotting: classes drawn alike, crops of a second, recall by class, and other corpora's words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import UserError
from headwater.core.options import read_yaml
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch, Example
from headwater.downstream.base import Outcome, Output
from headwater.downstream.classification import Classifier, random_crop
from headwater.downstream.ks import question
from headwater.downstream.ks.expert import TASK, KsConfig
from headwater.downstream.labels import LabelsConfig
from headwater.runs.config.recipes import find_recipe
from headwater.runs.config.resolve import resolve
from headwater.runs.run import references, run
from headwater.runs.runtime import Runtime
from headwater.training.batches import draw, sampling_weights
from headwater.upstream.base import Frames, UpstreamSpec

ORDER = ("yes", "no", "_unknown_", "_silence_")
SPECS = {"audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)}
WORDS = ["yes"] * 4 + ["no"] * 2 + ["_unknown_"] * 12 + ["_silence_"]


def rows_of(words: list[str], key: str = "keyword") -> tuple[Utterance, ...]:
    return tuple(Utterance(f"u{index}", f"u{index}.wav", duration=1.0, labels={key: word}) for index, word in enumerate(words))


CORPUS = Corpus("mine", "v1", None, {"train": rows_of(WORDS), "dev": rows_of(WORDS)}, label_order={"keyword": ORDER})


def expert_of(**options: Any) -> Classifier:
    config = KsConfig(**options)
    built = TASK.build(config, question.QUESTION.make_vocabulary(config, LabelsConfig(), CORPUS), SPECS)
    assert isinstance(built, Classifier)
    return built


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_classes_are_drawn_alike() -> None:
    expert, train = expert_of(), CORPUS.splits["train"]
    weights = sampling_weights([Example(row, 1.0, 0, expert.weight(row)) for row in train])
    drawn = Counter(WORDS[row] for step in range(200) for row in draw(len(train), 32, 1, step, weights))
    assert all(abs(count / 6400 - 0.25) < 0.03 for count in drawn.values())
    assert len(drawn) == 4


def test_drawing_alike_can_be_left_out() -> None:
    assert {expert_of(even_classes=False).weight(row) for row in CORPUS.splits["train"]} == {1.0}


def test_a_long_noise_is_read_a_second_at_a_time_anywhere_in_it() -> None:
    noise = Utterance("noise", "noise.wav", start=10.0, duration=5.0, labels={"keyword": "_silence_"})
    expert = expert_of()
    crops = [expert.crop(noise, generator(seed)) for seed in range(200)]
    assert {crop.duration for crop in crops} == {1.0}
    starts = [crop.start for crop in crops]
    assert 10.0 <= min(starts) < 10.2
    assert 13.8 < max(starts) <= 14.0
    assert {(crop.id, crop.audio, crop.labels["keyword"]) for crop in crops} == {("noise", "noise.wav", "_silence_")}


def test_a_crop_is_a_function_of_the_generator_alone() -> None:
    noise = Utterance("noise", "noise.wav", duration=5.0)
    torch.manual_seed(0)
    first = random_crop(noise, 1.0, generator())
    torch.manual_seed(1)
    assert random_crop(noise, 1.0, generator()) == first != random_crop(noise, 1.0, generator(2))


def test_what_is_no_longer_than_a_crop_is_read_whole() -> None:
    word = Utterance("word", "word.wav", start=0.3, duration=1.0)
    assert expert_of().crop(word, generator()) == word


def test_without_crops_everything_is_read_whole() -> None:
    noise, expert = Utterance("noise", "noise.wav", duration=5.0), expert_of(crop_seconds=None)
    assert expert.crop(noise, generator()) == noise
    assert (expert.crops, expert_of().crops) == (False, True)


def test_a_frame_of_each_class_trains() -> None:
    """The head with its loss, from one frame that tells the class."""
    torch.manual_seed(0)
    expert, train = expert_of(even_classes=False), CORPUS.splits["train"]
    targets = tuple(question.QUESTION.target(expert.vocabulary, row) for row in train)
    values = torch.nn.functional.one_hot(torch.tensor(targets), 5).float().unsqueeze(1)  # (batch, frame, dim)
    frames = {"audio": Frames(values, (1,) * len(train))}
    batch = Batch(None, (), tuple(row.id for row in train), targets=targets)
    optimizer = torch.optim.Adam(expert.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        expert.loss(expert(frames), batch).backward()
        optimizer.step()
    predictions, scores = question.QUESTION.answer(expert.vocabulary).decided(expert.decode(expert(frames)))
    assert list(predictions) == WORDS
    assert scores is not None
    assert torch.allclose(scores.sum(dim=1), torch.ones(len(train)))


def outcome_of(truth: list[str], predictions: list[str]) -> Outcome:
    return Outcome(tuple(map(str, range(len(truth)))), tuple(predictions), tuple(truth))


def test_accuracy_counts_clips_and_ua_counts_classes() -> None:
    outcome = outcome_of(["_unknown_"] * 8 + ["yes"] * 2, ["_unknown_"] * 10)
    assert question.score({"classes": list(ORDER)}, outcome, {}) == {"acc": 0.8, "ua": 0.5}


def test_recall_is_reported_for_the_classes_that_are_there() -> None:
    outcome = outcome_of(["yes", "yes", "yes", "_silence_"], ["yes", "no", "yes", "_silence_"])
    assert question.details({"classes": list(ORDER)}, outcome) == {"recall": {"yes": 0.667, "_silence_": 1.0}}


def adapted(words: list[str], **labels: Any) -> tuple[dict[str, Any], str]:
    corpus = Corpus("theirs", "split", None, {"test": rows_of(words, "label")})
    return question.QUESTION.adapt(expert_of().vocabulary, LabelsConfig(**labels), corpus)


def test_another_corpus_words_are_matched_and_the_rest_is_unknown() -> None:
    vocabulary, message = adapted(["Yes", "no", "nine", "silence"])
    assert vocabulary["key"] == "label"
    assert vocabulary["merge"] == {"Yes": "yes", "nine": "_unknown_", "silence": "_silence_"}
    assert message == "labels Yes=yes, nine=_unknown_, silence=_silence_"
    chosen = question.QUESTION.select(vocabulary, rows_of(["nine", "no"], "label"))
    assert len(chosen) == 2


def test_the_user_says_what_a_word_means() -> None:
    assert adapted(["ja", "no"], merge={"ja": "yes"})[0]["merge"] == {"ja": "yes"}


def test_another_choice_of_classes_is_refused_for_a_trained_run() -> None:
    with pytest.raises(UserError, match=r"no labels\.keep, since a run predicts its own classes, found \['yes'\]\. Leave it"):
        adapted(["yes", "no"], keep=["yes"])


def test_the_loss_is_the_cross_entropy_of_the_piece() -> None:
    expert = expert_of()
    output = Output(torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
    batch = Batch(None, (), ("a", "b"), targets=(0, 1))
    expected = torch.nn.functional.cross_entropy(output.values, torch.tensor([0, 1]))
    assert torch.allclose(expert.loss(output, batch), expected)


def test_the_superb_recipe_is_s3prls_experiment() -> None:
    config = resolve([read_yaml(find_recipe("superb/ks")), {"upstream": {"name": "hubert"}}])
    training, optimizer = config.training, config.optimizer
    assert (training.steps, training.batch_size, training.eval_every, training.sort_pieces) == (200_000, 32, 5000, False)
    expert = config.only.expert
    assert (optimizer.lr, optimizer.clip, expert.projector_dim, expert.activation) == (1e-4, 1.0, 256, "none")
    assert (config.only.corpus.name, config.only.corpus.protocol, config.only.select_by) == ("speech_commands", "v1", "ua")
    assert (config.only.expert.even_classes, config.only.expert.crop_seconds) == (True, 1.0)
    assert [row["value"] for row in references(config, [])] == [0.9630]


def test_the_miniature_trains_to_the_end(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    training = {"steps": 6, "batch_size": 8, "eval_every": 3, "patience": None}
    small = {"corpus": {"demo": True, "demo_scale": 0.05}, "upstream": {"name": "fbank_no_cmvn"}, "training": training}
    result = run(resolve([read_yaml(find_recipe("demo/ks")), small]), tmp_path / "run", Runtime("cpu", quiet=True))
    assert result["marks"] == ["DEMO"]
    assert 0 <= result["scores"]["test"]["acc"] <= 1
    assert len(result["classes"]) == 12
