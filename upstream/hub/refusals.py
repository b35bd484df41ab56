"""What no model of the hub can be: numbers in a config.json that are refused before anything is built of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import UserError

_COUNTS = ("conv_stride", "conv_kernel", "num_attention_heads", "encoder_attention_heads", "n_heads", "n_head")


def refuse_none(described: Mapping[str, Any], folder: Path) -> None:
    """Refuse a config.json with strides, kernels or heads that are none: its model is built, and fails at the first utterance."""
    for key in _COUNTS:
        for value in _items(described.get(key)):
            if isinstance(value, (int, float)) and value < 1:
                path = folder / "config.json"
                raise UserError(f"Expected {key} of 1 or more in '{path}', found {value}. Fetch the file again.")


_MOST_BLOCKS, _LARGEST_NUMBER = 256, 2**24  # of a config.json; the deepest model of these families has 48
_BLOCKS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "n_layers", "n_layer", "num_adapter_layers")


def refuse_vast(described: Mapping[str, Any], folder: Path) -> None:
    """Refuse a config.json whose numbers no model has: it would be built before its weights are found not to fit."""
    refuse_vast_sizes(described, str(folder / "config.json"), "Fetch the file again.")
    held = sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    width, blocks, rows, channels, kernel = (_largest(described, keys) for keys in (_WIDTHS, _BLOCKS, _ROWS, _CHANNELS, _KERNELS))
    if max(width * width * blocks, width * rows, channels * channels * kernel) > 8 * held + _LARGEST_NUMBER:  # bits
        raise UserError(
            f"Expected weights that fit config.json in '{folder}', found {held:,} bytes, fewer than it describes. "
            "Take weights and config.json from the same model."
        )


def refuse_vast_sizes(described: Mapping[str, Any], where: str, advice: str = "Lower it.") -> None:
    """Refuse numbers that no model has."""
    left: list[tuple[str, Any]] = [*described.items()]
    while left:
        key, value = left.pop()
        most = _MOST_BLOCKS if key in _BLOCKS else _LARGEST_NUMBER
        if isinstance(value, Mapping):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, item) for item in value]
        elif isinstance(value, (int, float)) and abs(value) > most:
            raise UserError(f"Expected at most {most:,} for {key} in '{where}', found {value}. {advice}")


_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")
_ROWS = (
    *("vocab_size", "max_position_embeddings", "n_positions", "max_source_positions", "num_conv_pos_embeddings"),
    *("intermediate_size", "n_inner", "hidden_dim", "encoder_ffn_dim", "num_labels"),
)
_CHANNELS, _KERNELS = ("conv_dim",), ("conv_kernel",)


def _largest(described: Mapping[str, Any], keys: Sequence[str]) -> int:
    """Return the largest whole number among the values of some keys, those of lists too; 1 where there is none."""
    values = [item for key in keys for item in _items(described.get(key))]
    return max([1, *(item for item in values if type(item) is int)])


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
