"""HuBERT, wav2vec 2.0, data2vec, WavLM and UniSpeech-SAT as s3prl keeps them (.pt), made into folders of transformers."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UserError, first_line
from ...core.files import cache_folder, folder_aside, hash_file, write_json
from ...core.hub import read_config
from ...core.torch_files import read_torch_file
from ..base import Registered, Upstream, UpstreamConfig
from ..hub import models
from ..hub.family import family_of
from ..hub.models import class_of

_LOG = logging.getLogger(__name__)
# fairseq's option -> transformers' option, and what s3prl takes where a checkpoint does not say
SETTINGS: dict[str, tuple[str, Any]] = {
    "encoder_layers": ("num_hidden_layers", 12),
    "encoder_embed_dim": ("hidden_size", 768),
    "encoder_ffn_embed_dim": ("intermediate_size", 3072),
    "encoder_attention_heads": ("num_attention_heads", 12),
    "activation_fn": ("hidden_act", "gelu"),
    "layer_norm_first": ("do_stable_layer_norm", False),
    "conv_bias": ("conv_bias", False),
    "conv_pos": ("num_conv_pos_embeddings", 128),
    "conv_pos_groups": ("num_conv_pos_embedding_groups", 16),
    "dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "dropout_input": ("feat_proj_dropout", 0.0),
    "encoder_layerdrop": ("layerdrop", 0.0),
    "mask_prob": ("mask_time_prob", 0.65),
    "mask_length": ("mask_time_length", 10),
    "mask_channel_prob": ("mask_feature_prob", 0.0),
    "mask_channel_length": ("mask_feature_length", 10),
}
# what transformers' classes cannot be: option -> values they can, and what s3prl takes where a checkpoint does not say
LIMITS: dict[str, tuple[tuple[Any, ...], Any]] = {
    "extractor_mode": (("default", "layer_norm"), "default"),
    "layer_type": (("transformer",), "transformer"),
    "activation_fn": (("gelu", "relu"), "gelu"),
    "quantize_input": ((False,), False),
    "crop_seq_to_multiple": ((1,), 1),
}
CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
MOST_CONVOLUTIONS = 64
# fairseq's names of weights -> transformers'
RENAMED = [
    (r"^(feature_extractor\.conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"^(feature_extractor\.conv_layers\.\d+)\.2\.(1\.)?", r"\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"^encoder\.pos_conv\.(\d+)\.0\.", r"encoder.pos_conv_embed.layers.\1.conv."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
]


@dataclass(frozen=True)
class Family:
    """What is a family's own."""

    title: str
    model_type: str  # of transformers
    left_out: str  # weights of the pretraining's heads, which no layer needs
    limits: Mapping[str, tuple[tuple[Any, ...], Any]]


FAMILIES = {
    family.model_type: family
    for family in (
        Family("HuBERT", "hubert", r"^(final_proj\.|label_embs_concat$|target_glu\.)", {}),
        Family("wav2vec 2.0", "wav2vec2", r"^(final_proj\.|project_q\.|quantizer\.|target_glu\.)", {"pos_conv_depth": ((1,), 1)}),
        Family(
            "data2vec",
            "data2vec-audio",
            r"^(final_proj\.|_ema$)",
            {"extractor_mode": (("layer_norm",), "default"), "layer_norm_first": ((False,), False)},
        ),
        Family("WavLM", "wavlm", r"^$", {"relative_position_embedding": ((True,), False), "gru_rel_pos": ((True,), False)}),
        Family(
            "UniSpeech-SAT",
            "unispeech-sat",
            r"^$",
            {"relative_position_embedding": ((False,), False), "gru_rel_pos": ((False,), False)},
        ),
    )
}
# names that s3prl has for a checkpoint of one's own -> the family
STEMS = {
    "hubert": "hubert",
    "wav2vec2": "wav2vec2",
    "wavlm": "wavlm",
    "data2vec": "data2vec-audio",
    "unispeech_sat": "unispeech-sat",
}
LOCAL = {f"{stem}_{kind}": model_type for stem, model_type in STEMS.items() for kind in ("local", "custom")}


@dataclass(frozen=True)
class Checkpoint:
    """A model of s3prl's: which family, how it is built, its weights."""

    path: Path
    family: Family
    options: Mapping[str, Any]
    normalize: bool
    weights: Mapping[str, Any]


def recognise(path: Path, content: Any) -> Checkpoint:
    """Return the model in what a file holds, or say what the file is instead."""
    keys = {*map(str, content)} if isinstance(content, Mapping) else set()
    holds = {key for key in keys if isinstance(content.get(key), Mapping) and all(isinstance(name, str) for name in content[key])}
    if {"task_cfg", "model_cfg", "model_weight"} <= holds:
        options, weights = content["model_cfg"], content["model_weight"]
        data2vec = "_ema" in weights or "average_top_k_layers" in options
        model_type = "hubert" if "dictionaries_symbols" in keys else "data2vec-audio" if data2vec else "wav2vec2"
        return Checkpoint(path, FAMILIES[model_type], options, bool(content["task_cfg"].get("normalize", False)), weights)
    if {"cfg", "model"} <= holds and "encoder_layers" in content["cfg"]:
        options = content["cfg"]
        model_type = "wavlm" if options.get("relative_position_embedding") else "unispeech-sat"  # s3prl has one class for both
        return Checkpoint(path, FAMILIES[model_type], options, bool(options.get("normalize", False)), content["model"])
    titles = ", ".join(family.title for family in FAMILIES.values())
    raise UserError(f"Expected s3prl's {titles} in '{path}', found {what_else(keys, content)}")


def what_else(keys: set[str], content: Any) -> str:
    """Return what a file is that holds no model of s3prl's, and what to do with it."""
    if {"Downstream", "Featurizer"} & keys:
        return "a downstream checkpoint of s3prl. Make a run of it: headwater import FILE DIR"
    if keys & {"task_state", "extra_state", "optimizer_history"}:
        return (
            "fairseq's own format. Convert it where fairseq is installed: `python -m s3prl.upstream.hubert.convert FILE` "
            "(or wav2vec2, data2vec)."
        )
    if {"Distiller", "Config"} <= keys:
        return "s3prl's DistilHuBERT. Name the hub's `-u distilhubert`, or run s3prl's code: `-u s3prl/distiller_local -k FILE`."
    if keys and all(isinstance(value, Tensor) for value in content.values()):
        return "weights alone, without the options that a model is built by. Give the whole file, or a folder with config.json."
    some = ", ".join(sorted(map(str, keys))[:6]) or f"a {type(content).__name__}"
    return f"other content ({some}). Check the path."


def settings_of(model: Checkpoint) -> Any:
    """Return transformers' config of a model; what its classes cannot be is refused."""
    family, options = model.family, model.options
    for name, (possible, usual) in {**LIMITS, **family.limits}.items():
        if options.get(name, usual) not in possible:
            raise not_expressed(model, f"{name}={options.get(name, usual)!r}")
    layers = convolutions(model, options.get("conv_feature_layers", CONVOLUTIONS))
    by_layer = options.get("extractor_mode", "default") == "layer_norm"
    values = {ours: options.get(theirs, usual) for theirs, (ours, usual) in SETTINGS.items()}
    for theirs, (ours, usual) in SETTINGS.items():
        kinds = (int, float) if isinstance(usual, float) else (type(usual),)
        if not isinstance(values[ours], kinds) or isinstance(values[ours], bool) != isinstance(usual, bool):
            raise no_option(model, f"{theirs}={values[ours]!r}")
    dims, kernels, strides = zip(*layers, strict=True)
    values |= {"conv_dim": dims, "conv_kernel": kernels, "conv_stride": strides, "num_feat_extract_layers": len(layers)}
    values["feat_extract_norm"] = "layer" if by_layer else "group"
    if model.normalize != by_layer:  # transformers has no word for it; `wrap` takes what usually goes together
        values["normalize_waveform"] = model.normalize
    if family.model_type == "data2vec-audio":
        depth = options.get("pos_conv_depth", 1)
        if depth < 2:
            raise not_expressed(model, f"pos_conv_depth={depth}")
        values |= {"num_conv_pos_embeddings": depth, "conv_pos_kernel_size": max(3, values["num_conv_pos_embeddings"] // depth)}
    if family.model_type == "wavlm":
        values |= {"num_buckets": options.get("num_buckets", 320), "max_bucket_distance": options.get("max_distance", 1280)}
        if not isinstance(values["max_bucket_distance"], int) or values["max_bucket_distance"] < 1:
            raise no_option(model, f"max_distance={values['max_bucket_distance']!r}")
    check_sizes(model, values)
    return class_of(family.model_type).config_class(**values)


def check_sizes(model: Checkpoint, values: Mapping[str, Any]) -> None:
    """Raise a UserError where the options speak of other sizes than the weights: such a model is not even built."""
    hidden = values["hidden_size"]
    for theirs in ("encoder_attention_heads", "conv_pos_groups"):
        value = values[SETTINGS[theirs][0]]
        if not 1 <= value <= hidden or hidden % value:
            raise no_option(model, f"{theirs}={value} with {hidden} dims")
    shapes = {key: tuple(value.shape) for key, value in model.weights.items() if isinstance(value, Tensor)}
    counts = {
        r"encoder\.layers\.(\d+)\.": ("encoder_layers", values["num_hidden_layers"]),
        r"feature_extractor\.conv_layers\.(\d+)\.": ("conv_feature_layers", len(values["conv_dim"])),
    }
    if "conv_pos_kernel_size" in values:
        counts[r"encoder\.pos_conv\.(\d+)\.0\."] = ("pos_conv_depth", values["num_conv_pos_embeddings"])
    for pattern, (theirs, count) in counts.items():
        there = len({match[1] for match in map(re.compile(pattern).match, shapes) if match})
        if there != count:
            raise unlike(model, f"{theirs} of {count}", f"weights of {there}")
    for key, shape in shapes_of(values).items():
        if shapes.get(key) != shape:
            raise unlike(model, f"'{key}' of shape {shape}", str(shapes.get(key, "none")))


def shapes_of(values: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes by which weights, under fairseq's names, tell every size in a model's settings."""
    hidden, dims = values["hidden_size"], (1, *values["conv_dim"])
    stacked = "conv_pos_kernel_size" in values
    width = values["conv_pos_kernel_size" if stacked else "num_conv_pos_embeddings"]
    convolved = zip(dims[1:], dims[:-1], values["conv_kernel"], strict=True)
    shapes: dict[str, tuple[int, ...]] = {
        **{f"feature_extractor.conv_layers.{place}.0.weight": sizes for place, sizes in enumerate(convolved)},
        **({"post_extract_proj.weight": (hidden, dims[-1])} if stacked or hidden != dims[-1] else {}),
        "encoder.layers.0.fc1.weight": (values["intermediate_size"], hidden),
        f"encoder.pos_conv.0.{'0.weight' if stacked else 'weight_v'}": (
            hidden,
            hidden // values["num_conv_pos_embedding_groups"],
            width,
        ),
    }
    if "num_buckets" in values:
        place = "encoder.layers.0.self_attn.relative_attention_bias.weight"
        shapes[place] = (values["num_buckets"], values["num_attention_heads"])
    return shapes


def unlike(model: Checkpoint, options: str, weights: str) -> UserError:
    """Return the error about a file whose options are not those of its weights."""
    return UserError(
        f"Expected {options} in '{model.path}', as its options have it, found {weights}. Its options and weights are not of one "
        "model: convert it again, or fetch it again."
    )


def not_expressed(model: Checkpoint, found: str) -> UserError:
    """Return the error about a model that transformers' classes cannot be."""
    name = stem_of(model.family.model_type)
    return UserError(
        f"Expected a {model.family.title} that transformers has a class for in '{model.path}', found {found}. "
        f"s3prl's own code runs it: `-u s3prl/{name}_local -k FILE`."
    )


def no_option(model: Checkpoint, found: str) -> UserError:
    """Return the error about an option that no model is built by; s3prl's code, which would run it, is not advised."""
    return UserError(f"Expected options of a {model.family.title} in '{model.path}', found {found}. Fetch the file again.")


def stem_of(model_type: str) -> str:
    """Return what s3prl's names of a family begin with."""
    return next(stem for stem, known in STEMS.items() if known == model_type)


def convolutions(model: Checkpoint, text: str) -> list[tuple[int, int, int]]:
    """Return the convolutions (dim, kernel, stride) that fairseq writes as `[(512,10,5)] + [(512,3,2)] * 4`."""

    def value(node: ast.AST) -> list[Any]:
        """Return a list, a sum of lists, or one repeated; no other expression is read."""
        match node:
            case ast.List(elts):
                return [ast.literal_eval(item) for item in elts]
            case ast.BinOp(left, ast.Add(), right):
                return value(left) + value(right)
            case ast.BinOp(left, ast.Mult(), ast.Constant(int(times))) if 0 <= times <= MOST_CONVOLUTIONS:
                return value(left) * times
        raise ValueError("another expression")

    try:
        found = value(ast.parse(str(text), mode="eval").body)
        layers = [(int(dim), int(kernel), int(stride)) for dim, kernel, stride in found]
    except (SyntaxError, ValueError, TypeError, RecursionError):
        layers = []
    if not 1 <= len(layers) <= MOST_CONVOLUTIONS or min(min(layer) for layer in layers) < 1:
        raise no_option(model, f"conv_feature_layers={str(text)[:80]!r}")
    return layers


def renamed(model: Checkpoint, settings: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Return every weight under transformers' name, and those left out; a missing or unknown one is an error."""
    try:
        with torch.device("meta"):
            expected = {name: value.shape for name, value in class_of(settings.model_type)(settings).state_dict().items()}
    except ValueError as problem:  # heads that do not divide the dims, say
        raise not_expressed(model, f"options that do not fit together ({first_line(problem)})") from None
    found, left_out = {}, []
    for key, value in {**unprojected(settings), **model.weights}.items():
        name = key
        for pattern, ours in RENAMED:
            name = re.sub(pattern, ours, name)
        # a model that was trained without masks has a mask embedding that nothing uses
        if re.search(model.family.left_out, key) or (key == "mask_emb" and name not in expected):
            left_out.append(key)
        elif name not in expected:
            raise not_expressed(model, f"a weight '{key}' that it has no place for")
        elif not isinstance(value, Tensor) or value.shape != expected[name]:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise not_expressed(model, f"'{key}' of shape {shape} in place of {tuple(expected[name])}")
        else:
            found[name] = value.float().contiguous()
    missing = sorted({*expected} - {*found})
    if missing:
        raise not_expressed(model, f"{len(missing)} of its {len(expected)} weights missing (the first: {missing[0]})")
    return found, left_out


def unprojected(settings: Any) -> dict[str, Tensor]:
    """Return a projection that changes nothing: fairseq has none where convolutions and blocks are of the same dims."""
    dim = settings.hidden_size
    if settings.conv_dim[-1] != dim or settings.model_type == "data2vec-audio":  # which always has one
        return {}
    return {"post_extract_proj.weight": torch.eye(dim), "post_extract_proj.bias": torch.zeros(dim)}


def write_folder(model: Checkpoint, folder: Path) -> list[str]:
    """Write a model as a folder of transformers, whole or not at all; return the weights that were left out."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    settings = settings_of(model)
    weights, left_out = renamed(model, settings)
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": 16000}
    extractor |= {"padding_side": "right", "padding_value": 0.0, "do_normalize": model.normalize}
    extractor["return_attention_mask"] = settings.feat_extract_norm == "layer"  # as facebook's and microsoft's folders have it
    with folder_aside(folder) as aside:
        described = {**settings.to_dict(), "architectures": [class_of(settings.model_type).__name__], "dtype": "float32"}
        write_json(aside / "config.json", described)
        write_json(aside / "preprocessor_config.json", extractor)
        try:
            save_file(
                {name: value.contiguous() for name, value in weights.items()}, aside / "model.safetensors", {"format": "pt"}
            )
        except SafetensorError as problem:  # it wraps what the disk said
            raise UserError(f"Expected to write '{folder}', found: {first_line(problem)}. Choose another place.") from problem
    return left_out


def row_of(config: UpstreamConfig, row: Registered | None) -> Registered | None:
    """Return the line of an upstream with weights in a file of s3prl's, or with s3prl's name for such; None for any other."""
    if row is not None and isinstance(row.build, partial) and row.build.func is models.build:
        model_type = row.build.keywords["model_type"]
    else:
        model_type = LOCAL.get(config.name)
    if model_type not in FAMILIES or (row is not None and not Path(config.path or "").expanduser().is_file()):
        return None
    if config.path is None:
        usual = config.name.rpartition("_")[0]
        raise UserError(f"Expected the weights of '{config.name}' after -k, found none. Add -k FILE, or name -u {usual}.")
    options = family_of(model_type).options
    return Registered(config.name, partial(build, model_type=model_type), config.path, "", options=options)


def build(config: UpstreamConfig, *, model_type: str) -> Upstream:
    """Return the model in the file (or transformers folder) after -k."""
    path = Path(config.path or "").expanduser()
    if not path.is_file():
        return models.build(config, model_type=model_type)
    folder = converted(path)
    found = read_config(folder)["model_type"]
    if found != model_type:
        titles = FAMILIES[model_type].title, FAMILIES[found].title
        raise UserError(
            f"Expected a {titles[0]} in '{path}' for -u {config.name}, found a {titles[1]}. Name it: -u {stem_of(found)}"
        )
    upstream = models.build(replace(config, path=str(folder)), model_type=model_type)
    upstream.source = f"{config.path}, converted"
    return upstream


def converted(path: Path) -> Path:
    """Return the folder of transformers that a file of s3prl's was made into, once, in the cache."""
    folder = cache_folder() / "converted-1" / hash_file(str(path))[:32]
    if not folder.is_dir():
        model = recognise(path, read_torch_file(path))
        try:
            write_folder(model, folder)
        except (OSError, UserError):
            if not folder.is_dir():  # another process has just made it
                raise
        _LOG.warning("%s: s3prl's %s, converted into %s; from now on that is read", path, model.family.title, folder)
    return folder
