"""A script for test_sharding: one pass of every family, its weights whole and in parts, and how far they are apart."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh

from headwater.commands.common.shell import leave_launch
from headwater.training.parts import held_bytes, whole
from headwater.training.sharding import shard_upstream
from headwater.upstream.base import Upstream, UpstreamConfig, valid_positions
from headwater.upstream.load import list_upstreams, load_upstream

TEXTS = ["the quick one", "not all of them want to go there"]


def gradients(upstream: Upstream, inputs: Any, precision: str) -> dict[str, torch.Tensor]:
    """Return the gradient of every weight of one pass, whole."""
    upstream.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        layers = upstream(inputs)
    generator = torch.Generator().manual_seed(2)  # a sum by chance weights has a gradient everywhere, whatever a block ends in
    # of valid frames: behind them, norms of nothing multiply a gradient by 300 each, up to 1e22, beside which no other counts
    valid = valid_positions(layers.lengths, layers.values[0].shape[1]).unsqueeze(2)
    parts = [(value.float() * valid * torch.randn(value.shape, generator=generator)).mean() for value in layers.values]
    torch.stack(parts).sum().backward()
    found = {name: weight.grad for name, weight in upstream.named_parameters() if weight.grad is not None}
    return whole(found, keeps=True)


def apart(name: str, precision: str, mesh: Any) -> dict[str, float]:
    """Return the largest difference of a gradient, relative to its norm, and the share of the weights that is held here."""
    plain = load_upstream(UpstreamConfig(name=name, dropout=0.0)).requires_grad_(True).train()
    sharded = copy.deepcopy(plain)
    shard_upstream(sharded, mesh, precision)
    generator = torch.Generator().manual_seed(1)
    waveforms = [torch.randn(length, generator=generator) for length in (9000, 16000)]
    inputs = TEXTS if plain.spec.modality == "text" else waveforms
    expected, found = gradients(plain, inputs, precision), gradients(sharded, inputs, precision)
    assert expected.keys() == found.keys(), name
    largest = max(float(value.double().norm()) for value in expected.values())
    assert 0 < largest < 1e6, f"{name}: beside a gradient of {largest:.1e} no other is compared"
    worst = max(float((found[key] - value).double().norm()) for key, value in expected.items()) / largest
    return {"apart": worst, "share": held_bytes(sharded.parameters()) / held_bytes(plain.parameters())}


def main(out: str) -> None:
    """Compare each family in float32 and in bf16."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    names = [row.name for row in list_upstreams("test_*")]
    found = {f"{name} {precision}": apart(name, precision, mesh) for name in names for precision in ("float32", "bf16")}
    if torch.distributed.get_rank() == 0:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_launch()
