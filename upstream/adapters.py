"""Adapters: a few weights that are trained in place of a model's own, beside them or among them."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import UserError
from ..core.installation import install_command
from .base import Upstream, UpstreamConfig

WITHOUT = "none"
OPTIONS = frozenset({"adapter", "adapter_rank", "adapter_alpha", "adapter_dropout", "adapter_targets"})  # of UpstreamConfig
# kind -> its options beside `adapter`
OPTIONS_OF: Mapping[str, tuple[str, ...]] = {
    "lora": ("adapter_rank", "adapter_alpha", "adapter_dropout", "adapter_targets"),
    "dora": ("adapter_rank", "adapter_alpha", "adapter_dropout", "adapter_targets"),
    "ia3": ("adapter_targets",),
    "houlsby": ("adapter_rank", "adapter_targets"),
    "bitfit": (),
}
# kind -> what stands in the names of its weights, and in those of no model
_MARKS = {"lora": ".lora_", "dora": ".lora_", "ia3": ".ia3_", "houlsby": ".houlsby_", "bitfit": ".bias"}
BY_PEFT = ("lora", "dora", "ia3")
BOTTLENECKS = "houlsby"  # in a model's config: where it has bottlenecks, which belong to its architecture
# how the families call the parts of a block; the first row of which all are there is taken
_QUERY_VALUE = (
    *(("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("linear_q", "linear_v"), ("query_proj", "value_proj")),
    *(("attn.q", "attn.v"), ("to_q", "to_kv"), ("c_attn",), ("Wqkv",), ("qkv",)),  # which compute query, key and value together
)
_KEY_VALUE = (
    *(("k_proj", "v_proj"), ("key", "value"), ("k_lin", "v_lin"), ("linear_k", "linear_v"), ("key_proj", "value_proj")),
    *(("attn.k", "attn.v"), ("to_kv",), ("c_attn",), ("Wqkv",), ("qkv",)),
)
_ATTENTION_OUT = tuple(
    (name,)
    for name in (
        "out_proj",
        "attention.output.dense",
        "out_lin",
        "attn.c_proj",
        "linear_out",
        "o_proj",
        "attn.Wo",
        "attn.o",
        "to_out",
        "attn.proj",
    )
)
_FEED_FORWARD_OUT = tuple(
    (name,) for name in ("output_dense", "fc2", "output.dense", "lin2", "mlp.c_proj", "down_proj", "mlp.Wo", "linear2")
)
_USUAL_TARGETS = {
    "lora": (_QUERY_VALUE,),
    "dora": (_QUERY_VALUE,),
    "ia3": (_KEY_VALUE, _FEED_FORWARD_OUT),
    "houlsby": (_ATTENTION_OUT, _FEED_FORWARD_OUT),
}


class Bottleneck(nn.Module):
    """A linear layer, and behind it a way down to a few units and up again, as of Houlsby et al. 2019; it starts as the layer."""

    def __init__(self, base_layer: nn.Module, dim: int, rank: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.houlsby_down, self.houlsby_up = nn.Linear(dim, rank), nn.Linear(rank, dim)
        nn.init.zeros_(self.houlsby_up.weight)
        nn.init.zeros_(self.houlsby_up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (…, dim)."""
        hidden = self.base_layer(hidden)
        return hidden + self.houlsby_up(F.gelu(self.houlsby_down(hidden)))


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as peft writes and loads it."""

    config: Mapping[str, Any]  # adapter_config.json
    tensors: Mapping[str, Tensor]  # adapter_model.safetensors


def mistakes(section: UpstreamConfig, where: str) -> Iterator[str]:
    """Yield what is wrong with the options of an adapter, before anything is loaded."""
    kind, given = section.adapter, [name for name, usual in _usual().items() if getattr(section, name) != usual]
    if kind == WITHOUT:
        for name in given:
            yield f"Expected '{where}.adapter' beside '{where}.{name}', found none. Add -o {where}.adapter=lora, or leave it out."
        return
    for name in (name for name in given if name not in OPTIONS_OF[kind]):
        known = f"only {' and '.join(OPTIONS_OF[kind])}" if OPTIONS_OF[kind] else "no option"
        yield f"Expected {known} beside {where}.adapter={kind}, found '{where}.{name}'. Leave it out."
    if not section.trainable:
        yield (
            f"Expected -f beside {where}.adapter={kind}, which is trained, found a frozen upstream. "
            "Add it, or leave the adapter out."
        )
    if section.front_end == "trained":
        yield (
            f"Expected {where}.front_end=frozen beside {where}.adapter={kind}, which leaves the model's weights as they are, "
            "found trained. Leave one of them out."
        )


def _usual() -> dict[str, Any]:
    return {field.name: field.default for field in fields(UpstreamConfig) if field.name.startswith("adapter_")}


def without_adapter(section: UpstreamConfig) -> UpstreamConfig:
    """Return an upstream's section as one of a model that has no adapter, or has it no longer."""
    return replace(section, adapter="none", **_usual())


def frozen_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return an upstream's section of a recipe as that of a frozen one, which has no adapter."""
    return {key: value for key, value in section.items() if not key.startswith("adapter")} | {"trainable": False}


def belongs_to_adapter(name: str, kind: str) -> bool:
    """Return whether a weight of an upstream, by its name in it, is what an adapter of a kind trains."""
    return f".{name}".endswith(_MARKS[kind]) if kind == "bitfit" else _MARKS[kind] in f".{name}"


def add_adapter(upstream: Upstream, section: UpstreamConfig, seed: int = 0) -> None:
    """Put the adapter of a section into an upstream, its weights drawn from a seed: until they are trained nothing changes."""
    kind = section.adapter
    if kind == WITHOUT:
        return
    if kind in BY_PEFT and importlib.util.find_spec("peft") is None:
        raise UserError(f"Expected peft for adapter={kind}, found none. Run: {install_command('peft')}")
    if not upstream.blocks():
        raise UserError(f"Expected a model of transformer blocks for adapter={kind}, found '{upstream.name}'. Leave it out.")
    if kind == "bitfit":
        refuse_none(upstream)
        return
    model: Any = upstream.get_submodule("model")  # transformers', the same in any family
    if kind == BOTTLENECKS and getattr(model.config, BOTTLENECKS, None):
        raise UserError(
            f"Expected a model without bottlenecks for adapter=houlsby, found '{upstream.name}', which has some of an earlier "
            "run. Take adapter=lora, or leave it out: -f trains those that are there."
        )
    targets = targets_of(upstream, section)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == BOTTLENECKS:
            add_bottlenecks(model, targets=targets, rank=section.adapter_rank)
            setattr(model.config, BOTTLENECKS, {"targets": targets, "rank": section.adapter_rank})
        else:
            from peft import inject_adapter_in_model

            inject_adapter_in_model(peft_config(upstream, section, targets), model)


def over_same_weights(upstream: Upstream, kind: str) -> Upstream:
    """Return an upstream once more over the very same tensors, but for those that an adapter of a kind trains.

    Its modules are its own, so that it takes an adapter of its own. Whoever merges that writes into the tensors of both.
    """
    own = {id(weight) for name, weight in upstream.named_parameters() if belongs_to_adapter(name, kind)}  # biases, of bitfit
    tensors = [tensor for tensor in (*upstream.parameters(), *upstream.buffers()) if id(tensor) not in own]
    # what is no module (a tokenizer, a feature extractor, the spec) is read alone
    others = [value for name, value in vars(upstream).items() if name not in vars(nn.Module())]
    return copy.deepcopy(upstream, {id(shared): shared for shared in (*tensors, *others)})


def refuse_none(upstream: Upstream) -> None:
    """Refuse a model without biases for an adapter that trains them."""
    if not any(belongs_to_adapter(name, "bitfit") for name, _ in upstream.named_parameters()):
        raise UserError(f"Expected a model with biases for adapter=bitfit, found none in '{upstream.name}'. Take adapter=lora.")


def peft_config(upstream: Upstream, section: UpstreamConfig, targets: Sequence[str]) -> Any:
    """Return peft's config of a section."""
    from peft import IA3Config, LoraConfig

    turned = any(type(part).__name__ == "Conv1D" for part in upstream.modules())  # GPT-2's linear layers: (in, out)
    names = {target for group in _FEED_FORWARD_OUT for target in group}
    if section.adapter == "ia3":
        back = [name for name in targets if name in names]  # whose input is scaled; of the others it is the output
        return IA3Config(target_modules=[*targets], feedforward_modules=back, fan_in_fan_out=turned)
    alpha: Any = 2 * section.adapter_rank if section.adapter_alpha is None else section.adapter_alpha  # peft scales by any number
    return LoraConfig(
        r=section.adapter_rank,
        lora_alpha=alpha,
        lora_dropout=section.adapter_dropout,
        target_modules=[*targets],
        use_dora=section.adapter == "dora",
        fan_in_fan_out=turned,
    )


def add_bottlenecks(model: nn.Module, *, targets: Sequence[str], rank: int) -> None:
    """Put a bottleneck behind each of the linear layers whose names end so."""
    for name, part in [(name, part) for name, part in model.named_modules() if is_target(name, targets)]:
        model.set_submodule(name, Bottleneck(part, output_dim(part), rank))


def is_target(name: str, targets: Sequence[str]) -> bool:
    """Return whether a module's name is one of the targets, or ends with one, as peft reads them."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def targets_of(upstream: Upstream, section: UpstreamConfig) -> list[str]:
    """Return which linear layers an adapter changes: those that are named, else the usual ones of the family."""
    names = [name for block in upstream.blocks() for name, part in block.named_modules() if is_linear(part)]
    known = sorted({name.rpartition(".")[2] for name in names})
    if section.adapter_targets is not None:
        for target in section.adapter_targets or [""]:
            if not any(is_target(name, [target]) for name in names):
                raise UserError(
                    f"Expected linear layers of the blocks of '{upstream.name}' in adapter_targets, found '{target}'. "
                    f"There are: {', '.join(known)}."
                )
        return [*section.adapter_targets]
    found: list[str] = []
    for groups in _USUAL_TARGETS[section.adapter]:
        there = (group for group in groups if all(any(is_target(name, [target]) for name in names) for target in group))
        group = next(there, None)
        if group is None:
            raise UserError(
                f"Expected adapter_targets for adapter={section.adapter} of '{upstream.name}', whose layers have names of their "
                f"own, found none. Name some of: {', '.join(known)}."
            )
        found += group
    return found


def output_dim(part: Any) -> int:
    """Return how many outputs a linear layer has."""
    return part.out_features if isinstance(part, nn.Linear) else part.nf


def is_linear(part: nn.Module) -> bool:
    """Return whether a module is a linear layer, of torch or GPT-2's."""
    return isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"


def train_adapter_only(upstream: Upstream, kind: str) -> None:
    """Freeze all of an upstream but its adapter."""
    for name, weight in upstream.named_parameters():
        weight.requires_grad_(weight.requires_grad and belongs_to_adapter(name, kind))


def load_adapter(upstream: Upstream, weights: Mapping[str, Tensor], kind: str, where: str) -> None:
    """Take the weights of an adapter; every one must be there, and no other."""
    own = {name for name in upstream.state_dict() if belongs_to_adapter(name, kind)}
    if wrong := sorted(own ^ {*weights}):
        raise UserError(f"Expected the adapter of '{upstream.name}' in '{where}', found a mismatch at '{wrong[0]}'. Train again.")
    upstream.load_state_dict(dict(weights), strict=False)


@torch.no_grad()
def merge_adapter(upstream: Upstream, kind: str) -> None:
    """Add an adapter to the weights that it stands beside; bottlenecks stay, as a part of the model."""
    if kind not in BY_PEFT:
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    model: Any = upstream.get_submodule("model")
    for name, part in [(name, part) for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)]:
        part.merge()
        model.set_submodule(name, part.get_base_layer())
    del model.peft_config


def files_of(upstream: Upstream, kind: str, base: str) -> AdapterFiles:
    """Return an adapter as peft writes it beside a model that is called `base`."""
    if kind not in BY_PEFT:
        raise UserError(
            f"Expected an adapter of peft's (lora, dora, ia3) for --keep-adapter, found {kind}, for which it has no file. "
            "Leave it out."
        )
    from peft import get_peft_model_state_dict

    model: Any = upstream.get_submodule("model")
    config = model.peft_config["default"]
    tensors = get_peft_model_state_dict(model)
    described = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    kind_of_model = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    described |= {"base_model_name_or_path": base, "inference_mode": True, "auto_mapping": kind_of_model}
    plain = json.loads(json.dumps(described, default=str))
    return AdapterFiles(plain, {f"base_model.model.{key}": value.contiguous() for key, value in tensors.items()})
