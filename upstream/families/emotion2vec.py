"""emotion2vec: data2vec 2.0 trained for emotion; its published checkpoints are read as tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import UserError
from ...core.files import cache_folder, folder_aside, hash_file, write_json
from ...core.torch_files import read_tensors
from ..exact_padding import positions
from ..hub.family import WAVEFORM_OPTIONS, HubFamily, OwnFiles, Tiny
from ..hub.hubert_family import Around, wrapped
from ..hub.register import register_family
from ..hub.tiny import SMALL

_CONVERSION = 1  # raised by hand when what is written changes
_DESCRIBED = "config.yaml"
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_PREFIX = re.compile(r"^(?:w2v_encoder\.w2v_model|d2v_model|model)\.")
_UNUSED = re.compile(
    r"^(?:proj|_ema|modality_encoders\.AUDIO\.decoder|shared_decoder|recon_proj)\b"
)  # of pretraining, and labels
_FRONT = r"^modality_encoders\.AUDIO\."
# published names -> ours
_RENAMED = [
    (rf"{_FRONT}(extra_tokens|alibi_scale)$", r"encoder.\1"),
    (rf"{_FRONT}local_encoder\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (rf"{_FRONT}local_encoder\.conv_layers\.(\d+)\.2\.1\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (rf"{_FRONT}project_features\.1\.", "feature_projection.layer_norm."),
    (rf"{_FRONT}project_features\.2\.", "feature_projection.projection."),
    (rf"{_FRONT}context_encoder\.norm\.", "encoder.layer_norm."),
]
_PARTS = {  # of a block
    "attn.proj": "attention.out_proj",
    "norm1": "layer_norm",
    "norm2": "final_layer_norm",
    "mlp.fc1": "feed_forward.intermediate_dense",
    "mlp.fc2": "feed_forward.output_dense",
}


def _begin(encoder: Any, hidden: Tensor, valid: Tensor | None, _: bool) -> tuple[Tensor, dict[str, Any]]:
    bias = distance_bias(encoder, hidden.shape[1])
    hidden = hidden + positions(encoder.pos_conv_embed, hidden, valid)
    tokens = encoder.extra_tokens.expand(len(hidden), -1, -1)
    hidden = encoder.dropout(encoder.layer_norm(torch.cat([tokens.to(hidden.dtype), hidden], dim=1)))
    if valid is not None:
        seen = F.pad(valid, (tokens.shape[1], 0), value=True)
        bias = bias.masked_fill(~seen[:, None, None, :], float("-inf"))
    return hidden, {"attention_mask": bias.to(hidden.dtype)}


def distance_bias(encoder: Any, num_frames: int) -> Tensor:
    """Return what attention adds (1, head, token or frame, token or frame): less the farther frames lie apart, 0 for tokens."""
    tokens, heads = encoder.extra_tokens.shape[1], encoder.alibi_scale.shape[1]
    device = encoder.alibi_scale.device
    place = torch.arange(num_frames, device=device, dtype=torch.float32)
    distance = (place.unsqueeze(0) - place.unsqueeze(1)).abs()
    slopes = torch.tensor(alibi_slopes(heads), device=device).view(1, heads, 1, 1)
    bias = -distance * slopes * encoder.alibi_scale.clamp(min=0)
    return F.pad(bias, (tokens, 0, tokens, 0))


def alibi_slopes(num_heads: int) -> list[float]:
    """Return each head's slope (Press et al. 2022): powers of 2, then where heads are no power of 2 those halfway between."""
    whole = 2 ** math.floor(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (head + 1) / whole) for head in range(whole)]
    return slopes + [2.0 ** (-4.0 * (2 * head + 1) / whole) for head in range(num_heads - whole)]


_AROUND = Around(begin=_begin, norms_output=lambda _: False, tokens=lambda config: config.num_extra_tokens)


def is_emotion2vec(place: Path) -> bool:
    """Tell whether a folder holds an emotion2vec as it is published, or whether a file may be one."""
    if place.is_file():
        return place.suffix in {".pt", ".pth"}
    described = place / _DESCRIBED  # of the toolkit that it was published with
    is_described = described.is_file() and "Emotion2vec" in described.read_text(encoding="utf-8", errors="replace")
    return is_described or (place / "emotion2vec_base.pt").is_file()


def _weights(folder: Path) -> Path:
    if (folder / "model.pt").is_file():  # which that toolkit reads, whatever else is there
        return folder / "model.pt"
    found = sorted(folder.glob("*.pt"))
    if len(found) != 1:
        raise UserError(f"Expected one checkpoint (.pt) in '{folder}', found {len(found)}. Give the file: -u emotion2vec -k FILE")
    return found[0]


def converted(place: Path) -> Path:
    """Return the folder in the hub's format that a published checkpoint was made into, once, in the cache."""
    path = place if place.is_file() else _weights(place)
    folder = cache_folder() / f"emotion2vec-{_CONVERSION}" / hash_file(str(path))[:32]
    if not folder.is_dir():
        state, settings = converted_weights(read_tensors(path), path)
        try:
            with folder_aside(folder) as aside:
                _write(state, settings, aside)
        except (OSError, UserError):
            if not folder.is_dir():  # another process has just made it
                raise
    return folder


def _write(state: Mapping[str, Tensor], settings: Mapping[str, Any], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", settings)


def converted_weights(content: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights under our names and the sizes that they have; whatever is not known is refused by name."""
    held = content.get("model", content) if isinstance(content, Mapping) else {}
    published = {_PREFIX.sub("", str(name)): value for name, value in held.items() if isinstance(value, Tensor)}
    published = {name: value.float() for name, value in published.items() if not _UNUSED.match(name)}
    first = "modality_encoders.AUDIO.context_encoder.blocks."
    prenet = len({name.split(".")[4] for name in published if name.startswith(first)})
    refuse_shapes(published, path)
    state = dict[str, Tensor]()
    for name, value in published.items():
        state |= _renamed(name, value, prenet)
    unknown = sorted(name for name in state if not name.startswith(("encoder.", "feature_")))
    if not prenet or unknown:
        found = f"'{unknown[0]}'" if published and unknown else "no such weights"
        raise UserError(f"Expected the weights of an emotion2vec in '{path}', found {found}. Fetch emotion2vec's own checkpoint.")
    return state, _settings(state, path)


def refuse_shapes(published: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what would be taken apart wrongly: query, key and value that are no three, scales of each block alone."""
    for name, value in published.items():
        is_three = not re.search(r"\.attn\.qkv\.", name) or (value.ndim > 0 and len(value) > 0 and len(value) % 3 == 0)
        is_shared = not name.endswith(".alibi_scale") or len(value.squeeze().shape) == 1
        if not is_three or not is_shared:
            raise UserError(
                f"Expected the weights of an emotion2vec in '{path}', found '{name}' of the shape {tuple(value.shape)}. Fetch "
                "emotion2vec's own checkpoint."
            )


def _renamed(name: str, value: Tensor, prenet: int) -> dict[str, Tensor]:
    """Return a published weight under our name, or the three of query, key and value that are one there."""
    if match := re.match(rf"{_FRONT}relative_positional_encoder\.(\d+)\.0\.(\w+)$", name):
        return {f"encoder.pos_conv_embed.layers.{int(match[1]) - 1}.conv.{match[2]}": value}
    if match := re.match(rf"(?:({_FRONT[1:]}context_encoder)\.)?blocks\.(\d+)\.(.+)\.(weight|bias)$", name):
        block = f"encoder.layers.{int(match[2]) + (0 if match[1] else prenet)}"
        if match[3] == "attn.qkv":
            parts = zip("qkv", value.chunk(3), strict=True)
            return {f"{block}.attention.{part}_proj.{match[4]}": rows for part, rows in parts}
        return {f"{block}.{_PARTS.get(match[3], match[3])}.{match[4]}": value}
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return {name: value.reshape(1, -1, 1, 1) if name == "encoder.alibi_scale" else value}


def _settings(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return the config.json of weights."""
    blocks = {int(match[1]) for name in state if (match := re.match(r"encoder\.layers\.(\d+)\.", name))}
    convolutions = [state.get(f"feature_extractor.conv_layers.{index}.conv.weight") for index in range(len(_STRIDES))]
    positional = [name for name in state if re.match(r"encoder\.pos_conv_embed\.layers\.\d+\.conv\.weight$", name)]
    try:
        dim, _, kernel = (weight := state["encoder.pos_conv_embed.layers.0.conv.weight"]).shape
        return {
            "model_type": "emotion2vec",
            "hidden_size": dim,
            "num_hidden_layers": max(blocks) + 1,
            "num_attention_heads": state["encoder.alibi_scale"].numel(),
            "intermediate_size": len(state["encoder.layers.0.feed_forward.intermediate_dense.weight"]),
            "num_extra_tokens": state["encoder.extra_tokens"].shape[1],
            "conv_dim": [len(weight) for weight in convolutions],  # type: ignore[arg-type]
            "conv_kernel": [weight.shape[2] for weight in convolutions],  # type: ignore[union-attr]
            "conv_stride": [*_STRIDES],
            "conv_pos_kernel_size": kernel,
            "num_conv_pos_embeddings": len(positional),
            "num_conv_pos_embedding_groups": dim // weight.shape[1],
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise UserError(
            f"Expected every weight of an emotion2vec in '{path}', found one missing ({problem}). Fetch the file again."
        ) from None


register_family(
    HubFamily(
        "emotion2vec",
        "emotion2vec",
        "headwater.upstream.hub.emotion2vec",
        "Emotion2vecModel",
        partial(wrapped, around=_AROUND),
        WAVEFORM_OPTIONS - {"padding", "spec_augment"},
        files=OwnFiles(("*.pt", _DESCRIBED), is_emotion2vec, converted),
        checkpoints={
            "emotion2vec": "emotion2vec/emotion2vec_base",
            "emotion2vec_plus_seed": "emotion2vec/emotion2vec_plus_seed",
            "emotion2vec_plus_base": "emotion2vec/emotion2vec_plus_base",
            "emotion2vec_plus_large": "emotion2vec/emotion2vec_plus_large",
        },
        tiny={
            "test_emotion2vec": Tiny(
                "emotion2vec", SMALL | {"num_conv_pos_embeddings": 5, "conv_pos_kernel_size": 19, "num_extra_tokens": 3}
            )
        },
    )
)
