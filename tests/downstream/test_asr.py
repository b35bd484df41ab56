"""The ASR expert: spelling, CTC and its corner cases, and answers that do not depend on the batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np
import pytest
import torch

from headwater.core.errors import UserError
from headwater.corpus.base import Corpus, Utterance
from headwater.corpus.batch import Batch, Example
from headwater.downstream import masks
from headwater.downstream.asr import question
from headwater.downstream.asr.expert import TASK, AsrConfig
from headwater.downstream.base import Outcome, Output
from headwater.downstream.ctc import Ctc
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.spelling import (
    count_errors,
    encode,
    error_rates,
    frames_needed,
    joined,
    plain_text,
    read_greedily,
)
from headwater.runs.prepare import drop_untrainable
from headwater.runs.results import intervals_of
from headwater.upstream.base import Frames, UpstreamSpec

SPECS = {"audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)}
SMALL: dict[str, Any] = {"projector_dim": 6, "hidden_dim": 4, "layers": 2, "dropout": 0.0}
VOCABULARY = {"characters": [" ", "A", "B"], "normalize": "upper"}


def expert_of(**options: Any) -> Ctc:
    torch.manual_seed(0)
    expert = TASK.build(AsrConfig(**{**SMALL, **options}), VOCABULARY, SPECS)
    assert isinstance(expert, Ctc)
    return expert


def decode(characters: Sequence[str], best: Sequence[int]) -> str:
    return joined(read_greedily(characters, best))


def frames_of(*lengths: int, seed: int = 1) -> Frames:
    generator = torch.Generator().manual_seed(seed)
    return Frames(torch.randn(len(lengths), max(lengths), 5, generator=generator), lengths)


def batch_of(*texts: str) -> Batch:
    return Batch(None, (), ids=tuple(f"u{index}" for index in range(len(texts))), targets=texts)


def corpus_of(*texts: str | None, dev: int = 1) -> Corpus:
    rows = tuple(Utterance(f"u{index}", f"u{index}.wav", text=text) for index, text in enumerate(texts))
    return Corpus("mine", "split", None, {"train": rows[:-dev], "dev": rows[-dev:]})


def vocabulary_of(*texts: str | None, **options: Any) -> dict[str, Any]:
    return question.make_vocabulary(AsrConfig(**options), LabelsConfig(), corpus_of(*texts))


def outcome_of(*pairs: tuple[str, str]) -> Outcome:
    references, predictions = zip(*pairs, strict=True)
    return Outcome(tuple(f"u{index}" for index in range(len(pairs))), predictions, references)


# spelling


@pytest.mark.parametrize(
    ("written", "learned"),
    [
        ("GO DO YOU HEAR", "GO DO YOU HEAR"),
        ("  Don’t   stop,\tplease! ", "DON'T STOP PLEASE"),
        ("THE BOYS' O'CLOCK 'TIS", "THE BOYS' O'CLOCK 'TIS"),
        ("well-known | (half)", "WELL KNOWN HALF"),
        ("über 42 ﬁre’s", "ÜBER 42 FIRE'S"),
        ("e\u0301te\u0301", "ÉTÉ"),
        ("' -- '", ""),
        ("", ""),
    ],
)
def test_a_text_is_trained_in_capital_letters_without_punctuation(written: str, learned: str) -> None:
    assert plain_text(written, "upper") == learned


def test_a_text_is_kept_as_it_is_where_nothing_is_to_be_normalised() -> None:
    assert plain_text(" Hello,  World! ", "none") == "Hello, World!"


def test_decoding_merges_repeats_and_drops_blanks() -> None:
    assert decode([" ", "A", "B"], [0, 2, 2, 0, 2, 1, 1, 0, 3, 0]) == "AA B"
    assert decode([" ", "A", "B"], [0, 0]) == ""
    assert decode([" ", "A", "B"], [1, 2, 1]) == "A"


def test_repeated_letters_take_a_blank_between_them() -> None:
    assert [frames_needed(text) for text in ([], [1], [1, 2, 1], [1, 1], [1, 1, 1])] == [0, 1, 3, 3, 5]


def test_the_vocabulary_is_the_characters_of_the_training_texts() -> None:
    assert vocabulary_of("a cab", "bad!", "zebra") == {"characters": [" ", "A", "B", "C", "D"], "normalize": "upper"}
    assert vocabulary_of("a!", "b", normalize="none")["characters"] == ["!", "a"]


# loss


def test_the_loss_is_that_of_all_alignments() -> None:
    """Three frames and `AB`: A B _, A _ B, _ A B, A A B, A B B."""
    expert = expert_of(loss_over="utterance")
    logits = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    chances = logits.softmax(dim=2)[0].tolist()
    paths = [path for path in itertools.product(range(4), repeat=3) if decode(VOCABULARY["characters"], path) == "AB"]
    paths = [path for path in paths if 1 not in path]  # a space at an end is nothing to a reader, but something to CTC
    assert len(paths) == 5
    expected = -math.log(sum(math.prod(chances[frame][place] for frame, place in enumerate(path)) for path in paths))
    assert float(expert.loss(Output(logits, (3,)), batch_of("AB"))) == pytest.approx(expected, rel=1e-5)


def test_an_utterance_counts_by_its_characters_mean_so_that_pieces_add_up() -> None:
    expert = expert_of()
    frames, texts = frames_of(9, 7, 8), ("ABBA", "", "B A")
    output = expert({"audio": frames})
    whole = expert.loss(output, batch_of(*texts))
    alone = [expert.loss(Output(output.values[row : row + 1], (frames.lengths[row],)), batch_of(texts[row])) for row in range(3)]
    torch.testing.assert_close(whole, torch.stack(alone).mean())
    by_utterance = expert_of(loss_over="utterance").loss(Output(output.values[:1], (9,)), batch_of("ABBA"))
    torch.testing.assert_close(by_utterance, 4 * alone[0])


def test_silence_trains_as_blanks_alone() -> None:
    expert = expert_of()
    logits = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    blanks = -logits.log_softmax(dim=2)[:, :, 0]
    expected = (blanks[0, :6].sum() + blanks[1, :4].sum()) / 2
    torch.testing.assert_close(expert.loss(Output(logits, (6, 4)), batch_of("", "")), expected)


def test_a_text_too_long_for_its_frames_stops_training_with_its_name() -> None:
    expert = expert_of()
    with pytest.raises(UserError, match=r"at least 3 frames for the 2 characters of 'u1', found 2.*asr\.zero_infinity=true"):
        expert.loss(expert({"audio": frames_of(4, 2)}), batch_of("A", "AA"))
    assert expert.loss(expert({"audio": frames_of(4, 3)}), batch_of("A", "AA")).isfinite()


def test_with_zero_infinity_a_text_too_long_teaches_nothing() -> None:
    expert = expert_of(zero_infinity=True)
    loss = expert.loss(expert({"audio": frames_of(2)}), batch_of("ABAB"))
    loss.backward()
    assert loss.item() == 0
    assert all(float(parameter.grad.abs().max()) == 0 for parameter in expert.parameters() if parameter.grad is not None)


def test_dev_has_a_finite_loss_whatever_its_texts_are() -> None:
    expert = expert_of().eval()
    assert expert.loss(expert({"audio": frames_of(4, 2)}), batch_of("A", "ABAB")).isfinite()


def test_training_utterances_that_are_too_short_are_left_out_and_counted() -> None:
    def example(name: str, text: str, seconds: float) -> Example:
        return Example(Utterance(name, f"{name}.wav", text=text), seconds, text)

    rows = [example("long", "AB A", 1.0), example("short", "AA", 0.05), example("enough", "AA", 0.06)]
    splits, notes = drop_untrainable(expert_of(), {"train": rows, "dev": rows})
    assert [row.utterance.id for row in splits["train"]] == ["long", "enough"]
    assert len(splits["dev"]) == 3
    assert notes == ("1 of 3 training utterances left out: too short for their targets (the first: short)",)
    assert len(drop_untrainable(expert_of(zero_infinity=True), {"train": rows})[0]["train"]) == 3
    assert len(drop_untrainable(expert_of(downsample=2), {"train": rows})[0]["train"]) == 1


def test_a_character_unseen_in_training_is_an_error_without_a_loss() -> None:
    expert = expert_of().eval()
    target = question.QUESTION.target(VOCABULARY, Utterance("u", "u.wav", text="a zab"))
    assert target == question.QUESTION.reference(VOCABULARY, target) == "A ZAB"
    assert encode(expert.writing.tokens, target) == [2, 1, 2, 3]
    assert expert.loss(expert({"audio": frames_of(9)}), batch_of(target)).isfinite()
    outcome = outcome_of((target, "A AB"))
    assert question.score(VOCABULARY, outcome, {}) == {"wer": 0.5, "cer": 0.2}
    assert question.details(VOCABULARY, outcome) == {"characters unseen in training": "Z (1)"}
    assert question.details(VOCABULARY, outcome_of(("AB", ""))) == {}


def test_sounds_are_trained_to_be_spelt() -> None:
    """Each character sounds two frames long, in a vector of its own; silence lies between them."""
    generator = torch.Generator().manual_seed(0)
    sounds, texts = torch.randn(4, 5, generator=generator), ["AB", "B A", "ABBA", "BAB", "A", "BB AA"]
    result = [[place for each in encode(VOCABULARY["characters"], text) for place in (each, each, 0)] for text in texts]
    lengths = tuple(len(places) for places in result)
    places = torch.tensor([row + [0] * (max(lengths) - len(row)) for row in result])
    frames, expert = Frames(sounds[places], lengths), expert_of(hidden_dim=16, projector_dim=16)
    optimizer = torch.optim.Adam(expert.parameters(), lr=2e-2)
    for _ in range(80):
        optimizer.zero_grad()
        expert.loss(expert({"audio": frames}), batch_of(*texts)).backward()
        optimizer.step()
    assert expert.eval().decode(expert({"audio": frames})) == tuple(texts)


# frames


@pytest.mark.parametrize("downsample", [1, 3])
def test_a_prediction_does_not_depend_on_batch_mates(downsample: int) -> None:
    expert = expert_of(downsample=downsample).eval()
    frames = frames_of(11, 4, 7)
    together = expert({"audio": frames})
    for row, length in enumerate(frames.lengths):
        alone = expert({"audio": Frames(frames.values[row : row + 1, :length], (length,))})
        count = alone.lengths[0]
        assert together.lengths[row] == count == -(-length // downsample)
        torch.testing.assert_close(together.values[row, :count], alone.values[0], rtol=0, atol=1e-6)


def test_only_valid_frames_are_decoded() -> None:
    values = torch.full((2, 4, 4), 0.0)
    values[:, :, 2] = 1.0  # A everywhere
    values[0, 3, 3] = 2.0  # a B in the padding of the first
    assert expert_of().decode(Output(values, (3, 4))) == ("A", "A")


def test_masks_lie_within_each_utterance_and_are_no_longer_than_requested() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([3, 50, 100] * 200)
    hidden = masks.stretches(lengths, 100, 1, 10)  # (row, size)
    sizes = hidden.sum(dim=1)
    assert not (hidden & (torch.arange(100) >= lengths.unsqueeze(1))).any()
    assert {*sizes[lengths == 3].tolist()} == {0, 1, 2, 3}
    assert {*sizes[lengths > 3].tolist()} == set(range(11))
    assert hidden[lengths == 50].any(dim=0)[:50].all()
    starts = hidden.int().diff(dim=1, prepend=torch.zeros(600, 1, dtype=torch.int)).clamp(min=0).sum(dim=1)
    assert int(starts.max()) == 1  # one stretch each


def test_what_is_masked_becomes_the_mean_of_the_utterance_itself() -> None:
    frames = frames_of(6, 3)
    frames.values[1, 3:] = 1e6  # padding
    torch.manual_seed(3)
    masked = masks.mask_time(frames, 4, 3)
    changed = (masked.values != frames.values).any(dim=2)
    assert changed[0].any()
    assert changed[1].any()
    for row, length in enumerate(frames.lengths):
        mean = frames.values[row, :length].mean()
        torch.testing.assert_close(masked.values[row][changed[row]], mean.expand(int(changed[row].sum()), 5))


def test_masks_of_zero_are_what_s3prl_fills_in() -> None:
    frames = Frames(torch.ones(2, 30, 6), (30, 20))
    for masked in (masks.mask_time(frames, 2, 9, "zero"), masks.mask_dimensions(frames, 2, 4, "zero")):
        assert {*masked.values.unique().tolist()} == {0.0, 1.0}


def test_masks_are_for_training_alone_and_come_from_the_generator_that_a_step_seeds() -> None:
    expert, frames = expert_of(spec_augment=True, time_width=3, dim_width=2), frames_of(9, 6)

    def prediction(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return expert({"audio": frames}).values

    assert torch.equal(prediction(1), prediction(1))
    assert not torch.equal(prediction(1), prediction(2))
    expert.eval()
    assert torch.equal(prediction(1), prediction(2))


# scores


def test_error_rates_are_jiwers_over_the_whole_split() -> None:
    generator, words = np.random.default_rng(0), ["A", "BAB", "ABBA", "BA"]

    def text() -> str:
        return " ".join(generator.choice(words, generator.integers(1, 6)))

    references, predictions = [text() for _ in range(50)], [text() for _ in range(50)]
    found = error_rates(references, predictions)
    assert found["wer"] == pytest.approx(jiwer.wer(references, predictions))
    assert found["cer"] == pytest.approx(jiwer.cer(references, predictions))


def test_words_without_speech_are_errors_and_silence_is_right() -> None:
    assert question.score(VOCABULARY, outcome_of(("", "A B"), ("A B", "A B")), {}) == {"wer": 1.0, "cer": 1.0}
    assert question.score(VOCABULARY, outcome_of(("", ""), ("A B", "")), {}) == {"wer": 1.0, "cer": 1.0}
    assert math.isnan(question.score(VOCABULARY, outcome_of(("", "A")), {})["wer"])


def test_an_interval_over_speakers_counts_each_prediction_once() -> None:
    count_errors.cache_clear()
    pairs = [(f"A B {row}", f"A {row}") for row in range(64)]
    speakers = [f"spk{row % 8}" for row in range(64)]
    found = intervals_of(question.QUESTION, VOCABULARY, outcome_of(*pairs), speakers, {})
    assert found["wer"] == pytest.approx([1 / 3, 1 / 3])
    assert count_errors.cache_info().misses == 64


def test_a_long_file_is_the_texts_of_its_windows() -> None:
    assert question.answer(VOCABULARY).joined([(20.0, "A B"), (20.0, ""), (5.0, "BA")]) == ("A B BA", None)


# what is refused


def test_a_corpus_without_transcripts_is_refused_with_the_column_that_would_serve() -> None:
    corpus = corpus_of(None, None)
    with pytest.raises(UserError, match=r"Expected transcripts in mine, since asr is trained on them, found none.*text=HEADER"):
        question.make_vocabulary(AsrConfig(), LabelsConfig(), corpus)


def test_a_split_without_speech_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"Expected utterances with speech in split 'dev' of mine, found none \(splits: train 1, dev 1\)"
    ):
        vocabulary_of("a", "...")


def test_labels_of_a_task_without_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"no labels\.keep for asr, which has texts and no classes"):
        question.make_vocabulary(AsrConfig(), LabelsConfig(keep=["a"]), corpus_of("a", "b"))


def test_a_text_upstream_would_read_what_is_to_be_written() -> None:
    text = UpstreamSpec("text", 1, 5, 0, lambda _: 1)
    for specs in ({"audio": SPECS["audio"], "text": text}, {"text": text}):
        with pytest.raises(UserError, match=r"an upstream of audio alone for asr, found .*text"):
            TASK.build(AsrConfig(**SMALL), VOCABULARY, specs)
