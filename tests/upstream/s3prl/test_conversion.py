"""s3prl's checkpoint files: what its own code saved gives the layers that its own code gives."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headwater.__main__ import dispatch
from headwater.core.errors import UserError
from headwater.core.torch_files import read_torch_file
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import find_upstream, load_upstream
from headwater.upstream.s3prl.conversion import converted, recognise, write_folder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Support for mismatched:UserWarning")

SMALL: dict[str, Any] = {
    "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] + [(32,2,2)]",
    "encoder_layers": 3,
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 4,
    "conv_pos": 32,
    "conv_pos_groups": 4,
    "encoder_layerdrop": 0.1,
}
LARGE = {"extractor_mode": "layer_norm", "layer_norm_first": True}
BIASED = {**LARGE, "conv_bias": True}
STYLES: dict[str, tuple[str, dict[str, Any]]] = {  # what is tested -> family, options
    "hubert-base": ("hubert", {}),
    "hubert-large": ("hubert", LARGE),
    "wav2vec2-base": ("wav2vec2", {"quantize_targets": True, "final_dim": 16}),
    "wav2vec2-large": ("wav2vec2", {**BIASED, "quantize_targets": True, "quantizer_depth": 2}),
    "data2vec-base": ("data2vec", {"extractor_mode": "layer_norm", "pos_conv_depth": 5, "conv_pos": 35}),
    "data2vec-large": ("data2vec", {"extractor_mode": "layer_norm", "pos_conv_depth": 2, "encoder_layers": 4}),
    "wavlm-base": ("wavlm", {}),
    "wavlm-large": ("wavlm", LARGE),
    "unispeech-sat-base": ("unispeech_sat", {}),
    "unispeech-sat-large": ("unispeech_sat", LARGE),
}
NAMES = {
    "hubert": "hubert",
    "wav2vec2": "wav2vec2",
    "data2vec": "data2vec",
    "wavlm": "wavlm_base",
    "unispeech_sat": "unispeech_sat_base",
}


def drawn(model: nn.Module) -> nn.Module:
    """Return a model with every weight drawn anew: fresh norms and biases would hide a wrong name."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    return model.eval()


def hubert_file(_: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return what s3prl keeps of a random HuBERT."""
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

    task = {"normalize": options.get("extractor_mode") == "layer_norm", "labels": ["km"]}
    options = {"label_rate": 50.0, "_name": "hubert"} | options
    known = {key: value for key, value in options.items() if key != "_name"}
    model = HubertModel(HubertConfig(**known), HubertPretrainingConfig(normalize=task["normalize"]), [["a", "b"]])
    weights = drawn(model).state_dict()
    return {"task_cfg": task, "model_cfg": options, "model_weight": weights, "dictionaries_symbols": [["a", "b"]]}


def fairseq_file(source: Path, convert: Any, model: nn.Module, options: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return what s3prl's own converter makes of a checkpoint of fairseq's, whose loading is stood in for."""
    task = {"normalize": options.get("extractor_mode") == "layer_norm"}
    loaded = {"model": {**drawn(model).state_dict(), **others}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "load_fairseq_ckpt", lambda _: (loaded, {"task": task, "model": options}))
        convert.load_and_convert_fairseq_ckpt("fairseq.pt", source)
    return torch.load(source, weights_only=True)


def wav2vec2_file(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return what s3prl keeps of a random wav2vec 2.0."""
    from s3prl.upstream.wav2vec2 import convert

    return fairseq_file(folder / "made.pt", convert, convert.Wav2Vec2Model(convert.Wav2Vec2Config(**options)), options)


def data2vec_file(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return what s3prl keeps of a random data2vec, its teacher's weights included."""
    from s3prl.upstream.data2vec import convert

    model = convert.Data2VecAudioModel(convert.Data2VecAudioConfig(**options))
    model.remove_pretraining_modules()
    return fairseq_file(folder / "made.pt", convert, model, options, _ema={"layers.0.fc1.bias": torch.ones(2)})


def wavlm_file(_: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return a random WavLM in Microsoft's format."""
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    bias = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32, "max_distance": 80}
    options = options | bias | {"normalize": options.get("extractor_mode") == "layer_norm"}
    return {"cfg": options, "model": drawn(WavLM(WavLMConfig(options))).state_dict()}


def unispeech_sat_file(_: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Return a random UniSpeech-SAT in Microsoft's format: in s3prl it is a WavLM without position bias."""
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    options = options | {"normalize": options.get("extractor_mode") == "layer_norm"}
    return {"cfg": options, "model": drawn(WavLM(WavLMConfig(options))).state_dict()}


MAKERS = {
    "unispeech_sat": unispeech_sat_file,
    "hubert": hubert_file,
    "wav2vec2": wav2vec2_file,
    "data2vec": data2vec_file,
    "wavlm": wavlm_file,
}


@pytest.fixture
def content(tmp_path: Path, s3prl: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return what s3prl's code keeps of a small random model, by its style."""
    from headwater.upstream.s3prl.torchaudio_stub import stand_in_for_torchaudio

    def make(style: str, **options: Any) -> dict[str, Any]:
        family, own = STYLES[style]
        assert s3prl.__name__ == "s3prl"
        if importlib.util.find_spec("omegaconf") is None:  # data2vec's file imports a name of it that it never uses
            monkeypatch.setitem(sys.modules, "omegaconf", SimpleNamespace(II=None))
        with stand_in_for_torchaudio():
            return MAKERS[family](tmp_path, SMALL | own | options)

    return make


@pytest.fixture
def file(content: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., Path]:
    """Save a small random model as s3prl does, with what a test changes in it."""

    def make(style: str, change: Callable[[dict[str, Any]], Any] = lambda made: made, **options: Any) -> Path:
        made = content(style, **options)
        change(made)
        path = tmp_path / f"{style}.pt"
        torch.save(made, path)
        return path

    return make


@pytest.mark.parametrize("style", STYLES)
def test_layers_equal_those_of_s3prl(style: str, file: Any, speechlike: Any, difference: Any, tmp_path: Path) -> None:
    family, path = STYLES[style][0], file(style)
    write_folder(recognise(path, read_torch_file(path)), tmp_path / "folder")
    ours = load_upstream(UpstreamConfig(name=NAMES[family], path=str(tmp_path / "folder")))
    theirs = load_upstream(UpstreamConfig(name=f"s3prl/{family}_local", path=str(path)))
    waveforms = speechlike(9000, 6100)
    with torch.no_grad():
        found, expected = ours(waveforms), theirs(waveforms)
    assert ours.spec.normalize == (style not in {"hubert-base", "wav2vec2-base", "wavlm-base", "unispeech-sat-base"})
    assert (found.lengths, len(found.values)) == (expected.lengths, len(expected.values))
    assert len(found.values) == STYLES[style][1].get("encoder_layers", 3) + 1
    for row, length in enumerate(found.lengths):
        pairs = zip(found.values, expected.values, strict=True)
        assert max(difference(one[row, :length], other[row, :length]) for one, other in pairs) < 1e-4


UNUSUAL: dict[str, tuple[str, dict[str, Any], bool | None]] = {  # style, options, whether waveforms are normalised
    "raw convolutions of normalised waveforms": ("hubert-base", {}, True),
    "raw waveforms below layer norms": ("wavlm-large", {}, False),
    "no projection": ("hubert-base", {"encoder_embed_dim": 32}, None),
    "no projection, in Microsoft's form": ("wavlm-large", {"encoder_embed_dim": 32}, None),
    "a projection of the same dims": ("data2vec-base", {"encoder_embed_dim": 32}, None),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_layers_of_an_unusual_model_equal_those_of_s3prl(
    what: str, file: Any, speechlike: Any, difference: Any, tmp_path: Path
) -> None:
    style, options, normalize = UNUSUAL[what]
    change = {} if normalize is None else {"normalize": normalize}
    path = file(style, lambda made: made["cfg" if "cfg" in made else "task_cfg"].update(change), **options)
    write_folder(recognise(path, read_torch_file(path)), tmp_path / "folder")
    family = STYLES[style][0]
    ours = load_upstream(UpstreamConfig(name=NAMES[family], path=str(tmp_path / "folder")))
    theirs = load_upstream(UpstreamConfig(name=f"s3prl/{family}_local", path=str(path)))
    waveforms = [3 * waveform + 0.1 for waveform in speechlike(9000, 6100)]
    with torch.no_grad():
        found, expected = ours(waveforms), theirs(waveforms)
    extractor = json.loads((tmp_path / "folder" / "preprocessor_config.json").read_text())
    assert extractor["do_normalize"] == ours.spec.normalize == (ours.spec.normalize if normalize is None else normalize)
    assert found.lengths == expected.lengths
    for row, length in enumerate(found.lengths):
        pairs = zip(found.values, expected.values, strict=True)
        assert max(difference(one[row, :length], other[row, :length]) for one, other in pairs) < 1e-4


@pytest.mark.parametrize("style", ["wav2vec2-large", "data2vec-base"])
def test_only_the_heads_of_the_pretraining_are_left_out(style: str, file: Any, tmp_path: Path) -> None:
    path = file(style)
    left_out = write_folder(recognise(path, read_torch_file(path)), tmp_path / "folder")
    assert {re.split(r"\.", name)[0] for name in left_out} == {
        "wav2vec2-large": {"final_proj", "project_q", "quantizer"},
        "data2vec-base": {"_ema"},
    }[style]


def test_a_folder_says_how_its_waveforms_are_prepared(file: Any, tmp_path: Path) -> None:
    path = file("hubert-large")
    write_folder(recognise(path, read_torch_file(path)), tmp_path / "folder")
    extractor = json.loads((tmp_path / "folder" / "preprocessor_config.json").read_text())
    assert (extractor["do_normalize"], extractor["sampling_rate"]) == (True, 16000)


def test_a_file_after_k_is_converted_once(file: Any, caplog: pytest.LogCaptureFixture, cache_folder: Path) -> None:
    path = file("wavlm-base")
    first = load_upstream(UpstreamConfig(name="wavlm", path=str(path)))
    assert f"{path}: s3prl's WavLM, converted into {cache_folder}" in caplog.text
    caplog.clear()
    again = load_upstream(UpstreamConfig(name="wavlm_local", path=str(path)))
    assert not caplog.text
    assert first.weights_hash() == again.weights_hash()
    assert "converted" in first.source


def test_a_mask_embedding_comes_over(file: Any) -> None:
    path = file("hubert-base")
    upstream = load_upstream(UpstreamConfig(name="hubert", path=str(path)))
    assert upstream.spec.maskable
    assert torch.equal(upstream.model.masked_spec_embed, read_torch_file(path)["model_weight"]["mask_emb"])  # type: ignore[union-attr, arg-type]


def keep(_: dict[str, Any]) -> None:
    """Change nothing."""


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda made: made["model_weight"].pop(key)


def add(**weights: Tensor) -> Callable[[dict[str, Any]], Any]:
    return lambda made: made["model_weight"].update(weights)


REFUSED: dict[str, tuple[str, Callable[[dict[str, Any]], Any], dict[str, Any], str]] = {
    "a weight missing": (
        "hubert-base",
        drop("encoder.layers.1.fc1.bias"),
        {},
        r"1 of its \d+ weights missing .*layers\.1\.feed_fo",
    ),
    "a weight unknown": ("hubert-base", add(novelty=torch.ones(2)), {}, "a weight 'novelty' that it has no place for"),
    "another shape": ("wav2vec2-base", add(mask_emb=torch.ones(2)), {}, r"'mask_emb' of shape \(2,\) in place of \(64,\)"),
    "no weight": ("wav2vec2-base", add(mask_emb=3), {}, "'mask_emb' of shape int in place of"),  # type: ignore[arg-type]
    "a quantised input": ("wav2vec2-base", lambda made: made["model_cfg"].update(quantize_input=True), {}, "quantize_input=True"),
    "a conformer": ("wav2vec2-base", lambda made: made["model_cfg"].update(layer_type="conformer"), {}, "layer_type='conformer'"),
    "another activation": ("hubert-base", keep, {"activation_fn": "tanh"}, "activation_fn='tanh'"),
    "stacked positions": ("wav2vec2-base", keep, {"pos_conv_depth": 3}, "pos_conv_depth=3"),
    "no position bias": ("wavlm-base", lambda made: made["cfg"].update(gru_rel_pos=False), {}, "gru_rel_pos=False"),
    "code as convolutions": (
        "hubert-base",
        lambda made: made["model_cfg"].update(conv_feature_layers="__import__('os').system('echo')"),
        {},
        "conv_feature_layers=",
    ),
    "too many convolutions": (
        "hubert-base",
        lambda made: made["model_cfg"].update(conv_feature_layers="[(32,2,2)] * 64 * 64 * 64"),
        {},
        "conv_feature_layers=",
    ),
}


UNLIKE: dict[str, tuple[str, dict[str, Any], str]] = {  # style, what the options say, what is said
    "no heads": ("hubert-base", {"encoder_attention_heads": 0}, "found encoder_attention_heads=0 with 64 dims"),
    "heads that do not divide": ("wavlm-base", {"encoder_attention_heads": 7}, "found encoder_attention_heads=7 with 64 dims"),
    "no groups": ("wav2vec2-base", {"conv_pos_groups": 0}, "found conv_pos_groups=0"),
    "huge dims": ("hubert-base", {"encoder_embed_dim": 10**9}, r"Expected 'post_extract_proj.weight' .* found \(64, 32\)"),
    "huge blocks": ("wavlm-base", {"encoder_ffn_embed_dim": 10**18}, r"fc1.weight' .* found \(128, 64\)"),
    "huge positions": ("wav2vec2-base", {"conv_pos": 10**18}, r"pos_conv.0.weight_v' .* found \(64, 16, 32\)"),
    "a million blocks": ("hubert-base", {"encoder_layers": 10**6}, "Expected encoder_layers of 1000000 .* found weights of 3"),
    "fewer than no blocks": ("hubert-base", {"encoder_layers": -1}, "Expected encoder_layers of -1"),
    "a million positions": ("data2vec-base", {"pos_conv_depth": 10**6}, "pos_conv_depth of 1000000 .* found weights of 5"),
    "huge convolutions": (
        "hubert-base",
        {"conv_feature_layers": "[(1000000000,10,5)] * 7"},
        r"layers.0.0.weight' .* found \(32, 1, 10",
    ),
    "a million buckets": ("wavlm-base", {"num_buckets": 10**9}, r"relative_attention_bias.weight' .* found \(32, 4\)"),
    "no distance": ("wavlm-base", {"max_distance": 0}, "found max_distance=0"),
    "a switch for a number": ("hubert-base", {"encoder_layers": True}, "found encoder_layers=True"),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_options_that_are_not_those_of_the_weights_are_refused_before_a_model_is_built(
    what: str, file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    style, message, report = UNLIKE[what]
    path = file(style, lambda made: made["cfg" if "cfg" in made else "model_cfg"].update(message))
    monkeypatch.setattr("headwater.upstream.s3prl.conversion.renamed", lambda *_: pytest.fail("it was about to be built"))
    with pytest.raises(UserError, match=report):
        write_folder(recognise(path, read_torch_file(path)), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_names_that_are_no_words_are_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"task_cfg": {}, "model_cfg": {}, "model_weight": {1: torch.ones(2)}}
    with pytest.raises(UserError, match="found other content"):
        recognise(tmp_path / "x.pt", content)
    with pytest.raises(UserError, match=r"found other content \(2, a\)"):
        recognise(tmp_path / "x.pt", {2: 1, "a": 2})


@pytest.mark.parametrize("what", REFUSED)
def test_what_transformers_cannot_be_is_refused(what: str, file: Any, tmp_path: Path) -> None:
    style, change, options, message = REFUSED[what]
    path = file(style, change, **options)
    with pytest.raises(UserError, match=message) as refused:
        write_folder(recognise(path, read_torch_file(path)), tmp_path / "made" / "folder")
    assert ("-u s3prl/" in str(refused.value)) == ("convolutions" not in what), "s3prl evaluates those"
    assert not (tmp_path / "made").exists()


def test_a_family_is_not_taken_for_another(file: Any) -> None:
    path = file("hubert-base")
    with pytest.raises(UserError, match=r"Expected a WavLM in .* for -u wavlm_base, found a HuBERT. Name it: -u hubert"):
        load_upstream(UpstreamConfig(name="wavlm_base", path=str(path)))


def test_a_name_for_a_file_needs_the_file() -> None:
    with pytest.raises(
        UserError, match=r"Expected the weights of 'hubert_local' after -k, found none. Add -k FILE, or name -u hubert"
    ):
        find_upstream(UpstreamConfig(name="hubert_local"))


def test_a_file_is_imported_by_the_command_that_says_what_to_do_next(
    file: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    assert dispatch(["import", str(file("data2vec-base")), str(folder)]) == 0
    message = capsys.readouterr().out
    assert f"data2vec: written to {folder}" in message
    assert "left out, since no layer needs it: _ema" in message
    name, path = re.findall(r"headwater downstream -u (\S+) -k (\S+)", message)[0]
    assert load_upstream(UpstreamConfig(name=name, path=path)).spec.dim == 64


def test_another_process_may_have_converted_the_file_meanwhile(file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(_: Any, folder: Path) -> None:
        """Find at the end that the folder is there."""
        folder.mkdir(parents=True)
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr("headwater.upstream.s3prl.conversion.write_folder", late)
    assert converted(file("hubert-base", conv_pos=16)).is_dir()


def test_a_conversion_that_fails_leaves_nothing_in_the_cache(file: Any, cache_folder: Path) -> None:
    before = {*cache_folder.rglob("*")}
    with pytest.raises(UserError, match="missing"):
        converted(file("hubert-base", drop("mask_emb")))
    assert {*cache_folder.rglob("*")} == before
