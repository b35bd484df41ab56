"""How often `headwater compare` calls equal systems different, and how often it finds a planted difference.

    python benchmarks/compare_level.py --simulations 500

Each simulated test has speakers of different skill and uneven numbers of utterances. Both systems answer from the same skill of
a speaker; with `own` above 0 each also has speakers that it likes by itself, so that only a draw of speakers shows how far the
difference moves. A row tells the share of simulations in which the interval leaves out 0, in which p is below 0.05, and in
which both hold: then a system is called better.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headwater.analysis.comparison.compare import ALPHA
from headwater.analysis.comparison.paired import differences
from headwater.analysis.table import render
from headwater.downstream.base import Outcome
from headwater.downstream.emotion.question import QUESTION

CLASSES = ("angry", "happy", "neutral", "sad")
VOCABULARY = {"classes": list(CLASSES), "merge": {}, "key": "emotion", "counts": {}}
SPREAD, LEAST, MOST = 0.6, 10, 80  # of speakers' skill in logits; utterances of a speaker


@dataclass(frozen=True)
class Simulated:
    """A test that two systems answered."""

    first: Outcome
    second: Outcome
    speakers: tuple[str, ...]


def simulate(speakers: int, seed: int, *, better: float = 0.0, own: float = 0.0) -> Simulated:
    """Return two systems' answers to one test; the second's skill is higher by `better` logits."""
    generator = np.random.default_rng([seed, speakers])
    counts = generator.integers(LEAST, MOST + 1, size=speakers)
    codes = np.repeat(np.arange(speakers), counts)
    skill = 0.4 + SPREAD * generator.standard_normal(speakers)
    truth = generator.integers(len(CLASSES), size=len(codes))
    ids = tuple(f"u{row}" for row in range(len(codes)))

    def answered(shift: float) -> Outcome:
        """Return the answers of one system."""
        logits = (skill + own * generator.standard_normal(speakers) + shift)[codes]
        right = generator.random(len(codes)) < 1 / (1 + np.exp(-logits))
        wrong = (truth + generator.integers(1, len(CLASSES), size=len(codes))) % len(CLASSES)
        return Outcome(ids, named(np.where(right, truth, wrong)), named(truth))

    return Simulated(answered(0.0), answered(better), tuple(f"s{code:03d}" for code in codes))


def named(places: NDArray[np.intp]) -> tuple[str, ...]:
    """Return classes by their place."""
    return tuple(CLASSES[place] for place in places)


def called(simulated: Simulated) -> tuple[bool, bool]:
    """Return whether the interval of UA's difference leaves out 0, and whether p is below 0.05."""
    question = replace(QUESTION, metrics={"ua": "higher"})
    found = differences(([simulated.first], [simulated.second]), simulated.speakers, question, VOCABULARY, {})["ua"]
    assert found.p is not None, "UA is defined wherever there is an utterance"
    return not found.holds_0, found.p < ALPHA


def level(speakers: int, simulations: int, **options: float) -> dict[str, str]:
    """Return how often systems are called different, as a row of the table."""
    said = np.array([called(simulate(speakers, seed, **options)) for seed in range(simulations)])
    both = said.all(axis=1)
    shares = {"interval": said[:, 0].mean(), "p": said[:, 1].mean(), "both": both.mean()}
    told = {"speakers": str(speakers), "better by": f"{options.get('better', 0):g}", "own": f"{options.get('own', 0):g}"}
    return told | {name: f"{100 * share:.1f} %" for name, share in shares.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500)
    parser.add_argument("--speakers", default="10,20,40")
    flags = parser.parse_args(arguments)
    rows = []
    for options in ({}, {"own": 0.3}, {"better": 0.3}, {"better": 0.3, "own": 0.3}):
        rows += [level(int(speakers), flags.simulations, **options) for speakers in flags.speakers.split(",")]
    print(f"{flags.simulations} simulations each; skill in logits")
    print(render(rows))


if __name__ == "__main__":
    main()
