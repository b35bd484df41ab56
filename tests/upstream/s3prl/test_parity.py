"""s3prl parity: its own architecture code and ours, the same random weights, the same layers."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.hub.models import class_of, configure, wrap
from headwater.upstream.load import load_upstream
from headwater.upstream.s3prl.conversion import RENAMED

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Support for mismatched:UserWarning")

CONVOLUTIONS = "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2"
SIZES = {
    "encoder_layers": 3,
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 4,
    "conv_pos": 32,
    "conv_pos_groups": 4,
}
SETTINGS: dict[str, Any] = {
    "conv_dim": (32,) * 7,
    "num_hidden_layers": 3,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
UNUSED_HERE = r"^(final_proj|label_embs_concat|output_layer)"


def counterpart(theirs: nn.Module, model_type: str, *, padding: Any = "exact", **settings: Any) -> Upstream:
    """Return our upstream with the weights of s3prl's model, key by key."""
    weights: dict[str, Tensor] = {}
    for key, value in theirs.state_dict().items():
        if re.search(UNUSED_HERE, key):
            continue
        for pattern, name in RENAMED:
            key = re.sub(pattern, name, key)
        weights[key] = value
    model_class = class_of(model_type)
    config = UpstreamConfig(padding=padding)
    model = model_class(configure(model_class.config_class(**SETTINGS | settings), config))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"masked_spec_embed"}
    assert not unexpected
    return wrap(model, config).eval()


def randomized(model: nn.Module) -> nn.Module:
    """Return a model in eval mode with every weight drawn anew: fresh norms and biases would hide a wrong name."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    return model.eval()


def hubert_checkpoint(folder: Path, *, large: bool) -> tuple[Path, nn.Module]:
    """Return a file in s3prl's format of a random HuBERT built by s3prl's code, and that model."""
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

    style = {"extractor_mode": "layer_norm", "layer_norm_first": True} if large else {}
    described = {"label_rate": 50.0, "conv_feature_layers": CONVOLUTIONS, "encoder_layerdrop": 0.1} | SIZES | style
    model = randomized(HubertModel(HubertConfig(**described), HubertPretrainingConfig(normalize=large), [["a", "b"]]))
    state = {
        "task_cfg": {"normalize": large},
        "model_cfg": described,
        "model_weight": model.state_dict(),
        "dictionaries_symbols": [["a", "b"]],
    }
    torch.save(state, folder / "hubert.pt")
    return folder / "hubert.pt", model


@pytest.mark.usefixtures("s3prl")
@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_hubert_layers_equal_s3prls(large: bool, tmp_path: Path, speechlike: Any, difference: Any) -> None:
    file, model = hubert_checkpoint(tmp_path, large=large)
    theirs = load_upstream(UpstreamConfig(name="s3prl/hubert_local", path=str(file)))
    ours = counterpart(model, "hubert", **(LARGE if large else {}))
    with torch.no_grad():
        found, expected = ours(speechlike(9000)), theirs(speechlike(9000))
    assert ours.spec.normalize == large
    assert found.lengths == expected.lengths
    assert len(found.values) == len(expected.values) == 4
    assert max(difference(one, other) for one, other in zip(found.values, expected.values, strict=True)) < 1e-4


@pytest.mark.usefixtures("s3prl")
@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_padding_s3prl_gives_what_s3prl_gives_on_a_padded_batch(
    large: bool, tmp_path: Path, speechlike: Any, difference: Any
) -> None:
    file, model = hubert_checkpoint(tmp_path, large=large)
    theirs = load_upstream(UpstreamConfig(name="s3prl/hubert_local", path=str(file), padding="s3prl"))
    ours = counterpart(model, "hubert", padding="s3prl", **(LARGE if large else {}))
    waveforms = speechlike(12345, 9000, 4321)
    with torch.no_grad():
        found, expected = ours(waveforms), theirs(waveforms)
        exact = counterpart(model, "hubert", **(LARGE if large else {}))(waveforms)
    assert found.lengths == expected.lengths == (38, 28, 14)
    worst = [difference(one, other) for one, other in zip(found.values, expected.values, strict=True)]
    assert max(worst) < 1e-4
    assert difference(exact.values[-1][2, :13], expected.values[-1][2, :13]) > 1e-4, "exact padding is another thing"


def wavlm_checkpoint(folder: Path, *, large: bool) -> tuple[Path, nn.Module]:
    """Return a file in Microsoft's format of a random WavLM built by s3prl's code, and that model."""
    from s3prl.upstream.wavlm.WavLM import WavLM, WavLMConfig

    style = {"extractor_mode": "layer_norm", "layer_norm_first": True, "normalize": True} if large else {}
    bias = {"relative_position_embedding": True, "gru_rel_pos": True, "num_buckets": 32, "max_distance": 80}
    described = {"conv_feature_layers": CONVOLUTIONS} | SIZES | bias | style
    model = randomized(WavLM(WavLMConfig(described)))
    torch.save({"cfg": described, "model": model.state_dict()}, folder / "wavlm.pt")
    return folder / "wavlm.pt", model


@pytest.mark.usefixtures("s3prl")
@pytest.mark.parametrize("large", [False, True], ids=["base", "large"])
def test_wavlm_layers_equal_s3prls(large: bool, tmp_path: Path, speechlike: Any, difference: Any) -> None:
    file, model = wavlm_checkpoint(tmp_path, large=large)
    theirs = load_upstream(UpstreamConfig(name="s3prl/wavlm_local", path=str(file)))
    ours = counterpart(model, "wavlm", num_buckets=32, max_bucket_distance=80, **(LARGE if large else {}))
    with torch.no_grad():
        found, expected = ours(speechlike(9000)), theirs(speechlike(9000))
    assert len(found.values) == len(expected.values) == 4
    assert max(difference(one, other) for one, other in zip(found.values, expected.values, strict=True)) < 1e-4


def test_distilhubert_layers_equal_s3prls(s3prl: ModuleType, speechlike: Any, difference: Any) -> None:
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    assert s3prl.__name__ == "s3prl"
    described = {"extractor_conv_feature_layers": CONVOLUTIONS, "task_emb_type": "none", "out_layer_type": "none", "n_tasks": 3}
    theirs = randomized(DistillerModel(DistillerConfig(SIZES | {"encoder_layers": 2} | described)))
    ours = counterpart(theirs, "hubert", num_hidden_layers=2, feat_proj_layer_norm=False)
    into_first: list[Tensor] = []
    theirs.encoder.layers[0].register_forward_hook(lambda _, inputs, __: into_first.append(inputs[0].transpose(0, 1)))  # type: ignore[union-attr, index]
    (waveform,) = speechlike(9000)
    with torch.no_grad():
        *_, blocks = theirs(waveform[None], torch.ones(1, 9000), get_hidden=True, no_pred=True)
        found = ours([waveform])
    expected = [*into_first, *blocks]  # s3prl lists the projection where we have the input of block 1
    assert len(found.values) == len(expected) == 3
    assert max(difference(one, other) for one, other in zip(found.values, expected, strict=True)) < 1e-4


@pytest.mark.usefixtures("s3prl")
def test_a_mask_embedding_came_over(tmp_path: Path, speechlike: Any) -> None:
    _, model = hubert_checkpoint(tmp_path, large=False)
    ours = counterpart(model, "hubert")
    assert ours.spec.maskable
    assert torch.equal(ours.model.masked_spec_embed, model.mask_emb)  # type: ignore[union-attr, arg-type]
    assert len(ours(speechlike(4000)).values) == 4
