"""wav2vec 2.0 Conformer: its convolutions over the waveform, and conformer blocks with relative or rotary positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..base import UpstreamConfig
from ..hub.conformer import block_inputs, make_exact
from ..hub.family import WAVEFORM_OPTIONS, HubFamily, Source, Tiny
from ..hub.hubert_family import Around, HubertFamily, wrapped
from ..hub.register import register_family
from ..hub.tiny import SMALL


def _begin(encoder: Any, hidden: Tensor, valid: Tensor | None, _: bool) -> tuple[Tensor, dict[str, Any]]:
    return encoder.dropout(hidden), block_inputs(encoder, hidden, valid)


_AROUND = Around(begin=_begin, norms_output=lambda _: True)


def _wrapped(model: Any, config: UpstreamConfig, source: Source) -> HubertFamily:
    for block in model.encoder.layers:
        make_exact(block)
    return wrapped(model, config, source, _AROUND)


register_family(
    HubFamily(
        "wav2vec2-conformer",
        "wav2vec 2.0 Conformer",
        "wav2vec2_conformer.modeling_wav2vec2_conformer",
        "Wav2Vec2ConformerModel",
        _wrapped,
        WAVEFORM_OPTIONS - {"padding"},
        checkpoints={
            "wav2vec2_conformer_relpos": "facebook/wav2vec2-conformer-rel-pos-large",
            "wav2vec2_conformer_rope": "facebook/wav2vec2-conformer-rope-large",
        },
        tiny={
            "test_wav2vec2_conformer": Tiny(
                "wav2vec 2.0 Conformer with relative positions",
                SMALL | {"position_embeddings_type": "relative", "conv_depthwise_kernel_size": 7},
            ),
            "test_wav2vec2_conformer_rope": Tiny(
                "wav2vec 2.0 Conformer with rotary positions",
                SMALL
                | {"position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 7}
                | {"feat_extract_norm": "layer", "conv_bias": True},
            ),
        },
    )
)
