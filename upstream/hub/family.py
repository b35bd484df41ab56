"""A family of models of the hub: all that is particular to it, said in one place."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...core.errors import UserError
from ...core.hub import check_torchaudio
from ..adapters import OPTIONS as ADAPTER_OPTIONS
from ..base import UPSTREAMS, Modality, Upstream, UpstreamConfig

BLOCK_OPTIONS = ADAPTER_OPTIONS | {"keep_layers", "dropout", "dropout_of"}  # of whatever has blocks
TRAINING_OPTIONS = BLOCK_OPTIONS | {"layerdrop", "spec_augment"}  # of what was pretrained by masked prediction
WAVEFORM_OPTIONS = TRAINING_OPTIONS | {"padding", "normalize_waveform", "front_end", "front_end_gradient"}
OPTIONS = WAVEFORM_OPTIONS | {"attend"}  # of any family


@dataclass(frozen=True)
class Source:
    """What is known of a model beside its config and its weights."""

    folder: Path | None = None  # where it was read from
    described: Mapping[str, Any] = field(default_factory=dict)  # of a run: its architecture.json; of a text model its tokenizer
    trained_layerdrop: float = 0.0  # in the checkpoint's config
    is_new: bool = False  # it has learnt nothing, its convolutions neither

    @property
    def input_options(self) -> Mapping[str, Any]:
        """How a run prepares its input: of a run above another the config does not say it."""
        return self.described.get("heard", {})


@dataclass(frozen=True)
class Tiny:
    """A tiny untrained model of a family, for tests and first tries."""

    like: str  # what it looks like
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class HubTokenizer:
    """How a family's texts are cut."""

    module: str  # of transformers.models
    name: str  # of the class
    files: tuple[str, ...]  # that stand in for a tokenizer.json; none where nothing does
    pieces: Literal["word pieces", "byte pairs", "unigrams"] = "word pieces"
    special: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # tokens of the tiny one
    names: Mapping[str, str] = field(default_factory=dict)  # of those that the class calls otherwise

    @property
    def tokenizer_class(self) -> Any:
        """Transformers' class, imported now."""
        return getattr(importlib.import_module(f"transformers.models.{self.module}"), self.name)


@dataclass(frozen=True)
class OwnFiles:
    """The files of a family that is published in a form of its own."""

    patterns: tuple[str, ...]  # of what is fetched
    are_in: Callable[[Path], bool]  # a folder, or a file after -k
    converted: Callable[[Path], Path]  # the same in the hub's form, in the cache


@dataclass(frozen=True)
class HubFamily:
    """A kind of model that transformers has (or we, as a class of its kind), as config.json calls it."""

    model_type: str
    title: str
    module: str  # of transformers.models, or one of ours
    model: str  # the class
    wrap: Callable[[Any, UpstreamConfig, Source], Upstream]  # a model of transformers as an upstream
    options: frozenset[str]
    checkpoints: Mapping[str, str] = field(default_factory=dict)  # public name, as in s3prl and meaning the same there -> hub id
    tiny: Mapping[str, Tiny] = field(default_factory=dict)  # public name -> model
    modality: Modality = "audio"
    blocks: str = "encoder.layers"  # where they lie in the model
    count: str = "num_hidden_layers"  # what its config calls their number
    attention: str = "sdpa"
    inside: Mapping[str, str] = field(default_factory=dict)  # model_type of what holds such a model -> where its config stands
    made_with: Mapping[str, Any] = field(default_factory=dict)
    loaded_with: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: HubTokenizer | None = None
    from_random: bool = False  # -u new/…
    files: OwnFiles | None = None  # where they are not the hub's

    def __post_init__(self) -> None:
        """Refuse options that nothing understands."""
        assert self.options <= OPTIONS, f"{self.title}: {self.options - OPTIONS}"

    @property
    def model_class(self) -> Any:
        """Transformers' class, imported now."""
        check_torchaudio()
        place = self.module if self.is_ours else f"transformers.models.{self.module}"
        return getattr(importlib.import_module(place), self.model)

    @property
    def is_ours(self) -> bool:
        """Return whether the class is ours: transformers cannot load such a model."""
        return self.module.startswith("headwater.")


_FAMILIES: dict[str, HubFamily] = {}  # model_type -> family; each file of the catalogue registers its own


def add_family(family: HubFamily) -> None:
    """Add a family to the known ones."""
    assert family.model_type not in _FAMILIES, f"two families of model_type {family.model_type}"
    _FAMILIES[family.model_type] = family


def families() -> Mapping[str, HubFamily]:
    """Return all families by model_type."""
    UPSTREAMS.loaded()  # which imports the catalogue
    return _FAMILIES


def family_of(model_type: str) -> HubFamily:
    """Return the family of a model_type that is known."""
    return families()[model_type]


def share(value: float, name: str) -> float:
    """Return a share, or raise a UserError where it is none."""
    if not 0.0 <= value < 1.0:
        raise UserError(f"Expected a {name} from 0 to below 1, found {value}. Set `{name}=0.1`, say.")
    return value
