"""Adapters: which weights they train, that they begin as the model, and that merging changes nothing."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from headwater.core.errors import UserError
from headwater.runs.config.resolve import resolve
from headwater.upstream.adapters import (
    BY_PEFT,
    OPTIONS_OF,
    add_adapter,
    belongs_to_adapter,
    frozen_section,
    merge_adapter,
    over_same_weights,
    train_adapter_only,
)
from headwater.upstream.base import Layers, Upstream, UpstreamConfig
from headwater.upstream.hub.models import rebuild
from headwater.upstream.load import list_upstreams, load_upstream

TINY = [row.name for row in list_upstreams("test_*")]
KINDS = [*OPTIONS_OF]


def adapted(name: str, kind: str, seed: int = 1, **options: Any) -> Upstream:
    """Return an upstream with an adapter that is trained, and nothing else."""
    section = UpstreamConfig(name, trainable=True, adapter=kind, **options)
    upstream = load_upstream(section)
    add_adapter(upstream, section, seed)
    upstream.requires_grad_(True)
    for part in upstream.front_end():
        part.requires_grad_(False)
    train_adapter_only(upstream, kind)
    return upstream


def trained(upstream: Upstream) -> dict[str, torch.nn.Parameter]:
    """Return the weights that are trained, by name."""
    return {name: weight for name, weight in upstream.named_parameters() if weight.requires_grad}


def disturb(upstream: Upstream) -> None:
    """Move what is trained, as training does."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in trained(upstream).values():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)


def farthest(one: Layers, other: Layers) -> float:
    """Return the largest difference of two passes."""
    return max(float((mine - theirs).detach().abs().max()) for mine, theirs in zip(one.values, other.values, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TINY)
def test_an_adapter_begins_as_the_model_and_merges_into_it(name: str, kind: str, material: Any) -> None:
    utterances = material(name)
    plain = load_upstream(name)
    if kind == "bitfit" and not any(key.endswith(".bias") for block in plain.blocks() for key, _ in block.named_parameters()):
        with pytest.raises(UserError, match="bias"):
            adapted(name, kind)
        return
    upstream = adapted(name, kind)
    with torch.no_grad():
        before = plain(utterances)
        assert farthest(upstream(utterances), before) == 0
        disturb(upstream)
        after = upstream(utterances)
        assert farthest(after, before) > 1e-3
        merge_adapter(upstream, kind)
        assert farthest(upstream(utterances), after) < 1e-5
    if kind != "houlsby":
        assert [*upstream.state_dict()] == [*plain.state_dict()], "a merged model has the names of a plain one"


# of four blocks of dim 64 (feed-forward 128): two layers of 64 x 64 with rank 8; their columns' norms; keys, values and the
# feed-forward's inside; two bottlenecks of 8; every bias behind the convolutions
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("lora", 4 * 2 * 2 * 64 * 8),
        ("dora", 4 * 2 * (2 * 64 * 8 + 64)),
        ("ia3", 4 * (64 + 64 + 128)),
        ("houlsby", 4 * 2 * (64 * 8 + 8 + 8 * 64 + 64)),
        ("bitfit", 4 * (6 * 64 + 128 + 2 * 64) - 4 * 64 + 64 * 4),
    ],
)
def test_an_adapter_trains_as_many_weights_as_its_paper_says(kind: str, count: int) -> None:
    upstream = adapted("test_hubert", kind)
    found = trained(upstream)
    if kind == "bitfit":
        front = {id(weight) for part in upstream.front_end() for weight in part.parameters()}
        biases = {name for name, weight in upstream.named_parameters() if name.endswith(".bias") and id(weight) not in front}
        assert {*found} == biases
    else:
        assert sum(weight.numel() for weight in found.values()) == count
    assert all(belongs_to_adapter(name, kind) for name in found)


@pytest.mark.parametrize("name", ["test_hubert", "test_whisper", "test_bert"])
def test_nothing_below_the_first_adapter_is_computed_backward(name: str, material: Any) -> None:
    layers = adapted(name, "lora").train()(material(name))
    assert [value.requires_grad for value in layers.values] == [False] + [True] * (len(layers.values) - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["test_hubert", "test_wavlm", "test_bert"])
def test_recomputed_blocks_and_bf16_give_the_gradients_of_an_adapter(
    name: str, kind: str, material: Any, difference: Any
) -> None:
    found = {}
    for way in ("plain", "recomputed", "bf16"):
        upstream = adapted(name, kind, dropout=0.0).train()
        disturb(upstream)
        if way == "recomputed":
            upstream.recompute_blocks()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "bf16"):
            layers = upstream(material(name))
        torch.stack([value.float().tanh().square().mean() for value in layers.values]).sum().backward()
        assert all(weight.grad is None for weight in upstream.parameters() if not weight.requires_grad)
        found[way] = torch.cat([weight.grad.flatten() for weight in trained(upstream).values() if weight.grad is not None])
    torch.testing.assert_close(found["recomputed"], found["plain"])
    assert 0 < difference(found["bf16"], found["plain"]) < 0.05


def test_an_adapter_is_drawn_from_the_seed_and_leaves_the_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (trained(adapted("test_hubert", "lora", seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_targets_choose_the_linear_layers() -> None:
    found = trained(adapted("test_hubert", "lora", adapter_rank=2, adapter_targets=["out_proj", "intermediate_dense"]))
    assert sum(weight.numel() for weight in found.values()) == 4 * (2 * (64 + 64) + 2 * (64 + 128))


@pytest.mark.parametrize(("name", "target"), [("test_hubert", "intermediate_dense"), ("test_gpt2", "c_attn")])
def test_a_bottleneck_is_as_wide_as_the_layer_that_it_stands_behind(name: str, target: str, material: Any) -> None:
    upstream = adapted(name, "houlsby", adapter_targets=[target])
    dim = 128 if name == "test_hubert" else 3 * 64
    assert sum(weight.numel() for weight in trained(upstream).values()) == 4 * (2 * dim * 8 + dim + 8)
    assert farthest(upstream(material(name)), load_upstream(name)(material(name))) == 0


@pytest.mark.parametrize("targets", [["q_proj", "query"], ["attention"], []])
def test_targets_that_match_nothing_are_refused_with_those_that_are_there(targets: list[str]) -> None:
    with pytest.raises(UserError, match=r"Expected linear layers of the blocks of .* There are: .*q_proj, v_proj\."):
        adapted("test_hubert", "lora", adapter_targets=targets)


def test_a_family_whose_layers_have_names_of_their_own_needs_targets() -> None:
    upstream = load_upstream("test_hubert")
    for block in upstream.blocks():
        attention: Any = block.attention
        attention.my_query = attention.q_proj
        del attention.q_proj
    with pytest.raises(UserError, match=r"Expected adapter_targets for adapter=lora of 'test_hubert'.*my_query"):
        add_adapter(upstream, UpstreamConfig("test_hubert", adapter="lora"))


def test_bottlenecks_stay_in_an_architecture_and_are_not_stacked(material: Any) -> None:
    upstream = adapted("test_hubert", "houlsby")
    disturb(upstream)
    again = rebuild(upstream.architecture() or {}, UpstreamConfig("test_hubert")).eval()
    again.load_state_dict(upstream.state_dict())
    with torch.no_grad():
        assert farthest(again(material("test_hubert")), upstream(material("test_hubert"))) == 0
    with pytest.raises(UserError, match=r"Expected a model without bottlenecks for adapter=houlsby"):
        add_adapter(again, UpstreamConfig("test_hubert", adapter="houlsby"))
    add_adapter(again, UpstreamConfig("test_hubert", adapter="lora"))


@pytest.mark.parametrize("kind", BY_PEFT)
def test_without_peft_its_install_command_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=rf"Expected peft for adapter={kind}, found none\. Run: pip install .*peft"):
        adapted("test_hubert", kind)


LORA = {"name": "test_hubert", "trainable": True, "adapter": "lora"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({**LORA, "adapter": "lorra"}, r"'upstream\.adapter' to be one of none, lora, dora, ia3, houlsby, bitfit, found 'lorra'"),
        ({**LORA, "adapter_rank": 0}, r"Expected 'upstream\.adapter_rank' above 0, found 0"),
        ({**LORA, "adapter_alpha": -1}, r"Expected 'upstream\.adapter_alpha' above 0"),
        ({**LORA, "adapter_dropout": 1}, r"Expected 'upstream\.adapter_dropout' from 0 to below 1"),
        ({**LORA, "trainable": False}, r"Expected -f beside upstream\.adapter=lora, which is trained, found a frozen upstream"),
        ({**LORA, "front_end": "trained"}, r"Expected upstream\.front_end=frozen beside upstream\.adapter=lora"),
        ({**LORA, "adapter": "bitfit", "adapter_rank": 4}, r"Expected no option beside upstream\.adapter=bitfit, found"),
        ({**LORA, "adapter": "ia3", "adapter_rank": 4}, r"Expected only adapter_targets beside upstream\.adapter=ia3, found"),
        ({"name": "test_hubert", "adapter_rank": 4}, r"Expected 'upstream\.adapter' beside 'upstream\.adapter_rank', found none"),
    ],
)
def test_mistakes_with_an_adapter_are_reported_before_anything_is_loaded(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve([{"task": "emotion", "corpus": {"demo": True}, "upstream": section}])


@pytest.mark.parametrize("name", ["fbank", "hashed_words", "new/hubert", "s3prl/hubert"])
def test_an_upstream_that_takes_no_adapter_says_so(name: str) -> None:
    with pytest.raises(UserError, match=rf"Upstream '{name}' has no option 'adapter' \(it has: .*\)\. Leave it out\."):
        load_upstream(UpstreamConfig(name, trainable=True, adapter="bitfit"))


def test_a_frozen_part_of_a_scenario_has_no_adapter() -> None:
    assert frozen_section({**LORA, "adapter_rank": 4, "layer": 2}) == {"name": "test_hubert", "trainable": False, "layer": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_blocks_takes_no_adapter(kind: str) -> None:
    with pytest.raises(UserError, match=rf"Expected a model of transformer blocks for adapter={kind}, found 'fbank'\."):
        add_adapter(load_upstream("fbank"), UpstreamConfig("fbank", adapter=kind))


@pytest.mark.parametrize(("name", "kind"), [*((name, "lora") for name in TINY), ("test_hubert", "bitfit"), ("test_bert", "ia3")])
def test_a_model_over_the_same_weights_computes_the_same_and_its_adapter_is_its_own(name: str, kind: str, material: Any) -> None:
    utterances, plain, section = material(name), load_upstream(name), UpstreamConfig(name, trainable=True, adapter=kind)
    other = over_same_weights(plain, kind)
    add_adapter(other, section)
    own = [weight for key, weight in other.named_parameters() if belongs_to_adapter(key, kind)]
    shared = {id(weight) for weight in plain.parameters()}
    assert own
    assert not any(id(weight) in shared for weight in own)
    assert all(id(weight) in shared for key, weight in other.named_parameters() if not belongs_to_adapter(key, kind))
    with torch.no_grad():
        before = plain(utterances)
        assert farthest(other(utterances), before) == 0
        generator = torch.Generator().manual_seed(3)
        for weight in own:
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
        assert farthest(other(utterances), before) > 1e-4
        assert farthest(plain(utterances), before) == 0
