"""Any model of the hub: found, configured, loaded, pruned and wrapped, as its family says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...core.errors import UserError, first_line
from ...core.hub import fetched, load_weights, model_folder, read_config
from ..adapters import BOTTLENECKS, add_bottlenecks
from ..base import Upstream, UpstreamConfig
from .family import OPTIONS, HubFamily, OwnFiles, Source, families, family_of, share
from .refusals import refuse_none, refuse_vast
from .tokenizer import read_tokenizer

_DROPOUTS = (
    *("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "dropout"),
    *("conformer_conv_dropout", "dropout_positions", "embedding_dropout", "mlp_dropout"),  # conformers, ModernBERT
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),  # BERT, RoBERTa
    *("embd_pdrop", "attn_pdrop", "resid_pdrop"),  # GPT-2
)
_HIDDEN_DROPOUTS = frozenset(  # behind a block's parts
    {"hidden_dropout", "conformer_conv_dropout", "dropout", "hidden_dropout_prob", "resid_pdrop", "mlp_dropout"}
)
_LAYERDROPS = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")


def build(config: UpstreamConfig, *, hub_id: str | None = None, model_type: str | None = None) -> Upstream:
    """Return the model of a registered name, of any hub id, or of a local folder."""
    source = config.path or hub_id or config.name
    folder = _folder(source, config.path is None, None if model_type is None else family_of(model_type))
    described = read_config(folder)
    found = described.get("model_type", model_type)  # an early checkpoint's config.json may not say
    family = family_in(found)
    if family is None or model_type not in (None, family.model_type):
        names = sorted(name for known in families().values() for name in (known.inside or [known.model_type]))
        expected = model_type or f"one of {', '.join(names)}"
        raise UserError(
            f"Expected model_type {expected} in '{source}', found '{found}'. Give the name or folder of such a model."
        )
    _refuse_options(config, family)
    described = encoder_config(described, family.inside.get(str(found)), folder)
    refuse_none(described, folder)
    refuse_vast(described, folder)
    settings = configure(settings_of(family.model_class, described, folder), config)
    made = {} if family.tokenizer is None else {"tokenizer": read_tokenizer(folder, settings, source, family.tokenizer)}
    model = load_weights(family.model_class, settings, folder, **{**family.made_with, **family.loaded_with})
    upstream = wrap(model, config, folder, made, trained_layerdrop=described.get("layerdrop") or 0.0)
    upstream.source = source
    return upstream


def _folder(source: str, on_hub: bool, family: HubFamily | None) -> Path:
    """Return the folder with config.json and weights of a source, made of a family's own files where they are no such folder."""
    local = Path(source).expanduser()
    if (files := own_files(local, family)) is not None:
        return files.converted(local)
    if family is not None and family.files is not None and on_hub and not local.exists():
        return family.files.converted(fetched(source, family.files.patterns))
    return model_folder(source, on_hub=on_hub, is_text=family is not None and family.modality == "text")


def own_files(place: Path, family: HubFamily | None = None) -> OwnFiles | None:
    """Return how a folder or a file is read that is published in a form of its family's own; None of any other place."""
    known = [family] if family is not None else [*families().values()]
    forms = (each.files for each in known if each.files is not None)
    return next((files for files in forms if place.exists() and files.are_in(place)), None)


def encoder_config(described: dict[str, Any], place: str | None, folder: Path) -> dict[str, Any]:
    """Return a config.json, or the part that describes the encoder inside a larger model: `outer.inner` where it is deeper."""
    for key in place.split(".") if place else ():
        described = described.get(key)  # type: ignore[assignment]
        if not isinstance(described, dict):
            raise UserError(
                f"Expected {place} with the encoder's sizes in '{folder / 'config.json'}', found none. Fetch the file again."
            )
    return described


def family_in(model_type: Any) -> HubFamily | None:
    """Return the family of a model, or of the encoder inside it."""
    if not isinstance(model_type, str):
        return None
    holders = {outer: family for family in families().values() for outer in family.inside}
    return families().get(model_type) or holders.get(model_type)


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
    settings = configure(class_of(model_type).config_class.from_dict(architecture["model"]), config)
    return wrap(new_model(settings), config, architecture=architecture)


def new_model(settings: Any, seed: int = 0) -> Any:
    """Return transformers' model of a config with random weights, leaving the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        family = family_of(settings.model_type)
        model = family.model_class(settings, **family.made_with)
        if bottlenecks := getattr(settings, BOTTLENECKS, None):
            add_bottlenecks(model, **bottlenecks)
        return model


def class_of(model_type: str) -> Any:
    """Return transformers' class of a family, imported now."""
    return family_of(model_type).model_class


def configure(settings: Any, config: UpstreamConfig) -> Any:
    """Return transformers' config with nothing random but the requested dropout."""
    for name in _LAYERDROPS:
        if hasattr(settings, name):  # transformers leaves a skipped block out of its list of layers: ours keeps the count
            setattr(settings, name, 0.0)
    family = family_of(settings.model_type)
    if family.modality == "audio":
        settings.apply_spec_augment = False  # on by default there, and drawn by numpy; ours is `spec_augment`
        settings.add_adapter = False  # behind the encoder: no layer of ours
    settings._attn_implementation = family.attention
    if config.dropout is not None:
        share(config.dropout, "dropout")
        for name in _DROPOUTS:  # attention's dropout is a functional one: no walk over modules would reach it
            if hasattr(settings, name) and (config.dropout_of == "all" or name in _HIDDEN_DROPOUTS):
                setattr(settings, name, config.dropout)
    return settings


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
    family = family_of(model.config.model_type)
    _keep_layers(model, family, config.keep_layers)
    return family.wrap(model, config, Source(folder, architecture or {}, trained_layerdrop, is_new))


def _keep_layers(model: Any, family: HubFamily, keep: int | None) -> None:
    """Cut the blocks behind the first so many; a norm of the encoder's output stays."""
    if keep is None:
        return
    blocks, section = model.get_submodule(family.blocks), "text_upstream" if family.modality == "text" else "upstream"
    if not 1 <= keep <= len(blocks):
        raise UserError(
            f"Expected keep_layers from 1 to {len(blocks)} (the model's blocks), found {keep}. "
            f"Set `-o {section}.keep_layers={len(blocks)}` or fewer."
        )
    del blocks[keep:]
    setattr(model.config, family.count, keep)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:keep]


def _refuse_options(config: UpstreamConfig, family: HubFamily) -> None:
    """Raise a UserError for an option that another family has."""
    for option in OPTIONS - family.options:
        if getattr(config, option) != getattr(UpstreamConfig(), option):
            allowed = ", ".join(sorted(family.options))
            raise UserError(f"{family.title} has no option '{option}' (it has: {allowed}). Leave it out.")
