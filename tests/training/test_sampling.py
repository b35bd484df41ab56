"""Which tasks a step trains: drawn by seed and step, counted where the run stands."""

from __future__ import annotations

from collections import Counter

import pytest

from headwater.training.sampling import SamplingConfig, tasks_of_step, tasks_of_steps

SIZES = {"large": 900, "middle": 90, "small": 10}
DRAWN = [SamplingConfig("proportional"), SamplingConfig("temperature", 2.0)]


def test_every_task_is_in_every_step_unless_one_is_drawn() -> None:
    assert tasks_of_step(SamplingConfig(), SIZES, 1, 7) == ["large", "middle", "small"]


def test_round_robin_takes_one_after_the_other() -> None:
    found = [tasks_of_step(SamplingConfig("round_robin"), SIZES, 1, step) for step in range(5)]
    assert found == [["large"], ["middle"], ["small"], ["large"], ["middle"]]


@pytest.mark.parametrize(
    ("config", "shares"),
    [
        (SamplingConfig("proportional"), {"large": 0.9, "middle": 0.09, "small": 0.01}),
        (SamplingConfig("temperature", 2.0), {"large": 0.7032, "middle": 0.2224, "small": 0.0741}),  # by the roots 30, 9.49, 3.16
        (SamplingConfig("temperature", 1.0), {"large": 0.9, "middle": 0.09, "small": 0.01}),
        (SamplingConfig("temperature", 1e9), {"large": 1 / 3, "middle": 1 / 3, "small": 1 / 3}),
    ],
    ids=["proportional", "by the square root", "temperature 1", "all alike"],
)
def test_a_task_is_drawn_by_its_size(config: SamplingConfig, shares: dict[str, float]) -> None:
    counts = Counter(tasks_of_step(config, SIZES, 3, step)[0] for step in range(6000))
    for name, share in shares.items():
        assert counts[name] / 6000 == pytest.approx(share, abs=0.025), name


@pytest.mark.parametrize("config", DRAWN, ids=lambda config: config.mode)
def test_a_draw_is_a_function_of_seed_and_step_alone(config: SamplingConfig) -> None:
    whole = [tasks_of_step(config, SIZES, 1, step) for step in range(60)]
    assert [tasks_of_step(config, SIZES, 1, step) for step in reversed(range(60))] == whole[::-1]
    assert [tasks_of_step(config, SIZES, 2, step) for step in range(60)] != whole


@pytest.mark.parametrize("config", [SamplingConfig(), SamplingConfig("round_robin"), *DRAWN], ids=lambda config: config.mode)
def test_going_on_in_the_middle_draws_what_the_whole_draws(config: SamplingConfig) -> None:
    whole = list(tasks_of_steps(config, SIZES, 5, range(40), {}))
    before: Counter[str] = Counter()
    for _, draws in whole[:17]:
        assert all(before[name] == count for name, count in draws.items())
        before.update(draws.keys())
    assert list(tasks_of_steps(config, SIZES, 5, range(17, 40), before)) == whole[17:]
