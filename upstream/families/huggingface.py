"""Models of the hub: HuBERT and its relatives and Whisper's encoder, for audio; BERT's relatives and GPT-2, for text."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError, first_line
from ...core.hub import check_torchaudio, load_weights, model_folder, read_config
from ..adapters import BOTTLENECKS, add_bottlenecks
from ..base import Modality, Upstream, UpstreamConfig, register_upstream
from .bert import BLOCKS, TextEncoder, blocks_of
from .hubert import HubertFamily
from .tokenizer import read_tokenizer
from .whisper import WhisperEncoder, feature_extractor

__all__ = [
    "ADAPTER",
    "FAMILIES",
    "OPTIONS",
    "build",
    "check_torchaudio",
    "class_of",
    "configure",
    "new_model",
    "options_of",
    "rebuild",
    "wrap",
]

ADAPTER = frozenset({"adapter", "adapter_rank", "adapter_alpha", "adapter_dropout", "adapter_targets"})
OPTIONS = ADAPTER | frozenset(
    {"keep_layers", "padding", "normalize_waveform", "dropout", "dropout_of", "layerdrop", "spec_augment", "attend"}
    | {"front_end", "front_end_gradient"}
)
_WHISPER_OPTIONS = ADAPTER | frozenset({"keep_layers", "dropout", "dropout_of", "attend"})
_TEXT_OPTIONS = ADAPTER | frozenset({"keep_layers", "dropout", "dropout_of"})

# model_type of config.json -> public name, as in s3prl and meaning the same there -> hub id
_CHECKPOINTS = {
    "hubert": {
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
    "wav2vec2": {
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
    "wavlm": {
        "wavlm": "microsoft/wavlm-base-plus",
        "wavlm_base": "microsoft/wavlm-base",
        "wavlm_base_plus": "microsoft/wavlm-base-plus",
        "wavlm_large": "microsoft/wavlm-large",
    },
    "unispeech-sat": {
        "unispeech_sat": "microsoft/unispeech-sat-base-plus",
        "unispeech_sat_base": "microsoft/unispeech-sat-base",
        "unispeech_sat_base_plus": "microsoft/unispeech-sat-base-plus",
        "unispeech_sat_large": "microsoft/unispeech-sat-large",
    },
    "data2vec-audio": {
        "data2vec": "facebook/data2vec-audio-base",
        "data2vec_base_960": "facebook/data2vec-audio-base",
        "data2vec_large_ll60k": "facebook/data2vec-audio-large",
    },
    "whisper": {
        "whisper_tiny": "openai/whisper-tiny",
        "whisper_base": "openai/whisper-base",
        "whisper_small": "openai/whisper-small",
        "whisper_medium": "openai/whisper-medium",
        "whisper_large": "openai/whisper-large",
        "whisper_large_v2": "openai/whisper-large-v2",
        "whisper_large_v3": "openai/whisper-large-v3",
        "whisper_large_v3_turbo": "openai/whisper-large-v3-turbo",
    },
    "bert": {
        "bert": "google-bert/bert-base-uncased",
        "bert_base_uncased": "google-bert/bert-base-uncased",
        "bert_base_cased": "google-bert/bert-base-cased",
        "bert_large": "google-bert/bert-large-uncased",
        "tinybert": "huawei-noah/TinyBERT_General_4L_312D",
        "tinybert_6_layers": "huawei-noah/TinyBERT_General_6L_768D",
    },
    "distilbert": {
        "distilbert": "distilbert/distilbert-base-uncased",
        "distilbert_base_cased": "distilbert/distilbert-base-cased",
    },
    "roberta": {
        "roberta": "FacebookAI/roberta-base",
        "roberta_large": "FacebookAI/roberta-large",
        "distilroberta": "distilbert/distilroberta-base",
    },
    "gpt2": {
        "gpt2": "openai-community/gpt2",
        "gpt2_medium": "openai-community/gpt2-medium",
        "gpt2_large": "openai-community/gpt2-large",
        "distilgpt2": "distilbert/distilgpt2",
    },
}
# model_type -> transformers' module and class
_CLASSES = {
    "hubert": ("transformers.models.hubert.modeling_hubert", "HubertModel"),
    "wav2vec2": ("transformers.models.wav2vec2.modeling_wav2vec2", "Wav2Vec2Model"),
    "wavlm": ("transformers.models.wavlm.modeling_wavlm", "WavLMModel"),
    "unispeech-sat": ("transformers.models.unispeech_sat.modeling_unispeech_sat", "UniSpeechSatModel"),
    "data2vec-audio": ("transformers.models.data2vec.modeling_data2vec_audio", "Data2VecAudioModel"),
    "whisper": ("transformers.models.whisper.modeling_whisper", "WhisperEncoder"),
    "bert": ("transformers.models.bert.modeling_bert", "BertModel"),
    "distilbert": ("transformers.models.distilbert.modeling_distilbert", "DistilBertModel"),
    "roberta": ("transformers.models.roberta.modeling_roberta", "RobertaModel"),
    "gpt2": ("transformers.models.gpt2.modeling_gpt2", "GPT2Model"),
}
FAMILIES = frozenset(_CLASSES)
_TITLES = {
    "hubert": "HuBERT",
    "wav2vec2": "wav2vec 2.0",
    "wavlm": "WavLM",
    "unispeech-sat": "UniSpeech-SAT",
    "data2vec-audio": "data2vec",
    "whisper": "Whisper's encoder",
    "bert": "BERT",
    "distilbert": "DistilBERT",
    "roberta": "RoBERTa",
    "gpt2": "GPT-2",
}
_DROPOUTS = (
    *("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "dropout"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),  # BERT, RoBERTa
    *("embd_pdrop", "attn_pdrop", "resid_pdrop"),  # GPT-2
)
_HIDDEN_DROPOUTS = frozenset({"hidden_dropout", "dropout", "hidden_dropout_prob", "resid_pdrop"})  # behind a block's two parts
_LAYERDROPS = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")
# a Whisper folder holds the whole model: its encoder's weights lose the prefix, the decoder's are passed over
_ENCODER_ONLY = {"key_mapping": {r"^(model\.)?encoder\.": ""}}
_WITHOUT_POOLER = {"add_pooling_layer": False}  # behind the last block: no layer of ours
_MADE_WITH: dict[str, dict[str, Any]] = {"bert": _WITHOUT_POOLER, "roberta": _WITHOUT_POOLER}
_LOADED_WITH = {**_MADE_WITH, "whisper": _ENCODER_ONLY}


def options_of(model_type: str) -> frozenset[str]:
    """Return the options that a family understands."""
    if modality_of(model_type) == "text":
        return _TEXT_OPTIONS
    return _WHISPER_OPTIONS if model_type == "whisper" else OPTIONS - {"attend"}


def modality_of(model_type: str) -> Modality:
    """Return whether a family is of audio or of text."""
    return "text" if model_type in BLOCKS else "audio"


def build(config: UpstreamConfig, *, hub_id: str | None = None, model_type: str | None = None) -> Upstream:
    """Return the model of a registered name, of any hub id, or of a local folder."""
    source = config.path or hub_id or config.name
    folder = model_folder(source, on_hub=config.path is None, is_text=model_type in BLOCKS)
    described = read_config(folder)
    found = described.get("model_type", model_type)  # an early checkpoint's config.json may not say
    if not isinstance(found, str) or found not in _CLASSES or model_type not in (None, found):
        expected = model_type or f"one of {', '.join(_CLASSES)}"
        raise UserError(
            f"Expected model_type {expected} in '{source}', found '{found}'. Give the name or folder of such a model."
        )
    _refuse_options(config, found)
    model_class = class_of(found)
    refuse_none(described, folder)
    refuse_vast(described, folder)
    settings = configure(settings_of(model_class, described, folder), config)
    made = {"tokenizer": read_tokenizer(folder, settings, source)} if modality_of(found) == "text" else None
    model = load_weights(model_class, settings, folder, **_LOADED_WITH.get(found, {}))
    upstream = wrap(model, config, folder, made, trained_layerdrop=described.get("layerdrop") or 0.0)
    upstream.source = source
    return upstream


_COUNTS = ("conv_stride", "conv_kernel", "num_attention_heads", "encoder_attention_heads", "n_heads", "n_head")


def refuse_none(described: Mapping[str, Any], folder: Path) -> None:
    """Refuse a config.json with strides, kernels or heads that are none: its model is built, and fails at the first utterance."""
    for key in _COUNTS:
        for value in _items(described.get(key)):
            if isinstance(value, (int, float)) and value < 1:
                path = folder / "config.json"
                raise UserError(f"Expected {key} of 1 or more in '{path}', found {value}. Fetch the file again.")


_MOST_BLOCKS, _LARGEST_NUMBER = 256, 2**24  # of a config.json; the deepest model of these families has 48
_BLOCKS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "n_layers", "n_layer", "num_adapter_layers")


def refuse_vast(described: Mapping[str, Any], folder: Path) -> None:
    """Refuse a config.json whose numbers no model has: it would be built before its weights are found not to fit."""
    refuse_vast_sizes(described, str(folder / "config.json"), "Fetch the file again.")
    held = sum(path.stat().st_size for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    width, blocks, rows, channels, kernel = (_largest(described, keys) for keys in (_WIDTHS, _BLOCKS, _ROWS, _CHANNELS, _KERNELS))
    if max(width * width * blocks, width * rows, channels * channels * kernel) > 8 * held + _LARGEST_NUMBER:  # bits
        raise UserError(
            f"Expected weights that fit config.json in '{folder}', found {held:,} bytes, fewer than it describes. "
            "Take weights and config.json from the same model."
        )


def refuse_vast_sizes(described: Mapping[str, Any], where: str, advice: str = "Lower it.") -> None:
    """Refuse numbers that no model has."""
    left: list[tuple[str, Any]] = [*described.items()]
    while left:
        key, value = left.pop()
        most = _MOST_BLOCKS if key in _BLOCKS else _LARGEST_NUMBER
        if isinstance(value, Mapping):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, item) for item in value]
        elif isinstance(value, (int, float)) and abs(value) > most:
            raise UserError(f"Expected at most {most:,} for {key} in '{where}', found {value}. {advice}")


_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")
_ROWS = (
    *("vocab_size", "max_position_embeddings", "n_positions", "max_source_positions", "num_conv_pos_embeddings"),
    *("intermediate_size", "n_inner", "hidden_dim", "encoder_ffn_dim", "num_labels"),
)
_CHANNELS, _KERNELS = ("conv_dim",), ("conv_kernel",)


def _largest(described: Mapping[str, Any], keys: Sequence[str]) -> int:
    """Return the largest whole number among the values of some keys, those of lists too; 1 where there is none."""
    values = [item for key in keys for item in _items(described.get(key))]
    return max([1, *(item for item in values if type(item) is int)])


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def settings_of(model_class: Any, described: dict[str, Any], folder: Path) -> Any:
    """Return transformers' config of a config.json, or say what is wrong with the file."""
    try:
        return model_class.config_class.from_dict(described)
    except Exception as error:  # a value of another type breaks wherever it is used
        raise UserError(
            f"Expected the config.json of such a model in '{folder}', found one that it refuses: {type(error).__name__}: "
            f"{first_line(error)}. Fetch the file again."
        ) from None


def rebuild(architecture: dict[str, Any], config: UpstreamConfig) -> Upstream:
    """Return the model of a finetuned run, its weights still to be loaded: nothing is fetched."""
    model_type = architecture["model"]["model_type"]
    model_class = class_of(model_type)
    settings = configure(model_class.config_class.from_dict(architecture["model"]), config)
    return wrap(new_model(settings), config, architecture=architecture)


def new_model(settings: Any, seed: int = 0) -> Any:
    """Return transformers' model of a config with random weights, leaving the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = class_of(settings.model_type)(settings, **_MADE_WITH.get(settings.model_type, {}))
        if bottlenecks := getattr(settings, BOTTLENECKS, None):
            add_bottlenecks(model, **bottlenecks)
        return model


def class_of(model_type: str) -> Any:
    """Return transformers' class of a family, imported now."""
    check_torchaudio()
    module, name = _CLASSES[model_type]
    return getattr(importlib.import_module(module), name)


def configure(settings: Any, config: UpstreamConfig) -> Any:
    """Return transformers' config with nothing random but the requested dropout."""
    for name in _LAYERDROPS:
        if hasattr(settings, name):  # transformers leaves a skipped block out of its list of layers: ours keeps the count
            setattr(settings, name, 0.0)
    if modality_of(settings.model_type) == "audio":
        settings.apply_spec_augment = False  # on by default there, and drawn by numpy; ours is `spec_augment`
        settings.add_adapter = False  # behind the encoder: no layer of ours
    # WavLM's attention adds a bias: transformers has no fused kernel for it, hubert_family.py does
    settings._attn_implementation = "eager" if settings.model_type == "wavlm" else "sdpa"
    if config.dropout is not None:
        _share(config.dropout, "dropout")
        for name in _DROPOUTS:  # attention's dropout is a functional one: no walk over modules would reach it
            if hasattr(settings, name) and (config.dropout_of == "all" or name in _HIDDEN_DROPOUTS):
                setattr(settings, name, config.dropout)
    return settings


def _share(value: float, name: str) -> float:
    """Return a share, or raise a UserError where it is none."""
    if not 0.0 <= value < 1.0:
        raise UserError(f"Expected a {name} from 0 to below 1, found {value}. Set `{name}=0.1`, say.")
    return value


def wrap(
    model: Any,
    config: UpstreamConfig,
    folder: Path | None = None,
    architecture: dict[str, Any] | None = None,
    *,
    trained_layerdrop: float = 0.0,  # in the checkpoint's config
    is_new: bool = False,  # it has learnt nothing, its convolutions neither
) -> Upstream:
    """Return a transformers model as an upstream, pruned and padded as the config says."""
    settings, described = model.config, architecture or {}  # what prepares a model's input is described, or in the folder
    input_options = described.get(
        "heard", {}
    )  # of a run above another the config does not say how the one below prepares its input
    _keep_layers(model, config.keep_layers)
    if modality_of(settings.model_type) == "text":
        return TextEncoder(model, described["tokenizer"])
    if settings.model_type == "whisper":
        extractor = feature_extractor(settings, folder, described.get("extractor"))
        return WhisperEncoder(model, extractor, attend=input_options.get("attend", config.attend))
    # as in training: models with layer norms in the convolutions got normalised waveforms, the others raw ones
    # (the hub's preprocessor_config.json says do_normalize for those too, which is wrong)
    trained = settings.model_type == "data2vec-audio" or settings.feat_extract_norm == "layer"
    trained = getattr(settings, "normalize_waveform", trained)  # said where a file of s3prl's departs from that
    normalize = {"auto": trained, "yes": True, "no": False}[config.normalize_waveform]
    normalize, padding = input_options.get("normalize", normalize), input_options.get("padding", config.padding)
    return HubertFamily(
        model,
        normalize=normalize,
        padding=padding,
        spec_augment=config.spec_augment,
        layerdrop=trained_layerdrop if config.layerdrop is None else _share(config.layerdrop, "layerdrop"),
        front_end_gradient=config.front_end_gradient,
        is_new=is_new,
    )


def _keep_layers(model: Any, keep: int | None) -> None:
    """Cut the blocks behind the first so many; a norm of the encoder's output stays."""
    if keep is None:
        return
    is_text = modality_of(model.config.model_type) == "text"
    blocks = blocks_of(model) if is_text else getattr(model, "encoder", model).layers
    if not 1 <= keep <= len(blocks):
        raise UserError(
            f"Expected keep_layers from 1 to {len(blocks)} (the model's blocks), found {keep}. "
            f"Set `-o {'text_upstream' if is_text else 'upstream'}.keep_layers={len(blocks)}` or fewer."
        )
    del blocks[keep:]
    model.config.num_hidden_layers = keep


def _refuse_options(config: UpstreamConfig, model_type: str) -> None:
    """Raise a UserError for an option that another family has."""
    for option in OPTIONS - options_of(model_type):
        if getattr(config, option) != getattr(UpstreamConfig(), option):
            allowed = ", ".join(sorted(options_of(model_type)))
            raise UserError(f"{_TITLES[model_type]} has no option '{option}' (it has: {allowed}). Leave it out.")


for _type, _names in _CHECKPOINTS.items():
    for _name, _hub_id in _names.items():
        register_upstream(
            partial(build, hub_id=_hub_id, model_type=_type),
            name=_name,
            source=_hub_id,
            description=f"{_TITLES[_type]} from the hub",
            modality=modality_of(_type),
            options=sorted(options_of(_type)),
        )
