"""Find labels that may be wrong: confident disagreement of heads that never saw the utterance, beyond what chance explains.

The heads' outputs z are compared with the labels by a model of two numbers, a temperature T and a share e of labels that were
drawn at random: p(label) = (1 - e) softmax(z / T)[label] + e / classes. Overlapping classes need T alone; wrong labels need e.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CERTAIN = 16.0  # twice the gain in log likelihood by e above 0 at which wrong labels are claimed (p about 3e-5)
_TEMPERATURES = np.geomspace(0.2, 20, 60)
_SHARES = np.concatenate([[0.0], np.geomspace(0.002, 0.6, 50)])


@dataclass(frozen=True)
class Suspect:
    """An utterance whose label may be wrong."""

    row: int
    predicted: int
    confidence: float  # of the prediction


@dataclass(frozen=True)
class Noise:
    """How many labels seem wrong, and which."""

    share: float  # of the labels; 0 where the heads' own doubt explains all disagreement
    evidence: float  # twice the gain in log likelihood
    suspects: tuple[Suspect, ...]  # the surest first


def label_noise(outputs: NDArray, labels: Sequence[int]) -> Noise:
    """Return the labels that may be wrong, from outputs (utterance, class) of heads that were fitted without the utterance."""
    truth, classes = np.asarray(labels), outputs.shape[1]
    likelihood = np.stack([_log_likelihoods(outputs / heat, truth) for heat in _TEMPERATURES])  # (temperature, share)
    heat, share = np.unravel_index(int(likelihood.argmax()), likelihood.shape)
    evidence = 2 * float(likelihood.max() - likelihood[:, 0].max())
    if evidence < CERTAIN:
        return Noise(0.0, evidence, ())
    chances, e = softmax(outputs / _TEMPERATURES[heat]), float(_SHARES[share])
    own = chances[np.arange(len(truth)), truth]
    doubt = e / classes / ((1 - e) * own + e / classes)
    # confident learning (Northcutt and others, 2021): as sure of another class as heads are of it where it is the label
    usual = np.array([chances[truth == one, one].mean() if (truth == one).any() else np.inf for one in range(classes)])
    predicted = chances.argmax(axis=1)
    sure = chances[np.arange(len(truth)), predicted]
    rows = np.flatnonzero((predicted != truth) & (doubt > 0.5) & (sure >= usual[predicted]))
    suspects = sorted((Suspect(int(row), int(predicted[row]), float(sure[row])) for row in rows), key=lambda one: -one.confidence)
    return Noise(e * (classes - 1) / classes, evidence, tuple(suspects))


def _log_likelihoods(outputs: NDArray, truth: NDArray) -> NDArray:
    """Return the log likelihood of labels for each share of random ones."""
    own = softmax(outputs)[np.arange(len(truth)), truth]
    chances = (1 - _SHARES[:, None]) * own + _SHARES[:, None] / outputs.shape[1]
    return np.log(chances + 1e-300).sum(axis=1)


def softmax(values: NDArray) -> NDArray:
    """Return probabilities (row, class)."""
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
