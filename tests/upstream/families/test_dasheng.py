"""Dasheng: a folder as it is published gives what its formulas say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.core.errors import UserError
from headwater.upstream.families.dasheng import decibels
from headwater.upstream.load import load_upstream

DIM, HEADS, BLOCKS, COLUMNS = 24, 4, 2, 100


def published() -> dict[str, Tensor]:
    """Return random weights under the names, and of the shapes, of a published checkpoint: a small one."""
    sizes: dict[str, tuple[int, ...]] = {
        "encoder.time_pos_embed": (1, DIM, 1, COLUMNS // 4),
        "encoder.freq_pos_embed": (1, DIM, 1, 1),
        "encoder.patch_embed.proj.weight": (DIM, 1, 64, 4),
        "encoder.patch_embed.proj.bias": (DIM,),
        "encoder.norm.weight": (DIM,),
        "encoder.norm.bias": (DIM,),
    } | {f"encoder.init_bn.1.{kind}": (64,) for kind in ("weight", "bias", "running_mean", "running_var")}
    for index in range(BLOCKS):
        place = f"encoder.blocks.{index}"
        for part, (rows, columns) in {
            "attn.qkv": (3 * DIM, DIM),
            "attn.proj": (DIM, DIM),
            "mlp.fc1": (4 * DIM, DIM),
            "mlp.fc2": (DIM, 4 * DIM),
        }.items():
            sizes |= {f"{place}.{part}.weight": (rows, columns), f"{place}.{part}.bias": (rows,)}
        sizes |= {f"{place}.{norm}.{kind}": (DIM,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    torch.manual_seed(0)
    weights = {name: 0.2 * torch.randn(shape) + (".norm" in name) for name, shape in sizes.items()}
    weights["encoder.init_bn.1.running_var"] = 100 + torch.rand(64)
    return weights | {"encoder.init_bn.1.num_batches_tracked": torch.tensor(7)}


def formulas(weights: dict[str, Tensor], waveform: Tensor) -> list[Tensor]:
    """Return the layers (frame, dim) of one utterance, written down from the code that it was published with."""

    def of(place: str) -> tuple[Tensor, Tensor]:
        return weights[f"encoder.{place}.weight"], weights[f"encoder.{place}.bias"]

    def normed(hidden: Tensor, place: str) -> Tensor:
        return F.layer_norm(hidden, (DIM,), *of(place), eps=1e-6)

    levels, statistics = decibels(waveform, 64), "encoder.init_bn.1.running"
    levels = F.batch_norm(levels, weights[f"{statistics}_mean"], weights[f"{statistics}_var"], *of("init_bn.1"))
    total, layers = len(levels) // 4, list[list[Tensor]]()
    pieces = list(levels.split(COLUMNS))
    if len(pieces) > 1:
        pieces[-1] = F.pad(pieces[-1], (0, 0, 0, COLUMNS - len(pieces[-1])))
    for piece in pieces:
        patches = F.conv2d(piece.T[None, None], *of("patch_embed.proj"), stride=(64, 4))  # (1, dim, 1, patch)
        patches = patches + weights["encoder.time_pos_embed"][..., : patches.shape[3]] + weights["encoder.freq_pos_embed"]
        hidden = patches[0, :, 0].T
        found = [hidden]
        for index in range(BLOCKS):
            place = f"blocks.{index}"
            parts = F.linear(normed(hidden, f"{place}.norm1"), *of(f"{place}.attn.qkv")).view(len(hidden), 3, HEADS, -1)
            heads = []
            for head in range(HEADS):
                query, key, value = parts[:, :, head].unbind(1)
                heads.append((query @ key.T / math.sqrt(DIM // HEADS)).softmax(1) @ value)
            hidden = hidden + F.linear(torch.cat(heads, 1), *of(f"{place}.attn.proj"))
            inner = F.gelu(F.linear(normed(hidden, f"{place}.norm2"), *of(f"{place}.mlp.fc1")))
            hidden = hidden + F.linear(inner, *of(f"{place}.mlp.fc2"))
            found.append(hidden)
        layers.append([*found[:-1], normed(found[-1], "norm")])
    return [torch.cat(parts)[:total] for parts in zip(*layers, strict=True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder as it lies on the hub."""
    from safetensors.torch import save_file

    sizes = {"embed_dim": DIM, "depth": BLOCKS, "num_heads": HEADS, "target_length": COLUMNS, "patch_size": [64, 4]}
    described = {"model_type": "dasheng", "name": "dasheng-base", "loss": "BCELoss", "encoder_kwargs": sizes}
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    save_file(published(), tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


# 100 columns are a piece: one that is not whole, one that is, two and a half, three whole ones
@pytest.mark.parametrize("length", [9000, 15_840, 40_000, 47_840])
def test_layers_of_a_published_folder_are_those_of_its_formulas(
    folder: Path, length: int, speechlike: Any, difference: Any
) -> None:
    upstream, (waveform,) = load_upstream(str(folder)), speechlike(length)
    expected = formulas(published(), waveform)
    with torch.no_grad():
        found = upstream([waveform])
    assert upstream.spec.num_layers == len(found.values) == len(expected) == BLOCKS + 1
    assert found.lengths == (upstream.spec.num_frames(length),) == (len(expected[0]),)
    assert max(difference(ours[0], theirs) for ours, theirs in zip(found.values, expected, strict=True)) < 1e-5


def test_utterances_of_any_length_are_the_same_in_a_batch(folder: Path, speechlike: Any, difference: Any) -> None:
    upstream, waveforms = load_upstream(str(folder)), speechlike(9000, 40_000, 16_000, 200)
    with torch.no_grad():
        together = upstream(waveforms)
        for row, waveform in enumerate(waveforms):
            alone = upstream([waveform])
            for ours, theirs in zip(together.values, alone.values, strict=True):
                assert difference(ours[row, : alone.lengths[0]], theirs[0]) < 1e-5


def test_decibels_are_those_of_their_definition(speechlike: Any, difference: Any) -> None:
    (waveform,) = speechlike(3000)
    padded = np.pad(waveform.double().numpy(), 256, mode="reflect")
    power = [np.abs(np.fft.rfft(padded[start : start + 512] * np.hanning(513)[:-1])) ** 2 for start in range(0, 3001, 160)]
    corners = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66) / 2595) - 1)
    hertz = np.arange(257)[:, None] * 16000 / 512
    rising, falling = (hertz - corners[:-2]) / np.diff(corners)[:-1], (corners[2:] - hertz) / np.diff(corners)[1:]
    levels = 10 * np.log10(np.maximum(np.array(power) @ np.maximum(np.minimum(rising, falling), 0), 1e-10))
    assert difference(decibels(waveform, 64), torch.from_numpy(np.maximum(levels, levels.max() - 120)).float()) < 1e-5


def test_a_config_that_hides_blocks_is_refused(folder: Path) -> None:
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    described["encoder_kwargs"]["depth"] = 1
    (folder / "config.json").write_text(json.dumps(described), encoding="utf-8")
    with pytest.raises(UserError, match="layers"):
        load_upstream(str(folder))
