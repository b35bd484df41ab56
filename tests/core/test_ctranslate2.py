"""Whisper folders of CTranslate2: read as data, the same layers as the hub's format, damaged ones refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from headwater.core.ctranslate2 import converted, generation_settings, read_variables
from headwater.core.errors import UserError
from headwater.upstream.load import load_upstream

KINDS = {"float32": (0, "<f4"), "int8": (1, "<i1"), "int16": (2, "<i2"), "float16": (4, "<f2"), "bfloat16": (5, "<u2")}


def written(variables: Mapping[str, np.ndarray], kinds: Mapping[str, str] | None = None, spec: str = "WhisperSpec") -> bytes:
    """Return a model.bin of CTranslate2, version 6."""

    def text(word: str) -> bytes:
        raw = word.encode() + b"\0"
        return struct.pack("<H", len(raw)) + raw

    parts = [struct.pack("<I", 6), text(spec), struct.pack("<II", 3, len(variables))]
    for name, values in variables.items():
        kind, dtype = KINDS[(kinds or {}).get(name, "float32")]
        values = (values.astype("<f4").view("<u4") >> 16).astype("<u2") if kind == 5 else values.astype(dtype)
        parts += [text(name), struct.pack("<B", values.ndim), struct.pack(f"<{values.ndim}I", *values.shape)]
        parts += [struct.pack("<BI", kind, values.nbytes), values.tobytes()]
    return b"".join([*parts, struct.pack("<I", 0)])


def made_of(state: Mapping[str, np.ndarray], blocks: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights of a hub model by CTranslate2's names."""

    def joined(names: list[str], kind: str, like: np.ndarray) -> np.ndarray:
        return np.concatenate([state.get(f"{name}.{kind}", np.zeros(len(like), np.float32)) for name in names])

    for conv in ("conv1", "conv2"):
        yield from ((f"encoder/{conv}/{kind}", state[f"model.encoder.{conv}.{kind}"]) for kind in ("weight", "bias"))
    for side in ("encoder", "decoder"):
        yield f"{side}/position_encodings/encodings", state[f"model.{side}.embed_positions.weight"]
        yield f"{side}/num_heads", np.array(2)
        norms = {f"{side}/layer_norm": f"model.{side}.layer_norm"}
        groups: dict[str, list[str]] = {}
        for block in range(blocks):
            here, there = f"{side}/layer_{block}", f"model.{side}.layers.{block}"
            norms |= {f"{here}/self_attention/layer_norm": f"{there}.self_attn_layer_norm"}
            norms |= {f"{here}/ffn/layer_norm": f"{there}.final_layer_norm"}
            groups |= {f"{here}/self_attention/linear_0": [f"{there}.self_attn.{name}_proj" for name in "qkv"]}
            groups |= {f"{here}/self_attention/linear_1": [f"{there}.self_attn.out_proj"]}
            groups |= {f"{here}/ffn/linear_{index}": [f"{there}.fc{index + 1}"] for index in (0, 1)}
            if side == "decoder":
                norms |= {f"{here}/attention/layer_norm": f"{there}.encoder_attn_layer_norm"}
                groups |= {f"{here}/attention/linear_0": [f"{there}.encoder_attn.q_proj"]}
                groups |= {f"{here}/attention/linear_1": [f"{there}.encoder_attn.{name}_proj" for name in "kv"]}
                groups |= {f"{here}/attention/linear_2": [f"{there}.encoder_attn.out_proj"]}
        for here, there in norms.items():
            yield f"{here}/gamma", state[f"{there}.weight"]
            yield f"{here}/beta", state[f"{there}.bias"]
        for here, names in groups.items():
            yield f"{here}/weight", joined(names, "weight", state[f"{names[0]}.weight"])
            yield f"{here}/bias", joined(names, "bias", state[f"{names[0]}.weight"])
    yield "decoder/embeddings/weight", state["model.decoder.embed_tokens.weight"]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Whisper in the hub's format."""
    torch.manual_seed(0)
    settings = WhisperConfig(
        vocab_size=64,
        num_mel_bins=80,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    folder = tmp_path_factory.mktemp("whisper") / "hub"
    WhisperForConditionalGeneration(settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def variables(hub: Path) -> dict[str, np.ndarray]:
    """The same weights by CTranslate2's names."""
    state = WhisperForConditionalGeneration.from_pretrained(hub).state_dict()
    return dict(made_of({name: value.numpy() for name, value in state.items()}, blocks=2))


def folder_of(path: Path, content: bytes) -> Path:
    """Write a folder of CTranslate2."""
    path.mkdir()
    (path / "model.bin").write_bytes(content)
    (path / "config.json").write_text(json.dumps({"alignment_heads": []}))
    return path


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 3e-2), ("int8", 3e-2), ("int16", 2e-3)]
)
def test_layers_are_those_of_the_hubs_format(
    hub: Path, variables: dict[str, np.ndarray], kind: str, tolerance: float, tmp_path: Path
) -> None:
    made, kinds = dict(variables), {}
    for name in [name for name in made if name.endswith("/weight") and "linear" in name]:
        kinds[name] = kind
        if kind == "int8":
            scale = 127 / np.abs(made[name]).max(axis=1)
            made |= {name: np.round(made[name] * scale[:, None]), f"{name}_scale": scale}
        if kind == "int16":
            scale = np.array(2**10 / np.abs(made[name]).max())
            made |= {name: np.round(made[name] * scale), f"{name}_scale": scale}
    folder = folder_of(tmp_path / "ct2", written(made, kinds))
    waveform = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(1))
    ours, theirs = (load_upstream(str(place))([waveform]).values for place in (folder, hub))
    assert len(ours) == 3
    assert max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True)) <= tolerance


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:1000], "found its end after 1,000 bytes"),
        (lambda raw: raw[:0], "found its end after 0 bytes"),
        (lambda raw: struct.pack("<I", 99) + raw[4:], "found version 99"),
        (lambda raw: raw[:22] + struct.pack("<I", 2**31) + raw[26:], "tensors"),
        (lambda raw: raw[:4] + b"\xff\xff" + raw[6:], "found version 6 of 'WhisperSpec'"),
        (lambda raw: b"PK\x03\x04" + raw[4:], "Whisper model of CTranslate2"),
    ],
)
def test_a_damaged_file_is_one_line(variables: dict[str, np.ndarray], damage: object, message: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "ct2", damage(written(variables)))  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        load_upstream(str(folder))
    assert not [*(tmp_path / "cache").glob("**/config.json")]


def test_another_model_and_one_that_lacks_weights_are_refused(variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Only Whisper is read in this format"):
        read_variables(folder_of(tmp_path / "other", written(variables, spec="TransformerSpec")) / "model.bin")
    lacking = {name: value for name, value in variables.items() if "conv2" not in name}
    with pytest.raises(UserError, match="every weight of a Whisper model"):
        load_upstream(str(folder_of(tmp_path / "lacking", written(lacking))))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"decoder/embeddings/weight_scale": np.zeros(64)}, "no usable scale of 'decoder/embeddings/weight'"),
        ({"decoder/embeddings/weight_scale": np.ones(3)}, "no usable scale"),
        ({}, "no usable scale"),
        ({"decoder/embeddings/weight_scale": np.ones(64), "encoder/num_heads": np.array(-1)}, "heads for 16 dimensions"),
        ({"decoder/embeddings/weight_scale": np.ones(64), "encoder/num_heads": np.ones(3)}, "every weight of a Whisper model"),
    ],
)
def test_scales_and_heads_that_no_model_has_are_refused(
    variables: dict[str, np.ndarray], other: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    raw = written({**variables, **other}, {"decoder/embeddings/weight": "int8"})
    with pytest.raises(UserError, match=message) as caught:
        load_upstream(str(folder_of(tmp_path / "ct2", raw)))
    assert str(tmp_path / "ct2" / "model.bin") in str(caught.value)


def test_another_tokenizer_is_another_model(variables: dict[str, np.ndarray], tmp_path: Path) -> None:
    folder, places = folder_of(tmp_path / "ct2", written(variables)), set()
    words = ["<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|notimestamps|>"]
    for first in (10, 20):
        tokens = [{"content": word, "id": first + place} for place, word in enumerate(words)]
        (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
        place = converted(folder)
        assert json.loads((place / "generation_config.json").read_text())["eos_token_id"] == first
        places.add(place)
    assert len(places) == 2


def test_the_sizes_of_a_tensor_are_compared_before_it_is_read(tmp_path: Path) -> None:
    raw = bytearray(written({"a": np.zeros((2, 3), np.float32)}))
    place = raw.index(struct.pack("<II", 2, 3))
    raw[place : place + 8] = struct.pack("<II", 2**31, 2**31)
    with pytest.raises(UserError, match="a tensor of shape"):
        read_variables(folder_of(tmp_path / "vast", bytes(raw)) / "model.bin")


def test_what_generation_needs_is_read_from_the_tokenizer(tmp_path: Path) -> None:
    words = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|translate|>",
        "<|transcribe|>",
        "<|startofprev|>",
        "<|notimestamps|>",
    ]
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"added_tokens": [{"content": word, "id": 50_256 + place} for place, word in enumerate(words)]}))
    settings = generation_settings(path, 50_263)
    assert settings["forced_decoder_ids"] == [[1, 50_262]]
    assert (settings["decoder_start_token_id"], settings["is_multilingual"]) == (50_257, False)
    whole = path.read_text()
    for content, size in (("{}", 50_263), (whole, 60), (whole.replace("50256", "1e999"), 50_263)):
        path.write_text(content)
        with pytest.raises(UserError, match="Whisper's special tokens"):
            generation_settings(path, size)
