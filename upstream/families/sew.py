"""SEW: wav2vec 2.0 whose blocks run at half the rate, a frame of 40 ms."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ..hub.family import WAVEFORM_OPTIONS, HubFamily, Tiny
from ..hub.hubert_family import Around, wrapped
from ..hub.register import register_family
from ..hub.tiny import SMALL

_CONVOLUTIONS = {
    "conv_dim": (16, 32, 32, 32, 32, 32, 32, 32, 32, 64, 64, 64, 64),
    "conv_stride": (5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1),
    "conv_kernel": (10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1),
}


def _project(model: Any, features: Tensor) -> Tensor:
    features = model.layer_norm(features)
    return model.feature_dropout(model.feature_projection(features) if model.project_features else features)


def _begin(encoder: Any, hidden: Tensor, valid: Tensor | None, _: bool) -> tuple[Tensor, dict[str, Any]]:
    factor = encoder.config.squeeze_factor
    hidden = hidden.transpose(1, 2)  # (batch, dim, frame)
    means = encoder.pool(hidden)
    hidden = (means + encoder.pos_conv_embed(hidden)[..., : means.shape[2]]).transpose(1, 2)
    # a mean over frames is valid where its last one is
    mask = None if valid is None else valid[:, factor - 1 :: factor][:, None, None, : hidden.shape[1]]
    return encoder.dropout(encoder.layer_norm(hidden)), {"attention_mask": mask}


# what widens frames again stands behind the encoder's last block: no layer of ours, as all are of one rate
_AROUND = Around(_project, _begin, norms_output=lambda _: False, squeeze=lambda config: config.squeeze_factor)

register_family(
    HubFamily(
        "sew",
        "SEW",
        "sew.modeling_sew",
        "SEWModel",
        partial(wrapped, around=_AROUND),
        WAVEFORM_OPTIONS - {"padding"},
        checkpoints={
            "sew_tiny": "asapp/sew-tiny-100k",
            "sew_small": "asapp/sew-small-100k",
            "sew_mid": "asapp/sew-mid-100k",
        },
        tiny={"test_sew": Tiny("SEW", SMALL | _CONVOLUTIONS)},
    )
)
