"""SpecAugment on features: what it changes, what it never changes, and that asr's own masks are what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from headwater.corpus.batch import Batch
from headwater.downstream import masks
from headwater.downstream.asr.expert import TASK, AsrConfig
from headwater.downstream.load import load_task
from headwater.downstream.masks import MasksConfig, mask
from headwater.training.model import Model
from headwater.upstream.base import Frames, Layers, UpstreamConfig, UpstreamSpec
from headwater.upstream.load import load_upstream

SPECS = {"audio": UpstreamSpec("audio", 1, 5, 16_000, lambda samples: samples // 320)}
PAPER = MasksConfig(time_warp=5, time_masks=2, time_width=39, dim_masks=4, dim_width=49, fill="zero")


def frames_of(*lengths: int, dim: int = 5) -> Frames:
    return Frames(torch.randn(len(lengths), max(lengths), dim, generator=torch.Generator().manual_seed(1)), lengths)


@pytest.mark.parametrize(
    ("fill", "expected"),
    [("mean", [8.325983420014381, 9.12620759010315]), ("zero", [8.401641607284546, 9.13526102900505])],
)
def test_the_masks_of_asr_are_those_that_they_were_before_other_tasks_had_some(fill: Any, expected: list[float]) -> None:
    torch.manual_seed(0)
    small = {"projector_dim": 6, "hidden_dim": 4, "layers": 2, "dropout": 0.0}
    options = AsrConfig(**small, spec_augment=True, time_width=3, dim_width=2, mask_fill=fill)
    expert = TASK.build(options, {"characters": [" ", "A", "B"], "normalize": "upper"}, SPECS)
    torch.manual_seed(3)
    found = expert({"audio": frames_of(9, 6)}).values.double().sum(dim=(1, 2))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-5)


def test_a_run_without_masks_draws_nothing() -> None:
    frames, before = frames_of(9, 6), torch.random.get_rng_state()
    assert mask(frames, MasksConfig()) is frames
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_warp_keeps_length_ends_and_padding_and_moves_a_point_by_no_more_than_asked() -> None:
    ramp = torch.arange(60.0)[None, :, None].repeat(2, 1, 3)  # a frame's value is its time
    frames, moves = Frames(ramp, (60, 40)), set()
    for seed in range(40):
        torch.manual_seed(seed)
        warped = masks.warp_time(frames, 5)
        assert warped.lengths == frames.lengths
        assert torch.equal(warped.values[1, 40:], ramp[1, 40:])
        for row, length in enumerate(frames.lengths):
            moved = (warped.values[row, :length, 0] - ramp[row, :length, 0]).abs().max()
            moves.add(float(moved) > 0.4)
            assert moved < 5.5
    assert True in moves


def test_an_utterance_too_short_to_be_warped_stays_as_it_is() -> None:
    frames = frames_of(10, 6)
    assert torch.equal(masks.warp_time(frames, 5).values, frames.values)


def test_the_gradient_finds_its_way_through_warp_and_masks() -> None:
    values = torch.randn(2, 60, 80, requires_grad=True)
    torch.manual_seed(0)
    mask(Frames(values, (60, 50)), PAPER).values.sum().backward()
    assert values.grad is not None
    assert 0 < float((values.grad[0] == 0).float().mean()) < 1  # what is masked teaches nothing


def test_means_are_no_frames_to_mask() -> None:
    with pytest.raises(ValueError, match=r"Expected frames to mask, found their mean\. Store frames"):
        mask(Frames(torch.zeros(2, 1, 5), (1, 1), pooled=True), PAPER)


def test_the_features_of_every_task_are_masked_in_training_and_never_in_evaluation() -> None:
    upstream, seen = load_upstream(UpstreamConfig(name="fbank")), []
    classes = {"classes": ["a", "b"]}
    experts = {name: load_task(name).head(classes, upstream) for name in ("emotion", "sid")}
    for expert in experts.values():
        expert.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]["audio"].values))
    sections: Any = {"audio": UpstreamConfig(name="fbank")}
    model = Model({"audio": upstream}, experts, sections, masks=MasksConfig(time_masks=1, time_width=30, fill="zero"))
    values = torch.ones(2, 40, upstream.spec.dim)
    batch = Batch(None, (), ids=("u", "v"), stored={"audio": Layers([values], (40, 40))})
    for train in (True, False):
        model.train(train)
        torch.manual_seed(1)
        for task in experts:
            model.output_of(task, batch)
    assert [bool((given == 0).any()) for given in seen] == [True, True, False, False]
