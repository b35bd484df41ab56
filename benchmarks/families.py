"""Claim: every family gives the layers that it promises, alone as in a batch; and how much of a second of one core it takes.

python benchmarks/families.py                  # all, at the size of a checkpoint, with random weights
python benchmarks/families.py hubert sew
python benchmarks/families.py dasheng --write  # into the table of docs/models.md: sizes, rate, weights, speed, exactness
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.hub.family import HubFamily, families
from headwater.upstream.hub.models import configure, new_model, wrap
from headwater.upstream.hub.tiny import tiny_tokenizer

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
SECONDS, SHORT = 4.0, 2.3  # of the two utterances
TEXTS = ("I told you all of it before, and I do not think that you listened to a word of what I said then " * 3, "no, so what")
BASE = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
# where transformers' default sizes are none of a checkpoint's
SIZES: dict[str, dict[str, Any]] = {
    "deberta-v2": {
        **BASE,
        **{"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True},
        **{"pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    },
    "granite_speech_encoder": {"num_layers": 16, "output_dim": 348},
    "qwen3": {
        **{"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8},
        **{"intermediate_size": 3072, "bos_token_id": 0},
    },
    "unispeech": {
        **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        **{"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
    },
    "wav2vec2-conformer": {
        **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
        **{"feat_extract_norm": "layer", "conv_bias": True},
    },
    "xlm-roberta": {"vocab_size": 250_002},
    "whisper": {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048},
}


def main() -> None:
    """Print a row for each family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=sorted(families()))
    parser.add_argument("--write", action="store_true", help="the rows into docs/models.md")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    print("family | layers x dim | frame, of audio | weights | seconds, or tokens, a core-second | alone against in a batch")
    for name in flags.families:
        measured = row(families()[name])
        print(" | ".join([families()[name].title, *measured]), flush=True)
        if flags.write:
            PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), families()[name], measured), encoding="utf-8")


def updated(page: str, family: HubFamily, measured: Sequence[str]) -> str:
    """Return the page of models with a family's measured cells; what a sizes' cell says behind a comma stays."""
    lines = page.splitlines(keepends=True)
    (at,) = [number for number, line in enumerate(lines) if line.startswith(f"| {family.title} |")]
    cells = [cell.strip() for cell in lines[at].strip().strip("|").split("|")]
    remark = cells[2].partition(",")
    lines[at] = f"| {' | '.join([*cells[:2], measured[0] + remark[1] + remark[2], *measured[1:], cells[-1]])} |\n"
    return "".join(lines)


def row(family: HubFamily) -> list[str]:
    """Return the measured cells of a family's row, as docs/models.md has them."""
    upstream = at_full_size(family)
    spec, given = upstream.spec, material(family)
    with torch.no_grad():
        upstream(given)  # the first pass is slower
        began = time.process_time()
        alone = [upstream([one]) for one in given]
        seconds = time.process_time() - began
        together = upstream(given)
    worst = max(
        float((many[row, :frames] - one[0, :frames]).norm() / one[0, :frames].norm())
        for row, single in enumerate(alone)
        for frames in single.lengths
        for one, many in zip(single.values, together.values, strict=True)
    )
    assert len(together.values) == spec.num_layers
    amount = sum(together.lengths) if spec.modality == "text" else SECONDS + SHORT
    weights = sum(weight.numel() for weight in upstream.parameters()) / 1e6
    speed = amount / seconds
    rate = [] if spec.modality == "text" else [f"{1000 * spec.frame_seconds:.0f} ms"]
    exact = "0" if not worst else f"{worst:.0e}".replace("e-0", "e-")
    pace = f"{speed:.0f}" if speed >= 20 else f"{speed:.1f}"
    return [f"{spec.num_layers} x {spec.dim}", *rate, f"{weights:.0f} M", pace, exact]


def at_full_size(family: HubFamily) -> Upstream:
    """Return a model of a family with random weights, as large as one of its checkpoints."""
    settings = family.model_class.config_class(**SIZES.get(family.model_type, {}))
    made = {"tokenizer": tiny_tokenizer(next(iter(family.tiny))).backend_tokenizer.to_str()} if family.tokenizer else None
    return wrap(new_model(configure(settings, UpstreamConfig())).eval(), UpstreamConfig(), architecture=made).eval()


def material(family: HubFamily) -> Sequence[Tensor] | Sequence[str]:
    """Return two utterances of noise, or two texts."""
    if family.modality == "text":
        return TEXTS
    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(int(seconds * 16_000), generator=generator) for seconds in (SECONDS, SHORT)]


if __name__ == "__main__":
    main()
