"""Claim: pieces pad at most 5 % on IEMOCAP-like lengths, a step of 32 or a whole split, where unsorted batches pad 65 % and more.

python benchmarks/padding.py
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from reference import lengths

from headwater.corpus.base import Utterance
from headwater.corpus.batch import Example
from headwater.training.batches import cut_pieces, draw
from headwater.training.config import TrainingConfig
from headwater.training.source import padded_pieces


def main() -> None:
    """Count padded seconds over real ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=5531)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    flags = parser.parse_args()
    seconds = lengths(flags.utterances)
    examples = [Example(Utterance(str(row), ""), float(length)) for row, length in enumerate(seconds)]
    steps = [[examples[row] for row in draw(len(examples), flags.batch_size, 0, step)] for step in range(flags.steps)]
    config = TrainingConfig()
    print(f"{flags.utterances} utterances, {seconds.mean():.2f} s on average, pieces of at most {config.piece_seconds:g} s")
    report(f"steps of {flags.batch_size}", [piece for step in steps for piece in padded_pieces(step, config)], len(steps))
    whole_steps = [piece for step in steps for piece in cut_pieces(step, seconds=config.piece_seconds, overhead=1e9)]
    report("  cut as rarely as may be", whole_steps, len(steps))
    report("whole split", padded_pieces(examples, config))
    for size in (4, 8, 32):
        unsorted = [[examples[row] for row in draw(len(examples), size, 0, step)] for step in range(len(examples) // size)]
        report(f"unsorted batches of {size}", unsorted)


def report(what: str, pieces: Sequence[Sequence[Example]], steps: int = 0) -> None:
    """Print how much is padded, and how many pieces there are."""
    padded = sum(len(piece) * max(example.seconds for example in piece) for piece in pieces)
    real = sum(example.seconds for piece in pieces for example in piece)
    count = f"{len(pieces) / steps:.1f} pieces a step" if steps else f"{len(pieces)} pieces"
    print(f"{what:<26} x{padded / real:.3f} of the real seconds   {count}")


if __name__ == "__main__":
    main()
