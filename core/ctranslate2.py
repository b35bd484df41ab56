"""Whisper in CTranslate2's format (faster-whisper), read as data and written anew in the hub's: thousands exist only so."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .files import cache_folder, plain_disk_errors

VERSIONS = (4, 5, 6)  # of the file
NAMES = ("<f4", "<i1", "<i2", "<i4", "<f2", "<u2")  # by their number in the file
TYPES: dict[int, np.dtype[Any]] = {number: np.dtype(name) for number, name in enumerate(NAMES)}
BFLOAT16 = 5
CONVERSION = 2  # raised by hand when what is written changes
MOST_VARIABLES, MOST_DIMENSIONS, MOST_BLOCKS = 10_000, 8, 256
TOKENIZER = ("tokenizer.json", "vocab.json", "merges.txt", "normalizer.json", "special_tokens_map.json")
Variables = Mapping[str, np.ndarray]


def is_ctranslate2(folder: Path) -> bool:
    """Return whether a folder holds a model of CTranslate2, and none of the hub's."""
    others = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    return (folder / "model.bin").is_file() and not any((folder / name).exists() for name in others)


def converted(folder: Path) -> Path:
    """Return the same model in the hub's format, in the cache: made once for each model.bin and its tokenizer."""
    digest = hashlib.sha256(f"conversion {CONVERSION}".encode())
    for name in ("model.bin", *(name for name in TOKENIZER if (folder / name).is_file())):
        digest.update(f"\0{name}\0{(folder / name).stat().st_size}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(2**24):
                digest.update(block)
    place = cache_folder() / "converted" / digest.hexdigest()[:24]
    if (place / "config.json").is_file():
        return place
    with plain_disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
        try:
            write_hub_format(folder, aside)
            try:
                os.replace(aside, place)
            except OSError:  # another process was faster
                if not (place / "config.json").is_file():
                    raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return place


def write_hub_format(folder: Path, to: Path) -> None:
    """Write config, weights, feature extractor and tokenizer of a Whisper folder."""
    from safetensors.numpy import save_file

    path = folder / "model.bin"
    try:
        made = read_variables(path)
        state = dict(whisper_state(made))
        config = whisper_config(made, state)
    except (KeyError, ValueError, IndexError, TypeError) as problem:
        if isinstance(problem, UserError):
            raise
        raise UserError(
            f"Expected every weight of a Whisper model in '{path}', found another model or a damaged one ({problem}). "
            "Convert or fetch it again."
        ) from None
    tokenizer = folder / "tokenizer.json"
    if tokenizer.is_file():
        settings = generation_settings(tokenizer, int(config["vocab_size"]))
        config |= {name: settings[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")}
        write(to / "generation_config.json", settings)
        write(to / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer"})
    for name in TOKENIZER:
        if (folder / name).is_file():
            shutil.copy(folder / name, to / name)
    mels = int(state["model.encoder.conv1.weight"].shape[1])
    extractor = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": mels, "sampling_rate": 16_000}
    extractor |= {"hop_length": 160, "chunk_length": 30, "n_fft": 400, "padding_value": 0.0, "padding_side": "right"}
    write(to / "preprocessor_config.json", extractor)
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, to / "model.safetensors", {"format": "pt"})
    write(to / "config.json", config)


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write json."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a model.bin in float32, quantised ones restored; no size is believed before it is compared."""
    found: dict[str, np.ndarray] = {}
    with path.open("rb") as file:
        raw = np.memmap(file, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        reader = _Reader(path, raw)
        version, spec = reader.number("I"), reader.text()
        if version not in VERSIONS or spec != "WhisperSpec":
            raise UserError(
                f"Expected a Whisper model of CTranslate2 (version {VERSIONS[0]} to {VERSIONS[-1]}) in '{path}', found "
                f"version {version} of '{spec.partition(chr(0))[0][:40]}'. Only Whisper is read in this format."
            )
        reader.number("I")  # revision of the spec
        count = reader.number("I")
        if count > MOST_VARIABLES:
            raise reader.damaged(f"{count:,} tensors")
        for _ in range(count):
            name = reader.text()
            found[name] = reader.values()
        if reader.at < len(raw):
            for _ in range(min(reader.number("I"), MOST_VARIABLES)):
                alias, name = reader.text(), reader.text()
                if name in found:
                    found[alias] = found[name]
    return {name: restored(name, found) for name in found if not name.endswith("_scale")}


def restored(name: str, found: Variables) -> np.ndarray:
    """Return a tensor in float32: a quantised one is divided by the scale of each row, or of all."""
    values, scale = found[name], found.get(f"{name}_scale")
    if values.dtype.kind != "i" or not values.ndim:
        return values
    if scale is None or scale.size not in (1, len(values)) or not bool((np.isfinite(scale) & (scale != 0)).all()):
        raise ValueError(f"no usable scale of '{name}'")
    scale = scale.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1)) if scale.size > 1 else scale.astype(np.float32)
    return values.astype(np.float32) / scale


class _Reader:
    """Reads numbers, names and tensors one after the other, and says where a file ends too early."""

    def __init__(self, path: Path, raw: np.ndarray) -> None:
        self.path, self.raw, self.at = path, raw, 0

    def damaged(self, what: str) -> UserError:
        """Return the error about something that no whole file has."""
        return UserError(f"Expected a whole model of CTranslate2 in '{self.path}', found {what}. Fetch the file again.")

    def take(self, size: int) -> np.ndarray:
        """Return the next bytes."""
        if size > len(self.raw) - self.at:
            raise self.damaged(f"its end after {len(self.raw):,} bytes")
        self.at += size
        return self.raw[self.at - size : self.at]

    def number(self, kind: str) -> int:
        """Return a number of struct's kind."""
        return int(struct.unpack("<" + kind, self.take(struct.calcsize("<" + kind)).tobytes())[0])

    def text(self) -> str:
        """Return a name."""
        return self.take(self.number("H")).tobytes().rstrip(b"\0").decode("utf-8", errors="replace")

    def values(self) -> np.ndarray:
        """Return a tensor, in float32 where it is not quantised."""
        rank = self.number("B")
        if rank > MOST_DIMENSIONS:
            raise self.damaged(f"a tensor of {rank} dimensions")
        shape = [self.number("I") for _ in range(rank)]
        kind, size = self.number("B"), self.number("I")
        if kind not in TYPES or math.prod(shape) * TYPES[kind].itemsize != size:
            raise self.damaged(f"a tensor of shape {tuple(shape)} in {size:,} bytes")
        values = self.take(size).view(TYPES[kind]).reshape(shape)
        if kind == BFLOAT16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32) if values.dtype.kind == "f" else values


def whisper_state(made: Variables) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights by the names that they have on the hub."""
    for conv in ("conv1", "conv2"):
        yield from linear(f"model.encoder.{conv}", f"encoder/{conv}", made)
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", made[f"{side}/position_encodings/encodings"]
        yield from norm(f"model.{side}.layer_norm", f"{side}/layer_norm", made)
        for block in range(num_blocks(made, side)):
            source, to = f"{side}/layer_{block}", f"model.{side}.layers.{block}"
            yield from norm(f"{to}.self_attn_layer_norm", f"{source}/self_attention/layer_norm", made)
            yield from parted(f"{to}.self_attn", ("q_proj", "k_proj", "v_proj"), f"{source}/self_attention/linear_0", made)
            yield from linear(f"{to}.self_attn.out_proj", f"{source}/self_attention/linear_1", made)
            yield from norm(f"{to}.final_layer_norm", f"{source}/ffn/layer_norm", made)
            yield from linear(f"{to}.fc1", f"{source}/ffn/linear_0", made)
            yield from linear(f"{to}.fc2", f"{source}/ffn/linear_1", made)
            if side == "decoder":
                yield from norm(f"{to}.encoder_attn_layer_norm", f"{source}/attention/layer_norm", made)
                yield from parted(f"{to}.encoder_attn", ("q_proj",), f"{source}/attention/linear_0", made)
                yield from parted(f"{to}.encoder_attn", ("k_proj", "v_proj"), f"{source}/attention/linear_1", made)
                yield from linear(f"{to}.encoder_attn.out_proj", f"{source}/attention/linear_2", made)
    yield "model.decoder.embed_tokens.weight", made["decoder/embeddings/weight"]


def norm(to: str, source: str, made: Variables) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the two weights of a layer norm."""
    yield f"{to}.weight", made[f"{source}/gamma"]
    yield f"{to}.bias", made[f"{source}/beta"]


def linear(to: str, source: str, made: Variables) -> Iterator[tuple[str, np.ndarray]]:
    """Yield weight and bias of a linear layer or a convolution."""
    yield f"{to}.weight", made[f"{source}/weight"]
    yield f"{to}.bias", made[f"{source}/bias"]


def parted(to: str, names: tuple[str, ...], source: str, made: Variables) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the projections that are stored as one; the keys' has no bias in Whisper."""
    weights, biases = np.split(made[f"{source}/weight"], len(names)), np.split(made[f"{source}/bias"], len(names))
    for name, weight, bias in zip(names, weights, biases, strict=True):
        yield f"{to}.{name}.weight", weight
        if name != "k_proj":
            yield f"{to}.{name}.bias", bias


def num_blocks(made: Variables, side: str) -> int:
    """Return how many transformer blocks a side has."""
    count = 0
    while f"{side}/layer_{count}/ffn/linear_0/weight" in made and count < MOST_BLOCKS:
        count += 1
    if not count:
        raise KeyError(f"{side}/layer_0/ffn/linear_0/weight")
    return count


def whisper_config(made: Variables, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return config.json, from the shapes of the weights."""
    vocabulary, dim = state["model.decoder.embed_tokens.weight"].shape
    usual = np.array(dim // 64)  # of every Whisper
    heads = {side: int(made.get(f"{side}/num_heads", usual)) for side in ("encoder", "decoder")}
    if not all(0 < count <= dim and dim % count == 0 for count in heads.values()):
        raise ValueError(f"{heads['encoder']} and {heads['decoder']} heads for {dim} dimensions")
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": vocabulary,
        "num_mel_bins": int(state["model.encoder.conv1.weight"].shape[1]),
        "d_model": dim,
        **{f"{side}_layers": num_blocks(made, side) for side in heads},
        **{f"{side}_attention_heads": count for side, count in heads.items()},
        **{f"{side}_ffn_dim": int(state[f"model.{side}.layers.0.fc1.weight"].shape[0]) for side in heads},
        "max_source_positions": int(state["model.encoder.embed_positions.weight"].shape[0]),
        "max_target_positions": int(state["model.decoder.embed_positions.weight"].shape[0]),
        "tie_word_embeddings": True,
    }


def generation_settings(path: Path, size: int) -> dict[str, Any]:
    """Return what generation has to know of Whisper's special tokens, as its own checkpoints write it down; there are `size`."""
    try:
        ids = {token["content"]: int(token["id"]) for token in json.loads(path.read_text(encoding="utf-8"))["added_tokens"]}
        start, silent, end = ids["<|startoftranscript|>"], ids["<|notimestamps|>"], ids["<|endoftext|>"]
        before, write_down, translate = ids["<|startofprev|>"], ids["<|transcribe|>"], ids["<|translate|>"]
        if not all(0 <= number < size for number in ids.values()):
            raise ValueError(f"tokens beyond {size:,}")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise UserError(
            f"Expected Whisper's special tokens in '{path}', found another tokenizer. Fetch the file of the same model."
        ) from None
    words = {name: name.strip("<|>") for name in ids}
    languages = {name: ids[name] for name, word in words.items() if len(word) in (2, 3) and word.isalpha() and word.islower()}
    several = len(languages) > 50 and end < start and start == end + 1 and start >= 50258  # English models never use theirs
    settings: dict[str, Any] = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
        "begin_suppress_tokens": [220, end],
        "is_multilingual": several,
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "no_timestamps_token_id": silent,
        "prev_sot_token_id": before,
        "return_timestamps": False,
    }
    if several:
        return settings | {"lang_to_id": languages, "task_to_id": {"transcribe": write_down, "translate": translate}}
    return settings | {"forced_decoder_ids": [[1, silent]]}
