"""What an audit finds in data: planted copies, leaks and wrong labels are found, and in clean data none are."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
import torch
from numpy.typing import NDArray

from headwater.analysis.audit.duplicates import Pair, groups_of, near_identical
from headwater.analysis.audit.leakage import leak
from headwater.analysis.audit.noise import label_noise
from headwater.analysis.audit.probes import held_out_outputs, parts_for_noise
from headwater.analysis.audit.sound import RATE, sound_of
from headwater.training.exact.losses import Multinomial
from headwater.training.exact.probe import Split

SIMULATIONS = 20


def babble(generator: np.random.Generator, seconds: float) -> NDArray[np.float32]:
    """Return noise whose loudness and colour move as those of speech do."""
    count = int(seconds * RATE)
    time = np.linspace(0, 1, count)
    total = np.zeros(count)
    for _ in range(12):
        course = np.interp(time, np.linspace(0, 1, 12), generator.random(12) ** 2)
        frequency = np.interp(time, np.linspace(0, 1, 8), generator.uniform(150, 3000) * generator.uniform(0.8, 1.25, 8))
        total += course * np.sin(2 * np.pi * np.cumsum(frequency) / RATE + generator.uniform(0, 6))
    return (0.05 * total + 0.002 * generator.standard_normal(count)).astype(np.float32)


def copies(original: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return near-identical copies."""
    return {
        "quieter, as 16 bit": (np.round(original * 0.2 * 32768) / 32768).astype(np.float32),
        "5 ms later": np.concatenate([np.zeros(RATE // 200, np.float32), original]),
        "cut by 8 ms": original[RATE // 125 :],
        "resampled": soxr.resample(soxr.resample(original, RATE, 6000), 6000, RATE).astype(np.float32),
        "with noise": original
        + 0.02 * original.std() * np.random.default_rng(1).standard_normal(len(original)).astype(np.float32),
    }


@pytest.mark.parametrize("seconds", [0.6, 1.0, 4.0])
def test_planted_copies_are_found_and_nothing_else(seconds: float) -> None:
    generator = np.random.default_rng(0)
    waveforms = [babble(generator, seconds * (1 + 0.01 * (number % 3))) for number in range(60)]
    planted = copies(waveforms[7])
    everything = [*waveforms, *planted.values()]
    pairs = near_identical([sound_of(one) for one in everything], lambda row: everything[row])
    found = {pair.second for pair in pairs if pair.first == 7} | {pair.first for pair in pairs if pair.second == 7}
    assert found == {*range(60, 60 + len(planted))}
    groups = groups_of(len(everything), pairs)
    assert len({*groups}) == 60


def test_clean_audio_has_no_copies() -> None:
    for seed in range(SIMULATIONS):
        generator = np.random.default_rng(100 + seed)
        waveforms = [babble(generator, 0.8) for _ in range(25)]
        waveforms += [0.0005 * generator.standard_normal(int(0.8 * RATE)).astype(np.float32) for _ in range(3)]  # nearly silent
        sounds = [sound_of(one) for one in waveforms]
        assert not near_identical(sounds, waveforms.__getitem__)


def test_recordings_are_one_group_through_others() -> None:
    assert groups_of(5, [Pair(3, 4, 1.0), Pair(1, 3, 1.0)]) == [0, 1, 2, 1, 1]


def test_a_planted_leak_is_counted_over_folds() -> None:
    clean = {"train": [("a", "x"), ("b", "y")], "dev": [("c", None)], "test": [("d", "z"), ("e", None)]}
    leaking = {**clean, "test": [("d", "x"), ("e", "z")]}
    assert leak("speaker", [clean], "test").rows == 0
    found = leak("speaker", [clean, leaking], "test")
    assert (found.rows, found.of, found.values, found.of_values, found.examples) == (1, 3, 1, 2, ("d",))


def corpus_of(seed: int, distance: float, rows: int = 240, classes: int = 4) -> tuple[NDArray, NDArray[np.int64], list[str]]:
    """Return features of classes that overlap more or less, their labels, and speakers with a voice each."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    speakers = generator.integers(0, 10, rows)
    centres, voices = generator.standard_normal((classes, 16)), generator.standard_normal((10, 16))
    features = distance * centres[labels] + 0.5 * voices[speakers] + generator.standard_normal((rows, 16))
    return features, labels, [f"s{one}" for one in speakers]


def doubted(features: NDArray, labels: NDArray[np.int64], speakers: list[str]) -> tuple[float, set[int]]:
    """Return the share of labels that seem wrong, and the rows that are listed."""
    values = torch.from_numpy(features - features.mean(axis=0)).float()
    count = len(labels)
    loss = Multinomial(torch.from_numpy(labels), torch.full((count,), 1 / count, dtype=torch.float64), int(labels.max()) + 1)
    parts = parts_for_noise(labels.tolist(), speakers)
    noise = label_noise(held_out_outputs(Split({"audio": [values[None]]}, loss), parts, 1e-2), labels.tolist())
    return noise.share, {one.row for one in noise.suspects}


@pytest.mark.parametrize("distance", [0.3, 1.0, 3.0])
def test_no_label_of_a_clean_corpus_is_doubted(distance: float) -> None:
    for seed in range(SIMULATIONS):
        share, rows = doubted(*corpus_of(seed, distance))
        assert (share, rows) == (0.0, set()), seed


def test_planted_wrong_labels_are_found() -> None:
    for seed in range(5):
        features, labels, speakers = corpus_of(seed, 2.0)
        generator = np.random.default_rng(seed)
        wrong = generator.choice(len(labels), len(labels) // 10, replace=False)
        labels[wrong] = (labels[wrong] + generator.integers(1, 4, len(wrong))) % 4
        share, rows = doubted(features, labels, speakers)
        assert 0.05 < share < 0.16
        assert len(rows & {*wrong}) >= 0.75 * len(wrong), seed
        assert len(rows & {*wrong}) >= 0.75 * len(rows), seed


def test_parts_keep_speakers_together_unless_a_class_has_one_speaker() -> None:
    speakers = [f"s{row % 10}" for row in range(60)]
    parts = parts_for_noise([row // 10 % 2 for row in range(60)], speakers)
    assert all(len({int(part) for part, own in zip(parts, speakers, strict=True) if own == name}) == 1 for name in speakers)
    by_target = parts_for_noise([row % 10 for row in range(60)], speakers)  # the speaker is the label
    assert {int(part) for part, own in zip(by_target, speakers, strict=True) if own == "s3"} == {0, 1, 2, 3, 4}
