"""Claim: two views out of one pass through the convolutions train faster than two forward passes, and are the same thing.

python benchmarks/views.py --utterances 8 --repeats 3
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from reference import SAMPLE_RATE, alternate
from torch import Tensor
from transformers import HubertConfig, HubertModel

from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.hub.models import configure, wrap

SECONDS = 4.5


def main() -> None:
    """Compare the two ways with dropout off, then measure them in turns with dropout on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    generator = torch.Generator().manual_seed(0)
    waves = [0.1 * torch.randn(int(SECONDS * SAMPLE_RATE), generator=generator) for _ in range(flags.utterances)]
    quiet = finetuned_base(dropout=0.0)
    with torch.no_grad():
        pairs = zip(one_pass(quiet, waves), two_forwards(quiet, waves), strict=True)
        difference = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    ways: dict[str, Callable[[Upstream, Sequence[Tensor]], list[Tensor]]] = {"two forwards": two_forwards, "one pass": one_pass}
    upstream = finetuned_base(dropout=0.1)
    medians = alternate({name: partial(step, upstream, waves, way) for name, way in ways.items()}, flags.repeats)
    how = f"{flags.threads} thread(s), median of {flags.repeats}, in turns"
    print(f"{flags.utterances} utterances of {SECONDS} s, HuBERT-base, forward and backward, {how}")
    print(f"dropout off: largest difference in any layer {difference:.1e}")
    for name, seconds in medians.items():
        print(f"{name:<13} {seconds:8.2f} core-s   x{medians['two forwards'] / seconds:.3f}")


def finetuned_base(dropout: float) -> Upstream:
    """Return a HuBERT of base size with random weights, in train mode, its convolutions frozen."""
    config = UpstreamConfig("random", dropout=dropout, trainable=True)
    torch.manual_seed(0)
    upstream = wrap(HubertModel(configure(HubertConfig(), config)), config).train()
    for part in upstream.front_end():
        part.requires_grad_(False)
    return upstream


def one_pass(upstream: Upstream, waves: Sequence[Tensor]) -> list[Tensor]:
    """Return all layers of two views (view and utterance, frame, dim), the convolutions run once."""
    return list(upstream(waves, views=2).values)


def two_forwards(upstream: Upstream, waves: Sequence[Tensor]) -> list[Tensor]:
    """Return all layers of two views, everything run twice."""
    first, second = upstream(waves), upstream(waves)
    return [torch.cat(pair) for pair in zip(first.values, second.values, strict=True)]


def step(upstream: Upstream, waves: Sequence[Tensor], way: Callable[[Upstream, Sequence[Tensor]], list[Tensor]]) -> float:
    """Return the seconds that the processor spends on one forward and backward pass."""
    began = time.process_time()
    last = way(upstream, waves)[-1].mean(dim=1)  # (view and utterance, dim)
    one, other = last.chunk(2)
    (one.square().mean() + (one - other).square().mean()).backward()
    upstream.zero_grad()
    return time.process_time() - began


if __name__ == "__main__":
    main()
