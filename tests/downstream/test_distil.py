"""Distillation: losses by hand, a student that is its teacher, stored teachers, models in the hub's format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from headwater.__main__ import dispatch
from headwater.api.train import train
from headwater.core.errors import UserError
from headwater.core.tensors import load_tensors, save_tensors
from headwater.corpus.batch import Batch
from headwater.downstream.base import Output
from headwater.downstream.distil.expert import DistilConfig, Distillation, build
from headwater.upstream.base import TEACHER, Layers, UpstreamConfig, UpstreamSpec
from headwater.upstream.load import load_upstream

from .test_pretrain import TINY, tones

STUDENT = UpstreamSpec("audio", 2, 6, 16_000, lambda samples: samples // 320)
TAUGHT = UpstreamSpec("audio", 3, 5, 16_000, lambda samples: samples // 320)


def distilled(tmp_path: Path, name: str, upstream: str = "new/hubert", steps: int = 4, **options: object) -> dict:
    """Return the result of a few steps."""
    corpus = tmp_path / "tones" if (tmp_path / "tones").is_dir() else tones(tmp_path / "tones", count=12)
    found = {
        "upstream": {"trainable": True, "dropout": 0.0, **({"config": TINY} if upstream == "new/hubert" else {})},
        "teacher.name": "test_hubert",
        "corpus.options": {"dev_share": 0.25},
        "training": {"steps": steps, "batch_size": 4, "bucket_steps": None, "eval_every": steps, "save_every": 50},
        "optimizer": {"warmup_steps": 0},
        **options,
    }
    return train("distil", upstream, folder=tmp_path / name, data=corpus, options=found)


def test_loss_and_gradient_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    expert = Distillation((STUDENT, TAUGHT), (1, 2), DistilConfig(l1_weight=2.0, cosine_weight=0.5))
    made = torch.randn(2, 3, 2, 5, generator=generator, requires_grad=True)
    taught = torch.randn(2, 3, 2, 5, generator=generator)
    loss = expert.loss(Output(made, (3, 2), expected=taught), Batch(None, (), ("a", "b")))
    by_hand = []
    for row, length in ((0, 3), (1, 2)):
        frames = [
            2.0 * (made[row, t, layer] - taught[row, t, layer]).abs().mean()
            - 0.5
            * torch.log(
                torch.sigmoid(
                    made[row, t, layer] @ taught[row, t, layer] / made[row, t, layer].norm() / taught[row, t, layer].norm()
                )
            )
            for t in range(length)
            for layer in range(2)
        ]
        by_hand.append(torch.stack(frames).mean())
    expected = torch.stack(by_hand).mean()
    assert torch.allclose(loss, expected, atol=1e-6)
    ours, theirs = torch.autograd.grad(loss, made)[0], torch.autograd.grad(expected, made)[0]
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert not ours[1, 2].any()


def test_a_teachers_dimensions_are_standardised_over_its_sample() -> None:
    expert = build(DistilConfig(), {}, {"audio": STUDENT, TEACHER: TAUGHT})
    assert expert.takes == {"audio": (-1,), TEACHER: (1, 2)}
    sample = [torch.randn(400, 5) * torch.tensor([1.0, 100, 1, 1, 1]) + 3 for _ in range(2)]
    expert.fit_to_teacher(sample, 0)
    frames = {"audio": Layers([torch.randn(1, 400, 6)], (400,)), TEACHER: Layers([part.unsqueeze(0) for part in sample], (400,))}
    taught = expert(frames).expected
    assert taught.mean(dim=1).abs().max() < 1e-4
    assert (taught.std(dim=1, correction=0) - 1).abs().max() < 1e-4


def test_a_student_that_is_its_teacher_loses_nothing(tmp_path: Path) -> None:
    same = {"distil": {"heads": "none", "standardize": False, "layers": [-1]}, "optimizer.upstream_lr": 0.0, "store.mode": "off"}
    found = distilled(tmp_path, "same", "test_hubert", steps=1, **same)["scores"]["dev"]
    assert found["l1"] < 1e-5
    assert found["cosine"] > 0.99999


def test_a_stored_teacher_teaches_what_a_computed_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    stored, computed = (distilled(tmp_path, mode, **{"store.mode": mode})["scores"]["dev"] for mode in ("on", "off"))
    assert abs(stored["distance"] - computed["distance"]) < 2e-3
    assert stored["distance"] != computed["distance"] or stored["l1"] > 0


def test_learning_comes_nearer_to_the_teacher(tmp_path: Path) -> None:
    rates = {"optimizer": {"lr": 3e-3, "upstream_lr": 3e-3, "warmup_steps": 5}}
    start, end = (distilled(tmp_path, f"after{steps}", steps=steps, **rates)["scores"]["dev"] for steps in (1, 60))
    assert end["distance"] < start["distance"] - 0.1
    assert end["cosine"] > start["cosine"] + 0.1


def test_the_upstream_is_written_as_the_hub_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import HubertModel

    distilled(tmp_path, "run")
    for name, flags, near in (("whole", [], 0.0), ("half", ["--half"], 2e-2)):
        assert dispatch(["export", str(tmp_path / "run"), str(tmp_path / name), "--hub", *flags]) == 0
        there, here = load_upstream(str(tmp_path / name)), load_upstream(str(tmp_path / "run"))
        waves = [torch.randn(4000) * 0.1, torch.randn(9000) * 0.1]
        pairs = zip(there(waves).values, here(waves).values, strict=True)
        assert max(float((one - other).abs().max()) for one, other in pairs) <= near
        assert not there.untrained
    theirs = HubertModel.from_pretrained(tmp_path / "whole").eval()
    with torch.no_grad():
        states = theirs(waves[1][None], output_hidden_states=True).hidden_states
    assert torch.allclose(states[-1], here(waves[1:]).values[-1], atol=1e-5)
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * (
        tmp_path / "whole" / "model.safetensors"
    ).stat().st_size
    assert "-u" in capsys.readouterr().err
    for verb in ("predict", "export"):
        with pytest.raises(UserError, match=r"found one of distil in .*whose product is its upstream"):
            dispatch([verb, str(tmp_path / "run"), str(tmp_path / "other")])
    with pytest.raises(UserError, match="Expected --hub beside --half"):
        dispatch(["export", str(tmp_path / "run"), str(tmp_path / "other"), "--half"])


def test_checkpoints_of_a_run_are_averaged(tmp_path: Path) -> None:
    distilled(tmp_path, "run")
    best = tmp_path / "run" / "checkpoints" / "best.safetensors"
    tensors, facts = load_tensors(best)
    other = best.with_name("other.safetensors")
    save_tensors(other, {key: value + 1 if value.is_floating_point() else value for key, value in tensors.items()}, facts)
    assert dispatch(["merge", str(best), str(other), "--weights", "0.25,0.75", "--to", str(tmp_path / "mean")]) == 0
    found, weights = load_upstream(str(tmp_path / "mean")).state_dict(), load_upstream(str(tmp_path / "run")).state_dict()
    assert all(torch.allclose(found[key], weights[key] + 0.75, atol=1e-5) for key in weights)
    with pytest.raises(UserError, match="which the hub's format is for"):
        dispatch(["merge", "fbank", "fbank", "--to", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="Expected a checkpoint in the folder of a run"):
        dispatch(["merge", str(tmp_path / "mean" / "model.safetensors"), str(best), "--to", str(tmp_path / "none")])


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"layer of the teacher \(from 0 to 2\) in distil.layers, found 3"):
        build(DistilConfig(layers=[3]), {}, {"audio": STUDENT, TEACHER: TAUGHT})
    with pytest.raises(UserError, match="as wide as its teacher"):
        build(DistilConfig(heads="none"), {}, {"audio": STUDENT, TEACHER: TAUGHT})
    with pytest.raises(UserError, match="found neither"):
        build(DistilConfig(l1_weight=0, cosine_weight=0), {}, {"audio": STUDENT, TEACHER: TAUGHT})
    with pytest.raises(UserError, match="frozen teacher"):
        distilled(tmp_path, "run", **{"teacher.trainable": True})


def test_cosines_are_those_of_torch() -> None:
    expert = Distillation((STUDENT, TAUGHT), (0,), DistilConfig())
    made, taught = torch.randn(1, 2, 1, 5), torch.randn(1, 2, 1, 5)
    sums = expert.decode(Output(made, (2,), expected=taught))
    assert torch.allclose(sums[0, 2], F.cosine_similarity(made, taught, dim=-1).sum(), atol=1e-6)


def test_a_new_model_is_the_same_every_time_and_marked_where_it_is_frozen() -> None:
    one, other = (load_upstream(UpstreamConfig(name="new/hubert", trainable=learns, config=TINY)) for learns in (True, False))
    assert one.weights_hash() == other.weights_hash()
    assert (one.untrained, other.untrained) == (False, True)
    assert one.front_end() == []  # its convolutions know nothing: they are trained
    for config, message in (
        ({"hiden_size": 8}, r"upstream.config.hiden_size.*Did you mean 'hidden_size'"),
        ({"hidden_size": 33}, "fit each other"),
        ({"num_hidden_layers": 10_000}, "Expected at most 256"),
    ):
        with pytest.raises(UserError, match=message):
            load_upstream(UpstreamConfig(name="new/hubert", config=TINY | config))
    with pytest.raises(UserError, match="Did you mean 'hubert'"):
        load_upstream("new/hubrt")
    with pytest.raises(UserError, match="has no option 'config'"):
        load_upstream(UpstreamConfig(name="fbank", config={"a": 1}))


def test_gabor_filters_hear_the_tones_that_they_are_named_for() -> None:
    """A tone excites the channels of its own pitch most, whatever its phase."""
    sizes = TINY | {"conv_dim": [64, 16], "conv_kernel": [400, 3], "conv_stride": [160, 2], "num_feat_extract_layers": 2}
    random, gabor = (load_upstream(UpstreamConfig(name="new/hubert", config=sizes, filters=kind)) for kind in ("random", "gabor"))
    assert random.weights_hash() != gabor.weights_hash()
    convolution = gabor.model.feature_extractor.conv_layers[0].conv
    times = torch.arange(16_000) / 16_000
    loudest = []
    for hz, phase in ((200, 0.0), (200, 1.0), (1000, 0.0), (1000, 2.0), (4000, 0.0)):
        answer = convolution(torch.cos(2 * torch.pi * hz * times + phase).view(1, 1, -1)).clamp(min=0).mean(dim=2)[0]
        loudest.append(int(answer.view(-1, 4).sum(dim=1).argmax()))
    assert loudest[0] == loudest[1] < loudest[2] == loudest[3] < loudest[4]
