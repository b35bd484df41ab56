"""Speaker identification: the speakers of training, who must be everybody, and crops of eight seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import UserError
from headwater.core.options import read_yaml
from headwater.corpus.base import Corpus, Utterance
from headwater.downstream.base import Outcome
from headwater.downstream.labels import LabelsConfig
from headwater.downstream.sid import question
from headwater.downstream.sid.expert import TASK, SidConfig
from headwater.runs.config.recipes import find_recipe
from headwater.runs.config.resolve import resolve
from headwater.runs.run import references, run
from headwater.runs.runtime import Runtime
from headwater.upstream.base import UpstreamSpec

SPECS = {"audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)}


def corpus_of(key: str = "speaker", **speakers: str) -> Corpus:
    """Return a corpus with these speakers (`a b c`) in each split."""
    splits = {
        split: tuple(Utterance(f"{split}{name}", "x.wav", speaker=name, labels={key: name}) for name in names.split())
        for split, names in speakers.items()
    }
    return Corpus("mine", "iden", None, splits)


def vocabulary_of(corpus: Corpus, **labels: Any) -> dict[str, Any]:
    return question.make_vocabulary(SidConfig(), LabelsConfig(**labels), corpus)


def test_classes_are_the_speakers_of_training_in_order() -> None:
    assert vocabulary_of(corpus_of(train="c a b a", dev="b", test="c"))["classes"] == ["a", "b", "c"]


def test_a_speaker_without_training_audio_is_refused_by_name() -> None:
    with pytest.raises(UserError) as problem:
        vocabulary_of(corpus_of(train="a b", dev="c d", test="e"))
    assert "Expected every speaker of mine in its training split" in str(problem.value)
    assert "found 'c' and 2 more in other splits only. Use a corpus whose splits share their speakers" in str(problem.value)


def test_those_to_distinguish_can_be_named() -> None:
    corpus = corpus_of(train="a b", dev="a b c")
    vocabulary = vocabulary_of(corpus, keep=["b", "a"])
    assert vocabulary["classes"] == ["b", "a"]
    assert [row.speaker for row in question.QUESTION.select(vocabulary, corpus.splits["dev"])] == ["a", "b"]


def test_a_table_names_its_speakers_in_the_label_column() -> None:
    vocabulary = vocabulary_of(corpus_of("label", train="a b", dev="a b"))
    assert (vocabulary["key"], vocabulary["classes"]) == ("label", ["a", "b"])


def test_a_corpus_without_labelled_speakers_is_refused() -> None:
    with pytest.raises(UserError, match=r"Expected a label 'speaker' in mine, found none"):
        vocabulary_of(corpus_of("emotion", train="a b", dev="a b"))


def test_a_step_uses_eight_seconds_of_longer_audio() -> None:
    expert = TASK.build(SidConfig(), vocabulary_of(corpus_of(train="a b", dev="a b")), SPECS)
    long, short = Utterance("l", "l.wav", start=2.0, duration=20.0), Utterance("s", "s.wav", duration=7.9)
    crop = expert.crop(long, torch.Generator().manual_seed(3))
    assert crop.duration == 8.0
    assert 2.0 <= crop.start <= 14.0
    assert expert.crop(short, torch.Generator().manual_seed(3)) == short
    assert expert.weight(long) == 1.0


def test_the_score_is_the_share_of_utterances_predicted_right() -> None:
    outcome = Outcome(("1", "2", "3", "4"), ("a", "a", "a", "b"), ("a", "a", "b", "b"))
    assert question.score({"classes": ["a", "b"]}, outcome, {}) == {"acc": 0.75}


def test_a_run_knows_the_speakers_of_another_corpus_by_name_and_leaves_the_others_out() -> None:
    vocabulary = vocabulary_of(corpus_of(train="a b", dev="a b"))
    adapted, message = question.QUESTION.adapt(vocabulary, LabelsConfig(), corpus_of(test="b x y"))
    assert message == "1 labels of the same names; left out x (1), y (1)"
    assert len(question.QUESTION.select(adapted, corpus_of(test="b x y").splits["test"])) == 1


def test_a_corpus_of_strangers_is_refused() -> None:
    vocabulary = vocabulary_of(corpus_of(train="a b", dev="a b"))
    with pytest.raises(UserError, match=r"Expected labels of mine among a, b, found x\. Say which is which"):
        question.QUESTION.adapt(vocabulary, LabelsConfig(), corpus_of(test="x"))


def test_the_superb_recipe_is_s3prls_experiment() -> None:
    config = resolve([read_yaml(find_recipe("superb/sid")), {"upstream": {"name": "hubert"}}])
    training, optimizer = config.training, config.optimizer
    assert (training.steps, training.batch_size, training.eval_every, training.sort_pieces) == (200_000, 32, 5000, False)
    expert = config.only.expert
    assert (optimizer.lr, optimizer.clip, expert.projector_dim, expert.activation) == (1e-4, 1.0, 256, "none")
    assert (config.only.corpus.name, config.only.corpus.protocol, config.only.select_by) == ("voxceleb1", "iden", "acc")
    assert (config.only.expert.crop_seconds, training.piece_size) == (8.0, 8)
    assert [row["value"] for row in references(config, [])] == [0.8142]


def test_the_miniature_trains_to_the_end(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="the extra `demo` is not installed")
    training = {"steps": 6, "batch_size": 8, "eval_every": 3, "patience": None}
    small = {"corpus": {"demo": True, "demo_scale": 0.05}, "upstream": {"name": "fbank_no_cmvn"}, "training": training}
    result = run(resolve([read_yaml(find_recipe("demo/sid")), small]), tmp_path / "run", Runtime("cpu", quiet=True))
    assert result["marks"] == ["DEMO"]
    assert 0 <= result["scores"]["test"]["acc"] <= 1
    assert len(result["classes"]) == 8
