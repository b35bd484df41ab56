"""emotion2vec: checkpoints as they are published are read as tensors, and give what their paper's formulas say."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from headwater.core.errors import UserError
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.families.emotion2vec import alibi_slopes
from headwater.upstream.load import load_upstream

DIM, HEADS, TOKENS, CHANNELS, INNER = 24, 6, 10, 8, 48
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
AUDIO = "modality_encoders.AUDIO"
BLOCKS = [*(f"{AUDIO}.context_encoder.blocks.{index}" for index in range(2)), *(f"blocks.{index}" for index in range(3))]


def published() -> dict[str, Tensor]:
    """Return random weights under the names, and of the shapes, of a published checkpoint: a small one of 2 + 3 blocks."""
    sizes: dict[str, tuple[int, ...]] = {
        f"{AUDIO}.extra_tokens": (1, TOKENS, DIM),
        f"{AUDIO}.alibi_scale": (1, 1, HEADS, 1, 1),
        f"{AUDIO}.project_features.1.weight": (CHANNELS,),
        f"{AUDIO}.project_features.1.bias": (CHANNELS,),
        f"{AUDIO}.project_features.2.weight": (DIM, CHANNELS),
        f"{AUDIO}.project_features.2.bias": (DIM,),
        f"{AUDIO}.context_encoder.norm.weight": (DIM,),
        f"{AUDIO}.context_encoder.norm.bias": (DIM,),
        f"{AUDIO}.decoder.proj.weight": (DIM, 4),
        "proj.weight": (9, DIM),
        "proj.bias": (9,),
    }
    for index, kernel in enumerate(KERNELS):
        place = f"{AUDIO}.local_encoder.conv_layers.{index}"
        sizes[f"{place}.0.weight"] = (CHANNELS, CHANNELS if index else 1, kernel)
        sizes |= {f"{place}.2.1.weight": (CHANNELS,), f"{place}.2.1.bias": (CHANNELS,)}
    for index in range(1, 6):
        place = f"{AUDIO}.relative_positional_encoder.{index}.0"
        sizes |= {f"{place}.weight": (DIM, DIM // 4, 19), f"{place}.bias": (DIM,)}
    for block in BLOCKS:
        for part, (rows, columns) in {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM)}.items():
            sizes |= {f"{block}.{part}.weight": (rows, columns), f"{block}.{part}.bias": (rows,)}
        sizes |= {f"{block}.mlp.fc1.weight": (INNER, DIM), f"{block}.mlp.fc1.bias": (INNER,)}
        sizes |= {f"{block}.mlp.fc2.weight": (DIM, INNER), f"{block}.mlp.fc2.bias": (DIM,)}
        sizes |= {f"{block}.{norm}.{kind}": (DIM,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    torch.manual_seed(0)
    return {name: 0.4 * torch.randn(shape) + ("norm" in name or "alibi" in name) for name, shape in sizes.items()}


def formulas(weights: dict[str, Tensor], waveform: Tensor) -> list[Tensor]:
    """Return the layers (frame, dim) of one utterance, written down from the paper and its code, one head at a time."""

    def of(place: str) -> tuple[Tensor, Tensor]:
        return weights[f"{place}.weight"], weights[f"{place}.bias"]

    def normed(hidden: Tensor, place: str) -> Tensor:
        return F.layer_norm(hidden, hidden.shape[-1:], *of(place))

    hidden = ((waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-5).sqrt()).view(1, -1)  # (channel, sample)
    for index, stride in enumerate(STRIDES):
        place = f"{AUDIO}.local_encoder.conv_layers.{index}"
        hidden = F.gelu(normed(F.conv1d(hidden, weights[f"{place}.0.weight"], stride=stride).T, f"{place}.2.1")).T
    hidden = F.linear(normed(hidden.T, f"{AUDIO}.project_features.1"), *of(f"{AUDIO}.project_features.2"))
    places = hidden.T
    for index in range(1, 6):
        places = F.conv1d(places, *of(f"{AUDIO}.relative_positional_encoder.{index}.0"), padding=9, groups=4)
        places = F.gelu(F.layer_norm(places.T, (DIM,))).T
    hidden = torch.cat([weights[f"{AUDIO}.extra_tokens"][0], hidden + places.T])
    hidden = normed(hidden, f"{AUDIO}.context_encoder.norm")
    layers = [hidden]
    for block in BLOCKS:
        parts = F.linear(hidden, *of(f"{block}.attn.qkv")).view(len(hidden), 3, HEADS, DIM // HEADS)
        heads = []
        for head in range(HEADS):
            query, key, value = parts[:, :, head].unbind(1)
            scores = query @ key.T / math.sqrt(DIM // HEADS)
            slope = {0: 2**-2, 1: 2**-4, 2: 2**-6, 3: 2**-8, 4: 2**-1, 5: 2**-3}[head]
            factor = weights[f"{AUDIO}.alibi_scale"][0, 0, head, 0, 0].clamp(min=0)
            place = torch.arange(len(hidden) - TOKENS)
            scores[TOKENS:, TOKENS:] -= slope * factor * (place[:, None] - place[None, :]).abs()
            heads.append(scores.softmax(1) @ value)
        hidden = normed(hidden + F.linear(torch.cat(heads, 1), *of(f"{block}.attn.proj")), f"{block}.norm1")
        inner = F.linear(F.gelu(F.linear(hidden, *of(f"{block}.mlp.fc1"))), *of(f"{block}.mlp.fc2"))
        hidden = normed(hidden + inner, f"{block}.norm2")
        layers.append(hidden)
    return [layer[TOKENS:] for layer in layers]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder as one of a finetuned emotion2vec's on the hub, and a cache of its own."""
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.yaml").write_text("model: Emotion2vec\nmodel_conf:\n  depth: 3\n", encoding="utf-8")
    state = {name if name.startswith("proj.") else f"d2v_model.{name}": value for name, value in published().items()}
    torch.save({"model": state, "epoch": 3}, tmp_path / "model" / "model.pt")
    return tmp_path / "model"


def test_layers_of_a_published_checkpoint_are_those_of_its_formulas(folder: Path, speechlike: Any, difference: Any) -> None:
    upstream, (waveform,) = load_upstream(str(folder)), speechlike(9000)
    expected = formulas(published(), waveform)
    with torch.no_grad():
        found = upstream([waveform])
    assert upstream.spec.num_layers == len(found.values) == len(expected) == 6
    assert upstream.spec.dim == DIM
    assert found.lengths == (upstream.spec.num_frames(9000),) == (len(expected[0]),)
    assert max(difference(ours[0], theirs) for ours, theirs in zip(found.values, expected, strict=True)) < 1e-5


def test_a_file_of_pretraining_has_the_same_layers_and_is_converted_once(folder: Path, speechlike: Any) -> None:
    path = folder / "emotion2vec_base.pt"
    torch.save({"model": published()}, path)
    (folder / "model.pt").unlink()
    named = load_upstream(UpstreamConfig(name="emotion2vec", path=str(path)))
    converted = [*Path(os.environ["HEADWATER_CACHE"]).rglob("model.safetensors")]
    times = [file.stat().st_mtime_ns for file in converted]
    with torch.no_grad():
        pairs = zip(named(speechlike(4000)).values, load_upstream(str(folder))(speechlike(4000)).values, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert [file.stat().st_mtime_ns for file in converted] == times
    assert len(times) == 1


def test_what_is_padding_and_which_is_beside_it_changes_nothing(folder: Path, speechlike: Any, difference: Any) -> None:
    upstream, waveforms = load_upstream(str(folder)), speechlike(9000, 5000, 300)
    with torch.no_grad():
        together = upstream(waveforms)
        for row, waveform in enumerate(waveforms):
            alone = upstream([waveform])
            for ours, theirs in zip(together.values, alone.values, strict=True):
                assert difference(ours[row, : alone.lengths[0]], theirs[0]) < 1e-5


def spring(file: str) -> str:
    """Leave a file behind, as code in a pickle might."""
    Path(file).touch()
    return file


class Trap:
    """An object whose pickle calls a function."""

    def __init__(self, function: Any, file: str) -> None:
        self.function, self.file = function, file

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.function, (self.file,))


def test_objects_of_other_classes_in_a_checkpoint_are_passed_over_and_never_run(folder: Path) -> None:
    expected = load_upstream(str(folder)).weights_hash()
    content, sprung = torch.load(folder / "model.pt"), folder / "sprung"
    torch.save({**content, "cfg": {"task": Trap(spring, str(sprung))}}, folder / "model.pt")
    assert load_upstream(str(folder)).weights_hash() == expected
    assert not sprung.exists()
    torch.save({**content, "cfg": Trap(os.mkdir, str(sprung))}, folder / "model.pt")
    with pytest.raises(UserError, match=r"found the class posix\.mkdir"):
        load_upstream(str(folder))
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d2v_model.norm.weight": torch.ones(DIM)}, "found 'norm.weight'"),
        ({f"d2v_model.{AUDIO}.extra_tokens": None}, r"found one missing \('encoder.extra_tokens'\)"),
        ({f"d2v_model.{BLOCKS[1]}.norm2.bias": None}, "found 1 missing or of another shape"),
        ({f"d2v_model.{BLOCKS[4]}.mlp.fc1.bias": torch.ones(3)}, "found 1 missing or of another shape"),
        ({f"d2v_model.{BLOCKS[1]}.attn.qkv.bias": torch.ones(())}, r"attn.qkv.bias' of the shape \(\)"),
        ({f"d2v_model.{BLOCKS[1]}.attn.qkv.bias": torch.ones(2)}, r"attn.qkv.bias' of the shape \(2,\)"),
        ({f"d2v_model.{AUDIO}.alibi_scale": torch.ones(2, 1, HEADS, 1, 1)}, r"alibi_scale' of the shape \(2, 1, 6, 1, 1\)"),
        (None, "found no such weights"),
    ],
    ids=["one more", "no tokens", "no norm", "another shape", "a scalar", "two", "a scale of each block", "nothing"],
)
def test_weights_that_are_none_of_an_emotion2vec_are_one_line(folder: Path, change: Any, words: str) -> None:
    state = torch.load(folder / "model.pt")["model"]
    state = {} if change is None else {key: value for key, value in (state | change).items() if value is not None}
    torch.save({"model": state}, folder / "model.pt")
    with pytest.raises(UserError, match=words) as problem:
        load_upstream(str(folder))
    assert "\n" not in str(problem.value)


def test_of_several_checkpoints_model_pt_is_read_and_others_are_refused(folder: Path) -> None:
    expected = load_upstream(str(folder)).weights_hash()
    (folder / "other.pt").touch()
    assert load_upstream(str(folder)).weights_hash() == expected, "model.pt is what is read by the toolkit that it is of"
    (folder / "model.pt").rename(folder / "another.pt")
    with pytest.raises(
        UserError, match=r"Expected one checkpoint \(\.pt\) in .*, found 2\. Give the file: -u emotion2vec -k FILE"
    ):
        load_upstream(str(folder))


def test_biases_by_distance_are_trained_and_tokens_too(folder: Path, speechlike: Any) -> None:
    upstream = load_upstream(str(folder)).requires_grad_(True).train()
    upstream(speechlike(4000, 3000)).values[-1].square().sum().backward()
    encoder: Any = upstream.get_submodule("model.encoder")
    assert bool(encoder.alibi_scale.grad.any())
    assert bool(encoder.extra_tokens.grad.any())


def test_slopes_of_twelve_and_sixteen_heads_are_those_of_alibi() -> None:
    assert alibi_slopes(16)[:3] == pytest.approx([2**-0.5, 2**-1, 2**-1.5])
    assert alibi_slopes(12) == pytest.approx(
        [*(2.0**-power for power in range(1, 9)), *(2 ** -(power + 0.5) for power in range(4))]
    )
