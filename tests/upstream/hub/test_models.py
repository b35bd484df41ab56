"""Models of the hub: loading, layers, dropout, views, masks, pruning."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headwater.core.errors import UserError
from headwater.training.model import Model
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.hub.family import families
from headwater.upstream.hub.models import rebuild, wrap
from headwater.upstream.hub.tiny import tiny_model
from headwater.upstream.load import list_upstreams, load_upstream

TINY = [row.name for row in list_upstreams("test_*", "audio")]
MASKABLE = [row.name for row in list_upstreams("test_*", "audio") if "spec_augment" in row.options]
WAVEFORM_MODELS = [row.name for row in list_upstreams("test_*", "audio") if "front_end" in row.options]
NO_LAYERDROP = {
    "test_moonshine",
    "test_granite_speech",
    "test_qwen3_asr",
    "test_qwen3_omni",
    "test_dasheng",
}  # nor its transformers' config
INPUT_AS_IT_IS = {"test_moonshine", "test_granite_speech"}  # nothing is dropped in front of their first block
OURS = {name for family in families().values() if family.is_ours for name in family.tiny}  # classes that transformers has not
LAYER_NORMS = {
    "test_hubert_large",
    "test_emotion2vec",
    "test_data2vec",
    "test_unispeech",
    "test_wav2vec2_conformer_rope",
}  # in the convolutions


def save(name: str, folder: Path, **settings: Any) -> Path:
    """Save a tiny model as the hub has it: with LayerDrop and SpecAugment on, as transformers' defaults are."""
    model = tiny_model(name, **settings)
    for key in ("layerdrop", "encoder_layerdrop"):
        if hasattr(model.config, key):
            setattr(model.config, key, 0.5)
    model.config.apply_spec_augment = True
    model.save_pretrained(folder)
    return folder


def reference_layers(folder: Path, waveform: Tensor) -> list[Tensor]:
    """Return transformers' own layers of one utterance, the last one being the encoder's output."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        output = model(waveform.unsqueeze(0), output_hidden_states=True)
    if model.config.model_type == "sew":  # whose output is widened to twice the frames
        return list(output.hidden_states)
    return [*output.hidden_states[:-1], output.last_hidden_state]


def test_every_family_has_a_tiny_model() -> None:
    known = families()
    assert len(known) >= 14
    assert all(family.tiny for family in known.values())
    assert {name for family in known.values() for name in family.tiny} == {row.name for row in list_upstreams("test_*")}
    assert all(row.untrained and "untrained" in row.description for row in list_upstreams("test_*"))


@pytest.mark.parametrize("name", sorted({*WAVEFORM_MODELS} - OURS))
def test_layers_equal_those_of_transformers(name: str, tmp_path: Path, speechlike: Any, difference: Any) -> None:
    folder = save(name, tmp_path)
    upstream = load_upstream(str(folder))
    (waveform,) = speechlike(9000)
    result = waveform
    assert upstream.spec.normalize == (name in LAYER_NORMS)
    if upstream.spec.normalize:
        result = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-5).sqrt()
    expected = reference_layers(folder, result)
    with torch.no_grad():
        found = upstream([waveform])
    assert len(found.values) == len(expected) == upstream.spec.num_layers
    assert max(difference(ours, theirs) for ours, theirs in zip(found.values, expected, strict=True)) < 1e-5
    assert upstream.source == str(folder)
    assert not upstream.untrained


def test_sew_projects_what_its_convolutions_are_wider_than(tmp_path: Path, speechlike: Any, difference: Any) -> None:
    folder, (waveform,) = save("test_sew", tmp_path, hidden_size=32), speechlike(9000)
    with torch.no_grad():
        found = load_upstream(str(folder))([waveform]).values
    expected = reference_layers(folder, waveform)
    assert max(difference(ours, theirs) for ours, theirs in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "finetuned"])
@pytest.mark.parametrize("name", TINY)
def test_one_step_trains_what_it_should(name: str, trainable: bool, tmp_path: Path, speechlike: Any) -> None:
    upstream = load_upstream(str(save(name, tmp_path))).requires_grad_(trainable).train(trainable)
    for part in upstream.front_end():
        part.requires_grad_(False)
    head = nn.Linear(upstream.spec.dim, 2)
    before = {key: value.clone() for key, value in upstream.state_dict().items()}
    optimizer = torch.optim.SGD([*head.parameters(), *upstream.parameters()], lr=0.1)
    layers = upstream(speechlike(6000, 3000))
    nn.functional.cross_entropy(head(layers.values[-1].mean(dim=1)), torch.tensor([0, 1])).backward()
    optimizer.step()
    changed = {key for key, value in upstream.state_dict().items() if not torch.equal(value, before[key])}
    assert head.weight.grad is not None
    assert all(parameter.grad is None for part in upstream.front_end() for parameter in part.parameters())
    assert bool(changed) == trainable
    if trainable:
        weights = [next(block.parameters()) for block in upstream.blocks()]
        assert all(weight.grad is not None and bool(weight.grad.any()) for weight in weights)


@pytest.mark.parametrize("name", TINY)
def test_number_of_layers_is_constant_in_train_mode(name: str, tmp_path: Path, speechlike: Any) -> None:
    upstream = load_upstream(str(save(name, tmp_path))).train()
    counts = {len(upstream(speechlike(2000)).values) for _ in range(4)}
    assert counts == {upstream.spec.num_layers} == {len(upstream.blocks()) + 1}


@pytest.mark.parametrize("name", TINY)
def test_layerdrop_and_transformers_own_augmentation_are_off_after_loading(name: str, tmp_path: Path) -> None:
    settings = load_upstream(str(save(name, tmp_path))).config
    drops = [getattr(settings, key) for key in ("layerdrop", "encoder_layerdrop") if hasattr(settings, key)]
    assert drops or name in NO_LAYERDROP
    assert not any(drops)
    assert not settings.apply_spec_augment  # type: ignore[union-attr]


@pytest.mark.parametrize("name", TINY)
def test_dropout_zero_makes_train_mode_equal_eval_mode(name: str, speechlike: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, dropout=0.0))
    with torch.no_grad():
        quiet = upstream(speechlike(4000)).values[-1]
        assert torch.equal(upstream.train()(speechlike(4000)).values[-1], quiet)


def attention_dropouts(upstream: Any) -> list[float]:
    """Return the level of each functional dropout on attention weights."""
    modules = [module for module in upstream.modules() if hasattr(module, "q_proj")]
    return [module.dropout if hasattr(module, "dropout") else module.attention_dropout for module in modules]


@pytest.mark.parametrize("name", TINY)
def test_dropout_level_reaches_attention_too(name: str) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, dropout=0.37))
    assert {*attention_dropouts(upstream)} <= {0.37}
    assert {module.p for module in upstream.modules() if isinstance(module, nn.Dropout)} <= {0.37}


@pytest.mark.parametrize("name", sorted({*TINY} - {"test_moonshine"}))
def test_dropout_of_hidden_units_leaves_attention_as_the_checkpoint_has_it(name: str) -> None:
    usual = load_upstream(UpstreamConfig(name=name))
    upstream = load_upstream(UpstreamConfig(name=name, dropout=0.37, dropout_of="hidden"))
    levels = [attention_dropouts(each) for each in (usual, upstream)]
    assert levels[0] == levels[1]
    assert 0.37 in {module.p for module in upstream.modules() if isinstance(module, nn.Dropout)} | {
        getattr(module, "dropout", None) for module in upstream.modules() if not hasattr(module, "q_proj")
    }


@pytest.mark.parametrize("name", MASKABLE)
def test_layerdrop_skips_blocks_in_training_and_every_layer_is_still_there(name: str, speechlike: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, dropout=0.0, layerdrop=0.999))
    quiet = upstream(speechlike(4000))
    with torch.no_grad():
        dropped = upstream.train()(speechlike(4000))
    assert len(dropped.values) == upstream.spec.num_layers
    assert torch.allclose(dropped.values[1], quiet.values[1], atol=1e-6)  # the first block always runs
    skipped = dropped.values[:-1] if getattr(upstream, "stable", False) else dropped.values
    assert all(torch.equal(values, dropped.values[1]) for values in skipped[2:])
    assert not torch.equal(dropped.values[-1], quiet.values[-1])


@pytest.mark.parametrize("name", MASKABLE)
def test_each_view_skips_blocks_of_its_own(name: str, speechlike: Any) -> None:
    upstream, differs = load_upstream(UpstreamConfig(name=name, dropout=0.0, layerdrop=0.5)).train(), []
    for seed in range(12):
        torch.manual_seed(seed)
        with torch.no_grad():
            layers = upstream(speechlike(4000, 3000), views=2)
        first, second = layers.values[-1].chunk(2)
        differs.append(not torch.allclose(first, second, atol=1e-6))
    assert True in differs  # without dropout nothing else could make a difference
    assert False in differs


def test_layerdrop_null_is_what_the_checkpoint_was_trained_with(tmp_path: Path) -> None:
    folder = save("test_hubert", tmp_path)
    layerdrops = [load_upstream(UpstreamConfig(name=str(folder), layerdrop=share))._layerdrop for share in (None, 0.0, 0.2)]
    assert layerdrops == [0.5, 0.0, 0.2]


def test_a_layerdrop_of_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"Expected a layerdrop from 0 to below 1, found 1.0. Set `layerdrop=0.1`, say."):
        load_upstream(UpstreamConfig(name="test_hubert", layerdrop=1.0))


@pytest.mark.parametrize("name", WAVEFORM_MODELS)
def test_convolutions_are_trained_where_the_config_says_so_by_their_share_of_the_gradient(name: str, speechlike: Any) -> None:
    def gradient(**options: Any) -> list[Tensor | None]:
        config = UpstreamConfig(name=name, trainable=True, dropout=0.0, **options)
        upstream = load_upstream(config)
        Model({"audio": upstream}, {}, {"audio": config})
        upstream.train()(speechlike(4000, 3000)).values[-1].square().sum().backward()
        return [weight.grad for part in upstream.front_end() for weight in part.parameters()]

    assert set(gradient()) == {None}
    whole, tenth = gradient(front_end="trained"), gradient(front_end="trained", front_end_gradient=0.1)
    assert all(one is not None and other is not None for one, other in zip(whole, tenth, strict=True))
    for one, other in zip(whole, tenth, strict=True):
        assert torch.allclose(0.1 * one, other, rtol=1e-4, atol=1e-9)  # type: ignore[operator]


@pytest.mark.parametrize("name", TINY)
def test_two_views_differ_in_train_mode_and_are_one_in_eval_mode(name: str, speechlike: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name=name, dropout=0.2))
    waveforms = speechlike(4000, 3000)
    assert len(upstream(waveforms, views=2).lengths) == 2
    layers = upstream.train()(waveforms, views=2)
    assert layers.lengths == layers.lengths[:2] * 2, "view-major: the first view's utterances, then the second's"
    for values in layers.values[name in INPUT_AS_IT_IS :]:
        assert len(values) == 4
        assert not torch.allclose(values[:2], values[2:])


def test_views_of_a_model_without_dropout_repeat_the_batch_in_order(speechlike: Any, difference: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name="test_hubert", dropout=0.0)).train()
    with torch.no_grad():
        once, twice = upstream(speechlike(4000, 3000)), upstream(speechlike(4000, 3000), views=2)
    assert difference(twice.values[-1], once.values[-1].repeat(2, 1, 1)) < 1e-5


@pytest.mark.parametrize("name", TINY)
def test_fewer_layers_are_those_of_the_whole_model(name: str, speechlike: Any) -> None:
    whole, cut = load_upstream(name), load_upstream(UpstreamConfig(name=name, keep_layers=1))
    waveforms = speechlike(4000)
    with torch.no_grad():
        expected, found = whole(waveforms).values[:2], cut(waveforms).values
        if getattr(whole, "stable", False):
            expected = [expected[0], whole.model.encoder.layer_norm(expected[1])]  # type: ignore[union-attr, operator]
        for norm in ("layer_norm", "ln_post"):
            if hasattr(whole.model, "layers") and hasattr(whole.model, norm):  # an encoder with a norm of its output
                expected = [expected[0], getattr(whole.model, norm)(expected[1])]
        if name == "test_dasheng":
            expected = [expected[0], whole.get_submodule("model.encoder.norm")(expected[1])]
    assert cut.spec.num_layers == len(found) == 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", TINY)
def test_named_layers_come_in_the_order_named(name: str, speechlike: Any) -> None:
    upstream = load_upstream(name)
    with torch.no_grad():
        every, some = upstream(speechlike(4000)).values, upstream(speechlike(4000), layers=[1, 0]).values
        (last,) = upstream(speechlike(4000), layers=[upstream.spec.num_layers - 1]).values
    assert torch.equal(some[0], every[1])
    assert torch.equal(some[1], every[0])
    assert torch.equal(last, every[-1])


@pytest.mark.parametrize("name", TINY)
def test_blocks_behind_the_last_named_layer_do_not_run(name: str, speechlike: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name=name)).eval()
    ran = list[int]()
    for number, block in enumerate(upstream.blocks()):
        block.register_forward_pre_hook(lambda *_, number=number: ran.append(number))
    with torch.no_grad():
        upstream(speechlike(6000), layers=[2, 1])
    assert ran == [0, 1]


@pytest.mark.parametrize("layers", [[], [5], [-1]])
def test_unknown_layers_are_refused(layers: list[int], speechlike: Any) -> None:
    with pytest.raises(ValueError, match="Expected layers from 0 to 4"):
        load_upstream("test_hubert")(speechlike(4000), layers=layers)


@pytest.mark.parametrize("name", [*TINY, "fbank"])
def test_zero_samples_are_refused_with_the_utterance_named(name: str) -> None:
    with pytest.raises(ValueError, match="found none in utterance '1'"):
        load_upstream(name)([torch.ones(4000), torch.ones(0)])


@pytest.mark.parametrize("name", MASKABLE)
def test_masked_frames_see_nothing(name: str, speechlike: Any) -> None:
    upstream = load_upstream(name)
    one, other = speechlike(4000, seed=1), speechlike(4000, seed=2)
    masked = torch.ones(1, upstream.spec.num_frames(4000), dtype=torch.bool)
    with torch.no_grad():
        assert upstream.spec.maskable
        assert torch.equal(upstream(one, masked=masked).values[-1], upstream(other, masked=masked).values[-1])
        assert torch.equal(upstream(one, masked=~masked).values[-1], upstream(one).values[-1])


@pytest.mark.parametrize("name", [*sorted({*TINY} - {*MASKABLE}), "fbank"])
def test_a_model_without_mask_embedding_says_so(name: str, speechlike: Any) -> None:
    with pytest.raises(ValueError, match="Leave `masked` out"):
        load_upstream(name)(speechlike(4000), masked=torch.ones(1, 12))


def test_a_mask_of_another_shape_is_refused(speechlike: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected `masked` of shape \(1, 12\), found \(1, 13\)"):
        load_upstream("test_hubert")(speechlike(4000), masked=torch.ones(1, 13))


def test_spec_augment_draws_from_torch_alone_and_only_when_switched_on(speechlike: Any) -> None:
    plain = load_upstream(UpstreamConfig(name="test_hubert", dropout=0.0)).train()
    augmented = load_upstream(UpstreamConfig(name="test_hubert", dropout=0.0, spec_augment=True))
    waveforms = speechlike(16000, 2000)
    numpy_state = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(augmented.train()(waveforms).values[0])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002
    expected = plain(waveforms).values[0]
    assert not torch.allclose(draws[0], expected)
    assert torch.equal(augmented.eval()(waveforms).values[0], plain.eval()(waveforms).values[0])


@pytest.mark.parametrize("choice", ["yes", "no"])
def test_normalize_waveform_overrides_the_checkpoint(choice: Any, speechlike: Any, difference: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name="test_hubert_large", normalize_waveform=choice))
    (waveform,) = speechlike(4000)
    with torch.no_grad():
        louder = difference(upstream([waveform * 30 + 1]).values[-1], upstream([waveform]).values[-1])
    assert upstream.spec.normalize == (choice == "yes")
    assert (louder < 1e-3) == (choice == "yes")


@pytest.mark.parametrize("name", TINY)
def test_building_leaves_the_random_generator_alone(name: str, tmp_path: Path) -> None:
    folder = save(name, tmp_path)
    state = torch.get_rng_state()
    one, other = load_upstream(name), load_upstream(name)
    load_upstream(str(folder))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.weights_hash() == other.weights_hash()


def test_a_bare_encoder_without_mask_embedding_loads_the_same_each_time(tmp_path: Path) -> None:
    model = tiny_model("test_hubert")
    kept = {key: value for key, value in model.state_dict().items() if key != "masked_spec_embed"}
    model.save_pretrained(tmp_path, state_dict=kept)
    assert load_upstream(str(tmp_path)).weights_hash() == load_upstream(str(tmp_path)).weights_hash()


def test_names_of_s3prl_are_registered_with_their_hub_ids() -> None:
    sources = {row.name: row.source for row in list_upstreams()}
    assert sources["hubert"] == sources["hubert_base"] == "facebook/hubert-base-ls960"
    assert sources["wav2vec2"] == "facebook/wav2vec2-base"
    assert sources["w2v2_large_robust"] == sources["wav2vec2_large_lv60_cv_swbd_fsh"] == "facebook/wav2vec2-large-robust"
    assert sources["wavlm"] == "microsoft/wavlm-base-plus"
    assert sources["whisper_large_v3"] == "openai/whisper-large-v3"
    assert len(list_upstreams("whisper_*")) == 8


def test_a_registered_name_takes_its_weights_from_a_folder(tmp_path: Path, speechlike: Any) -> None:
    folder = save("test_hubert", tmp_path)
    named = load_upstream(UpstreamConfig(name="hubert", path=str(folder)))
    assert named.name == "hubert"
    assert named.source == str(folder)
    assert torch.equal(named(speechlike(4000)).values[-1], load_upstream("test_hubert")(speechlike(4000)).values[-1])


def test_a_registered_name_refuses_weights_of_another_family(tmp_path: Path) -> None:
    folder = save("test_wavlm", tmp_path)
    with pytest.raises(UserError, match=r"Expected model_type hubert in .*, found 'wavlm'"):
        load_upstream(UpstreamConfig(name="hubert", path=str(folder)))


def test_an_unknown_family_is_named_beside_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"one of .*bert, .*hubert, .*voxtral, .*whisper, .*found 't5'"):
        load_upstream(str(tmp_path))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"keep_layers": 5}, "Expected keep_layers from 1 to 4 .* found 5"),
        ({"keep_layers": 0}, "Expected keep_layers from 1 to 4 .* found 0"),
        ({"dropout": 1.0}, "Expected a dropout from 0 to below 1, found 1.0"),
        ({"attend": "valid"}, "no option 'attend'"),
    ],
)
def test_an_option_out_of_range_is_refused(option: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_upstream(UpstreamConfig(name="test_hubert", **option))


def test_a_folder_refuses_the_options_of_another_family(tmp_path: Path) -> None:
    folder = save("test_whisper", tmp_path)
    with pytest.raises(UserError, match="Whisper's encoder has no option 'padding'"):
        load_upstream(UpstreamConfig(name=str(folder), padding="s3prl"))


def test_wrapped_models_say_what_trains() -> None:
    upstream = wrap(tiny_model("test_hubert"), UpstreamConfig())
    front = {id(parameter) for part in upstream.front_end() for parameter in part.parameters()}
    assert front == {id(value) for key, value in upstream.named_parameters() if "feature_extractor" in key}
    assert len(upstream.blocks()) == 4


@pytest.mark.parametrize("name", ["test_hubert", "test_bert"])
@pytest.mark.parametrize(
    "change",
    [
        *({"model_type": []}, {"model_type": {}}, {"hidden_size": "x"}, {"hidden_size": 0}, {"hidden_size": 10**7}),
        *({"layer_norm_eps": 0}, {"dtype": "float99"}, {"num_attention_heads": 0}, {"quantization_config": 5}, {"id2label": 5}),
        *({"num_hidden_layers": 2_000_000}, {"num_labels": 10**9}, {"num_labels": 10**7}, {"vocab_size": 10**7}),
    ],
    ids=str,
)
def test_a_config_of_a_strangers_is_one_line_at_once(tmp_path: Path, name: str, change: dict[str, Any]) -> None:
    tiny_model(name).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    began = time.process_time()
    with pytest.raises(UserError, match=r"^Expected ") as problem:
        load_upstream(str(tmp_path))
    assert "\n" not in str(problem.value)
    assert time.process_time() - began < 20


@pytest.mark.parametrize("content", ["[]", "null", "[" * 100_000, '{"hidden_size": ' + "1" * 5000 + "}"])
def test_a_config_that_is_no_mapping_is_one_line(tmp_path: Path, content: str) -> None:
    tiny_model("test_hubert").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"^Expected json in '.*config\.json', found .*Fetch the file again"):
        load_upstream(str(tmp_path))


@pytest.mark.parametrize("name", TINY)
def test_a_described_model_is_rebuilt_without_a_file(name: str, tmp_path: Path, speechlike: Any) -> None:
    upstream = load_upstream(UpstreamConfig(name=str(save(name, tmp_path)), keep_layers=1))
    described = json.loads(json.dumps(upstream.architecture()))
    for path in tmp_path.iterdir():
        path.unlink()
    again = rebuild(described, UpstreamConfig()).eval()
    again.load_state_dict(upstream.state_dict())
    waveforms = speechlike(6000, 4000)
    with torch.no_grad():
        pairs = zip(again(waveforms).values, upstream(waveforms).values, strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert again.weights_hash() == upstream.weights_hash()
    assert len(again.blocks()) == 1


def test_the_table_of_families_is_whole() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ") and "`" in line]
    missing = [
        family.title
        for family in families().values()
        if not any(line.startswith(f"| {family.title} |") and next(iter(family.checkpoints)) in line for line in lines)
    ]
    assert not missing
