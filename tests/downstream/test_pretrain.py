"""Masked prediction: HuBERT's masks, units on the right frames, losses by hand, and known entropies reached."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F

from headwater.api.train import train
from headwater.core.errors import UserError
from headwater.core.tensors import load_tensors
from headwater.corpus.base import Utterance
from headwater.corpus.batch import Batch, as_batch
from headwater.downstream.base import Outcome, Output
from headwater.downstream.pretrain.expert import MaskedPrediction, PretrainConfig, build
from headwater.downstream.pretrain.question import question_of, score
from headwater.downstream.teaching import at_frames, hop_ratio, nearest_frames
from headwater.runs.prepare import make_examples
from headwater.training.step import training_example
from headwater.upstream.base import TEACHER, Layers, UpstreamConfig, UpstreamSpec
from headwater.upstream.load import load_upstream
from headwater.upstream.spans import random_spans

TINY = {
    **{"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": [16] * 7},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
STUDENT = UpstreamSpec("audio", 2, 6, 16_000, lambda samples: samples // 320, maskable=True)
TAUGHT = UpstreamSpec("audio", 1, 3, 16_000, lambda samples: samples // 160)


def tones(folder: Path, count: int = 24, seconds: float = 0.6) -> Path:
    """Write clips that are one of four tones each, from end to end."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    times = np.arange(int(16_000 * seconds)) / 16_000
    for number in range(count):
        wave = 0.3 * np.sin(2 * np.pi * (250, 700, 1500, 3000)[number % 4] * times) + 0.003 * generator.normal(size=len(times))
        soundfile.write(folder / f"{number:02d}.wav", wave, 16_000)
    return folder


def pretrained(tmp_path: Path, name: str, **options: object) -> dict:
    """Return the result of a short pretraining on the tones, a quarter of them held out."""
    found = {
        "upstream": {"config": TINY, "trainable": True, "dropout": 0.0},
        "teacher.name": "mfcc_no_cmvn",
        "corpus.options": {"dev_share": 0.25},
        "training": {"steps": 150, "batch_size": 8, "bucket_steps": None, "eval_every": 50, "save_every": 50},
        "optimizer": {"lr": 1e-2, "upstream_lr": 3e-3, "warmup_steps": 10},
        "pretrain": {"units": 4, "sample_frames": 1000, "dim": 16, **options},
    }
    corpus = tmp_path / "tones" if (tmp_path / "tones").is_dir() else tones(tmp_path / "tones")
    return train("pretrain", "new/hubert", folder=tmp_path / name, data=corpus, options=found)


def test_masks_have_huberts_statistics() -> None:
    from transformers.models.hubert.modeling_hubert import _compute_mask_indices

    np.random.seed(0)  # noqa: NPY002 (transformers draws from it)
    for size in (49, 250, 700):
        theirs = _compute_mask_indices((400, size), 0.8, 10, min_masks=2).mean(axis=1)
        generator = torch.Generator().manual_seed(size)
        ours = np.array([random_spans(size, 0.8, 10, 2, generator).float().mean() for _ in range(400)])
        assert abs(ours.mean() - theirs.mean()) < 4 * theirs.std() / 20 + 0.005
        assert abs(ours.std() - theirs.std()) < 0.2 * theirs.std() + 0.002


def test_masks_are_drawn_by_the_seed_of_an_utterance_whatever_the_piece() -> None:
    expert = build(PretrainConfig(), {"units": 5}, {"audio": STUDENT, TEACHER: TAUGHT})
    together = expert.hide(Batch(None, (16_000, 8_000), ("a", "b"), draws=(7, 9)))
    alone = expert.hide(Batch(None, (8_000,), ("b",), draws=(9,)))
    assert torch.equal(together[1, :25], alone[0])
    assert not torch.equal(alone, expert.hide(Batch(None, (8_000,), ("b",), draws=(10,))))
    assert not together[1, 25:].any()


def test_a_step_draws_anew_and_dev_never_does() -> None:
    expert = build(PretrainConfig(), {"units": 5}, {"audio": STUDENT, TEACHER: TAUGHT})
    rows = [Utterance("a", "a.wav", duration=1.0), Utterance("b", "b.wav", duration=1.0)]
    once, again = (make_examples(question_of(PretrainConfig()), {}, rows, {"a": 1.0, "b": 1.0}, expert) for _ in range(2))
    assert [row.draw for row in once] == [row.draw for row in again]
    assert len({row.draw for row in once}) == 2
    task = SimpleNamespace(expert=expert, crops={})
    drawn = {(place, step): training_example(task, once[0], place, 3, step).draw for place in (0, 1) for step in (0, 1)}
    assert len({*drawn.values(), once[0].draw}) == 5
    assert training_example(task, once[0], 1, 3, 1).draw == drawn[1, 1]


def test_the_teachers_frames_lie_under_the_upstreams() -> None:
    """Frame i of HuBERT hears samples 320 i to 320 i + 400: so does frame 2 i of mfcc, alone."""
    teacher = load_upstream("mfcc_no_cmvn")
    student = load_upstream(UpstreamConfig(name="new/hubert", config=TINY))
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    layers, count = teacher([wave]), student.spec.num_frames(16_000)
    ratio = hop_ratio(student.spec, teacher.spec)
    assert ratio == 2.0
    index = nearest_frames(layers, count, ratio)[0]
    for place in (0, 1, 17, count - 1):
        heard = teacher([wave[320 * place : 320 * place + 400]]).values[0][0, 0, :13]
        there = layers.values[0][0, index[place], :13]
        assert torch.allclose(heard, there, atol=1e-3)
        beside = index[place] + 1 if place == 0 else index[place] - 1
        assert not torch.allclose(heard, layers.values[0][0, beside, :13], atol=1e-2)


def test_frames_of_another_rate_are_taken_or_mixed_where_ours_begin() -> None:
    layers = Layers([torch.arange(6.0).view(1, 6, 1)], (5,))
    assert nearest_frames(layers, 3, 2.0).tolist() == [[0, 2, 4]]
    assert nearest_frames(layers, 4, 2.0).tolist() == [[0, 2, 4, 4]]  # its own last frame goes on
    assert at_frames(layers.values[0], layers, 6, 0.5).flatten().tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert at_frames(layers.values[0], layers, 3, 2.0).flatten().tolist() == [0.0, 2.0, 4.0]


def test_loss_and_sums_by_hand() -> None:
    expert = MaskedPrediction({"units": 3}, (STUDENT, TAUGHT), PretrainConfig(visible_weight=0.5))
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    units = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 0]])
    hidden = torch.tensor([[True, True, False, False], [True, False, False, False]])
    output = Output(logits, (4, 2), expected=(units, hidden))
    nats = -logits.log_softmax(-1).gather(2, units.unsqueeze(2)).squeeze(2)
    expected = ((nats[0, 0] + nats[0, 1]) / 2 + nats[1, 0]) / 2 + 0.5 * ((nats[0, 2] + nats[0, 3]) / 2 + nats[1, 1]) / 2
    assert torch.allclose(expert.loss(output, Batch(None, (), ("a", "b"))), expected)
    sums = expert.decode(output)
    assert sums[:, 0].tolist() == [2.0, 1.0]
    assert sums[:, 3].tolist() == [2.0, 1.0]
    assert torch.allclose(sums[:, 2], torch.stack([nats[0, :2].sum(), nats[1, 0]]))


def test_logits_are_cosines_over_the_temperature_and_units_the_nearest_centroids() -> None:
    expert = build(PretrainConfig(dim=4), {"units": 3}, {"audio": STUDENT, TEACHER: TAUGHT})
    expert.centroids.copy_(torch.tensor([[0.0, 0, 0], [1.0, 1, 1], [-1.0, 1, 0]]))
    frames = {
        "audio": Layers([torch.randn(1, 3, 6)], (3,), masked=torch.ones(1, 3, dtype=torch.bool)),
        TEACHER: Layers([torch.tensor([[[0.9, 1, 1], [9, 9, 9], [-1, 1, 0.2], [0, 0, 0], [0.1, 0, 0], [5, 5, 5]]])], (6,)),
    }
    output = expert(frames)
    assert output.expected[0].tolist() == [[1, 2, 0]]
    by_hand = F.cosine_similarity(expert.projector(frames["audio"].values[0]).unsqueeze(2), expert.embeddings, dim=-1) / 0.1
    assert torch.allclose(output.values, by_hand, atol=1e-5)


def test_learning_reaches_the_entropy_that_is_left(tmp_path: Path) -> None:
    """One of four tones from end to end: what was heard tells all (0 nats), and where nothing is heard, nothing (ln 4)."""
    told = pretrained(tmp_path, "told")["scores"]["dev"]
    assert told["nats"] < 0.1
    assert told["accuracy"] == 1.0
    untold = pretrained(tmp_path, "untold", mask_share=1.0, mask_length=1)["scores"]["dev"]
    assert abs(untold["nats"] - math.log(4)) < 0.15


def test_a_stopped_run_keeps_its_units_and_ends_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretrained(tmp_path, "whole")
    from headwater.runs import run as runs

    real, calls = runs.train, []

    def stopped(*args: object, **kwargs: object) -> object:
        hooks = args[6]
        saved = hooks.save_last

        def save(progress: object) -> None:
            saved(progress)
            if progress.step == 50 and not calls:
                calls.append(1)
                raise KeyboardInterrupt

        return real(*args[:6], runs.replace(hooks, save_last=save), **kwargs)

    monkeypatch.setattr(runs, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrained(tmp_path, "again")
    monkeypatch.setattr(MaskedPrediction, "fit_to_teacher", lambda *_: pytest.fail("units are learnt once"))
    again = pretrained(tmp_path, "again")
    assert again["scores"] == whole["scores"]
    one, other = (load_tensors(tmp_path / name / "checkpoints" / "best.safetensors")[0] for name in ("whole", "again"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_long_files_and_long_rows_of_a_table_are_cut_into_equal_stretches(tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, 0.1 * np.random.default_rng(0).normal(size=int(16_000 * 4.1)), 16_000)
    rows = [Utterance("whole", str(long)), Utterance("row", str(long), start=1.0, duration=2.0), Utterance("lost", "nowhere.wav")]
    parts = question_of(PretrainConfig(longest=1.0)).select({}, rows)
    assert [part.id for part in parts] == [*(f"whole#{n}" for n in range(5)), "row#0", "row#1", "lost"]
    assert [round(part.start, 2) for part in parts] == [0.0, 0.82, 1.64, 2.46, 3.28, 1.0, 2.0, 0.0]
    assert sum(part.duration for part in parts[:5]) == pytest.approx(4.1)
    assert [row.id for row in question_of(PretrainConfig()).select({}, rows)] == ["whole", "row", "lost"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upstream.layer": 1}, "Expected no 'upstream.layer' for pretrain"),
        ({"upstream.normalize_layers": True}, "Expected no 'upstream.normalize_layers' for pretrain"),
        ({"teacher.layer": 0}, "Expected no 'teacher.layer' for pretrain"),
        ({"masks.time_masks": 2}, "Expected no 'masks' for pretrain"),
        ({"teacher.name": ""}, "Expected a teacher for pretrain, found none"),
        ({"pretrain.teacher_layer": 3}, r"layer of the teacher \(0\) in pretrain.teacher_layer, found 3"),
    ],
)
def test_an_option_that_would_be_passed_over_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train("pretrain", "test_hubert", folder=tmp_path / "run", data=tones(tmp_path / "tones", count=4), options=options)
    assert not (tmp_path / "run").exists()


def test_a_teacher_is_no_role_of_a_task_with_labels(tmp_path: Path) -> None:
    roles = {"teacher.name": "mfcc", "tasks.emotion.roles": ["audio", "teacher"]}
    with pytest.raises(UserError, match=r"Expected 'teacher' in 'tasks.emotion.roles' of a task that a teacher gives"):
        train(["emotion", "pretrain"], "test_hubert", folder=tmp_path / "run", demo=True, options=roles)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Expected a teacher for pretrain, found none"):
        build(PretrainConfig(), {"units": 4}, {"audio": STUDENT})
    with pytest.raises(UserError, match="mask embedding"):
        build(PretrainConfig(), {"units": 4}, {"audio": TAUGHT, TEACHER: TAUGHT})
    with pytest.raises(UserError, match="Expected an upstream that is trained"):
        train("pretrain", "test_hubert", folder=tmp_path / "a", data=tones(tmp_path / "t"), options={"upstream.trainable": False})
    with pytest.raises(UserError, match=r"found .* in training"):
        pretrained(tmp_path, "many", units=5000)
    with pytest.raises(UserError, match="Expected a task that a teacher gives"):
        train("emotion", "fbank", folder=tmp_path / "b", demo=True, options={"teacher.name": "mfcc"})


def test_scores_are_shares_of_frames() -> None:
    sums = torch.tensor([[10.0, 5, 20, 30, 15], [30.0, 5, 60, 10, 5]])
    found = score({}, Outcome(("a", "b"), (None, None), (None, None), scores=sums), {})
    assert found == {"nats": 2.0, "accuracy": 0.25, "visible_accuracy": 0.5}


def test_a_batch_of_waveforms_has_masks_of_its_own() -> None:
    expert = build(PretrainConfig(), {"units": 5}, {"audio": STUDENT, TEACHER: TAUGHT})
    batch = as_batch([torch.zeros(3200)])
    assert expert.hide(Batch(batch.waveforms, batch.lengths, batch.ids, draws=(3,))).shape == (1, 10)
