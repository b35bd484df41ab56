"""HuBERT and its relatives: convolutions over the waveform, a projection, transformer blocks."""

from __future__ import annotations

from typing import Any

from ..hub.family import WAVEFORM_OPTIONS, HubFamily, Tiny
from ..hub.hubert_family import wrapped
from ..hub.register import register_family
from ..hub.tiny import SMALL

_LARGE_STYLE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}


def _relative(model_type: str, title: str, module: str, model: str, **others: Any) -> None:
    """Register a model that differs from HuBERT in its transformers' class alone."""
    register_family(HubFamily(model_type, title, module, model, wrapped, WAVEFORM_OPTIONS, from_random=True, **others))


_relative(
    "hubert",
    "HuBERT",
    "hubert.modeling_hubert",
    "HubertModel",
    checkpoints={
        "hubert": "facebook/hubert-base-ls960",
        "hubert_base": "facebook/hubert-base-ls960",
        "hubert_large_ll60k": "facebook/hubert-large-ll60k",
        "mhubert_147": "utter-project/mHuBERT-147",  # 147 languages
        "chinese_hubert_base": "TencentGameMate/chinese-hubert-base",
        "chinese_hubert_large": "TencentGameMate/chinese-hubert-large",
        "japanese_hubert_base": "rinna/japanese-hubert-base",
        "contentvec": "lengyue233/content-vec-best",
        "distilhubert": "ntu-spml/distilhubert",
        "distilhubert_base": "ntu-spml/distilhubert",
    },
    tiny={
        "test_hubert": Tiny("HuBERT Base", SMALL),
        "test_hubert_large": Tiny("HuBERT Large", SMALL | _LARGE_STYLE),
        "test_distilhubert": Tiny("DistilHuBERT", SMALL | {"num_hidden_layers": 2, "feat_proj_layer_norm": False}),
    },
)
_relative(
    "wav2vec2",
    "wav2vec 2.0",
    "wav2vec2.modeling_wav2vec2",
    "Wav2Vec2Model",
    checkpoints={
        "wav2vec2": "facebook/wav2vec2-base",  # pretrained on 960 h, not finetuned
        "wav2vec2_base_960": "facebook/wav2vec2-base",
        "wav2vec2_large_960": "facebook/wav2vec2-large",
        "wav2vec2_large_ll60k": "facebook/wav2vec2-large-lv60",
        "wav2vec2_large_lv60_cv_swbd_fsh": "facebook/wav2vec2-large-robust",
        "w2v2_large_robust": "facebook/wav2vec2-large-robust",
        "xlsr_53": "facebook/wav2vec2-large-xlsr-53",
        "xls_r_300m": "facebook/wav2vec2-xls-r-300m",
        "xls_r_1b": "facebook/wav2vec2-xls-r-1b",
        "xls_r_2b": "facebook/wav2vec2-xls-r-2b",
        "mms_300m": "facebook/mms-300m",  # 1,406 languages
        "mms_1b": "facebook/mms-1b",
    },
    tiny={"test_wav2vec2": Tiny("wav2vec 2.0 Base", SMALL)},
)
_relative(
    "wavlm",
    "WavLM",
    "wavlm.modeling_wavlm",
    "WavLMModel",
    attention="eager",  # it adds a bias: transformers has no fused kernel for that, ours does
    checkpoints={
        "wavlm": "microsoft/wavlm-base-plus",
        "wavlm_base": "microsoft/wavlm-base",
        "wavlm_base_plus": "microsoft/wavlm-base-plus",
        "wavlm_large": "microsoft/wavlm-large",
    },
    tiny={"test_wavlm": Tiny("WavLM Base", SMALL)},
)
_relative(
    "unispeech-sat",
    "UniSpeech-SAT",
    "unispeech_sat.modeling_unispeech_sat",
    "UniSpeechSatModel",
    checkpoints={
        "unispeech_sat": "microsoft/unispeech-sat-base-plus",
        "unispeech_sat_base": "microsoft/unispeech-sat-base",
        "unispeech_sat_base_plus": "microsoft/unispeech-sat-base-plus",
        "unispeech_sat_large": "microsoft/unispeech-sat-large",
    },
    tiny={"test_unispeech_sat": Tiny("UniSpeech-SAT Base", SMALL)},
)
_relative(
    "data2vec-audio",
    "data2vec",
    "data2vec.modeling_data2vec_audio",
    "Data2VecAudioModel",
    checkpoints={
        "data2vec": "facebook/data2vec-audio-base",
        "data2vec_base_960": "facebook/data2vec-audio-base",
        "data2vec_large_ll60k": "facebook/data2vec-audio-large",
    },
    tiny={"test_data2vec": Tiny("data2vec Base", SMALL | {"num_conv_pos_embeddings": 5})},
)
_relative(
    "unispeech",
    "UniSpeech",
    "unispeech.modeling_unispeech",
    "UniSpeechModel",
    checkpoints={
        "unispeech_large": "microsoft/unispeech-large-1500h-cv",
        "unispeech_large_multi_lingual": "microsoft/unispeech-large-multi-lingual-1500h-cv",
    },
    tiny={"test_unispeech": Tiny("UniSpeech", SMALL | _LARGE_STYLE)},
)
