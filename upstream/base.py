"""Upstreams: what each one promises, and the table of all that are registered."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from ..corpus.batch import Batch
from ..errors import UserError, nearest
from ..installed import load_all, load_offered
from ..own_code import FLAGS, known_as, use

Modality = Literal["audio", "text"]


@dataclass(frozen=True)
class UpstreamSpec:
    """What an upstream promises; declared from its config and tested, never probed."""

    modality: Modality
    num_layers: int  # entries of Layers.values
    dim: int
    sample_rate: int  # 0 of a text's
    num_frames: Callable[[int], int]  # samples of an utterance -> its frames; a text has none, and refuses
    normalize: bool = False  # waveforms go in with zero mean and unit variance
    maskable: bool = False  # forward(masked=…) works
    centred: bool = False  # frames of an utterance have mean zero: linear -> mean would see nothing


@dataclass(frozen=True)
class Layers:
    """All layers of one pass over a batch."""

    values: Sequence[Tensor]  # each (batch, frame, dim)
    lengths: tuple[int, ...]  # valid frames of each utterance
    pooled: bool = False  # the one frame is a mean over time


@dataclass(frozen=True)
class Frames:
    """One sequence of frames for each utterance of a batch."""

    values: Tensor  # (batch, frame, dim)
    lengths: tuple[int, ...]
    pooled: bool = False

    @property
    def valid(self) -> Tensor:
        """True where a frame belongs to its utterance: (batch, frame)."""
        return valid_positions(self.lengths, self.values.shape[1], self.values.device)


def valid_positions(lengths: Sequence[int], size: int, device: torch.device | str = "cpu") -> Tensor:
    """Return a mask (batch, size) that is True in front of each length."""
    ends = torch.tensor(lengths, device=device).unsqueeze(1)
    return torch.arange(size, device=device).unsqueeze(0) < ends


@dataclass(frozen=True)
class UpstreamConfig:
    """The `upstream:` section of a recipe: which model listens, and how."""

    name: str = ""  # -u, --text-upstream: a registered name, a hub id, a folder, a run folder, s3prl/NAME
    path: str | None = None  # -k: a folder with the weights of the named model
    trainable: bool = False  # -f
    layer: int | None = None  # -l: one layer instead of the weighted sum
    normalize_layers: bool = False  # --normalize-layers: layer norm of each layer before the sum
    keep_layers: int | None = None  # only the first so many transformer blocks
    padding: Literal["exact", "s3prl"] = "exact"
    normalize_waveform: Literal["auto", "yes", "no"] = "auto"  # auto: as the checkpoint was trained
    dropout: float | None = None  # None: as in the checkpoint's config
    spec_augment: bool = False
    attend: Literal["all", "valid"] = "all"  # Whisper: all 1,500 positions, or the valid ones only


# fields of UpstreamConfig that concern whoever uses the upstream, not its builder
_USE_FIELDS = frozenset({"name", "path", "trainable", "layer", "normalize_layers"})


class Upstream(nn.Module, ABC):
    """A batch -> Layers, and nothing else: no freezing, no pooling, no logging."""

    spec: UpstreamSpec
    name: str = ""  # as the user asked for it
    source: str = ""  # hub id, folder or "built in"
    untrained: bool = False  # random weights: results are marked
    code: str = ""  # of one that is not ours: which code computes it

    @abstractmethod
    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray],
        *,
        views: int = 1,
        masked: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the layers (all, or those named, in that order) of each utterance; views are view-major.

        `masked` (batch, frame) replaces frames after the projection. In eval mode there is one view.
        A list of 1-d waveforms (of texts, where the upstream reads) is accepted in place of a batch.
        """

    def front_end(self) -> list[nn.Module]:
        """Return the parts that no protocol here trains (the convolutions)."""
        return []

    def blocks(self) -> list[nn.Module]:
        """Return the transformer blocks in order, for learning rates by depth."""
        return []

    def recompute_blocks(self) -> None:
        """From now on keep nothing inside a transformer block in training: the backward pass runs it again."""
        raise UserError(
            f"Expected an upstream that can run its blocks again for training.gradient_checkpointing, found '{self.name}', "
            "which cannot. Leave it out."
        )

    def architecture(self) -> dict[str, Any] | None:
        """Return what rebuilds the model without its weights, as json; None where only its source can."""
        return None

    def weights_hash(self) -> str:
        """Return a hash of every weight, the same on every machine, and of the code where it is not ours."""
        digest = hashlib.sha256(self.code.encode())
        for key, value in sorted(self.state_dict().items()):
            array = value.detach().cpu().contiguous()
            digest.update(f"{key} {array.dtype} {tuple(array.shape)}\n".encode())
            digest.update(array.view(torch.uint8).numpy().data if array.ndim else array.numpy().tobytes())
        return digest.hexdigest()


@runtime_checkable
class Reads(Protocol):
    """What an upstream of texts can say of one without running."""

    max_tokens: int  # longer texts are cut

    def num_tokens(self, text: str) -> int:
        """Return how many tokens a text has, those that mark its ends included."""
        ...


@dataclass(frozen=True)
class Registered:
    """One line of the table of upstreams."""

    name: str
    build: Callable[[UpstreamConfig], Upstream]
    source: str  # hub id, or where it comes from
    description: str
    modality: Modality | None = "audio"  # None: known once it is loaded
    untrained: bool = False
    options: frozenset[str] = field(default_factory=frozenset)  # fields of UpstreamConfig that the builder understands
    code: str = ""  # of a user's own its hash, of a package's its version; "": one of ours


_REGISTERED: dict[str, Registered] = {}  # public name -> its line
# files of this folder that register no name; every other one does, and is found by itself
_MECHANISM = {
    "asr",
    "base",
    "checkpoints",
    "exact_padding",
    "hubert_family",
    "row_keys",
    "run_folder",
    "s3prl_bridge",
    "s3prl_weights",
    "shards",
    "store",
    "text",
    "tokenizer",
    "torchaudio_stub",
    "upkeep",
    "weighted_sum",
    "whisper",
}


def register_upstream(
    build: Callable[[UpstreamConfig], Upstream] | None = None,
    *,
    name: str | None = None,
    source: str = "built in",
    description: str | None = None,
    modality: Modality = "audio",
    untrained: bool = False,
    options: Sequence[str] = (),
) -> Callable:
    """Register a function as an upstream; its name is the public name, its docstring the description."""

    def register(function: Callable[[UpstreamConfig], Upstream]) -> Callable[[UpstreamConfig], Upstream]:
        """Add the function to the table."""
        public = name or function.__name__
        words = description or (function.__doc__ or "").strip().split("\n")[0]
        if public in _REGISTERED:
            places = [getattr(known, "__module__", "headwater") for known in (_REGISTERED[public].build, function)]
            raise UserError(
                f"Expected another name for an upstream than '{public}', found it in {places[0]} and in {places[1]}. Rename one."
            )
        _REGISTERED[public] = Registered(public, function, source, words, modality, untrained, frozenset(options))
        return function

    return register if build is None else register(build)


def registered_upstreams() -> dict[str, Registered]:
    """Return the table of upstreams by name: ours, those that were typed, and what was loaded of installed packages."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in _MECHANISM:
            importlib.import_module(f"headwater.upstream.{module.name}")
    return _REGISTERED


def use_upstream(path: str) -> str:
    """Execute a file that the user typed; return the name of the one upstream in it, which is known from now on."""
    return use(path, "upstream").name


def broken_upstreams(pattern: str = "*") -> list[str]:
    """Return a line for each upstream of an installed package that cannot be had."""
    return load_all("upstream", registered_upstreams(), pattern)


def list_upstreams(pattern: str = "*", modality: str | None = None) -> list[Registered]:
    """Return the registered upstreams whose name matches, in natural order."""
    load_all("upstream", registered_upstreams(), pattern)  # what is broken is told by `broken_upstreams`
    rows = [row for row in _REGISTERED.values() if fnmatch.fnmatch(row.name, pattern) and modality in (None, row.modality)]
    return sorted(rows, key=lambda row: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", row.name)])


def load_upstream(what: str | UpstreamConfig, modality: str | None = None) -> Upstream:
    """Return an upstream in eval mode, by name, hub id, folder, run folder, `s3prl/NAME` or a file of one's own.

    `headwater.load_upstream("fbank")([waveform, waveform])` gives Layers. With a modality another one is refused, and of a
    run that had both it is the one that is loaded.
    """
    if isinstance(what, str) and what.endswith(".py"):  # typed in the code that calls; a recipe's comes in a config
        what = use_upstream(what)
    config = UpstreamConfig(name=what) if isinstance(what, str) else what
    row = find_upstream(config, modality)
    upstream = row.build(config)
    _refuse_modality(config, upstream.spec.modality, modality)
    upstream.name, upstream.source = config.name, upstream.source or row.source
    upstream.untrained, upstream.code = upstream.untrained or row.untrained, upstream.code or row.code
    return upstream.eval()


def find_upstream(config: UpstreamConfig, modality: str | None = None) -> Registered:
    """Return the line of the upstream that a config names, its options and modality checked; nothing is loaded."""
    row = _find(config, modality)
    _refuse_unknown_options(row, config)
    _refuse_modality(config, row.modality, modality)
    return row


def _find(config: UpstreamConfig, modality: str | None) -> Registered:
    from . import huggingface, s3prl_bridge, s3prl_weights

    config = replace(config, name=known_as(config.name, "upstream", FLAGS[modality or "audio"]))
    registered = registered_upstreams()
    if config.name not in registered:
        load_offered("upstream", config.name, registered)
    if (row := s3prl_weights.row_of(config, registered.get(config.name))) is not None:
        return row
    if config.name in registered:
        return registered[config.name]
    if config.name.startswith("s3prl/"):
        return Registered(config.name, s3prl_bridge.build, "s3prl", "", options=s3prl_bridge.OPTIONS)
    folder = Path(config.path or config.name).expanduser()
    if (folder / "config.yaml").is_file():
        from . import run_folder

        build = partial(run_folder.build, modality=modality)
        return Registered(config.name, build, str(folder), "", None, options=run_folder.OPTIONS)
    if folder.is_file():
        raise UserError(f"Expected the folder of a model or a run, found the file '{folder}'. Name its folder: {folder.parent}")
    if folder.is_dir() or re.fullmatch(r"\w[\w.-]*/[\w.-]+", config.name):
        return Registered(config.name, huggingface.build, config.name, "", None, options=huggingface.OPTIONS)
    if config.path is not None and not folder.exists():
        raise UserError(f"Expected a folder with weights after -k, found nothing at '{config.path}'. Check the path.")
    if "/" in config.name or config.name.startswith("."):
        raise UserError(
            f"Expected a folder with config.json and weights (or a run folder) at '{config.name}', found nothing there. "
            "Check the path, or give a name from `headwater upstreams`."
        )
    close = nearest(config.name, registered)
    others = "See `headwater upstreams`, or give a hub id, a folder, or s3prl/NAME."
    raise UserError(f"There is no upstream '{config.name}'.{close} {others}")


def _refuse_modality(config: UpstreamConfig, found: str | None, expected: str | None) -> None:
    if found is None or expected is None or found == expected:
        return
    verbs, flags = {"audio": "listens", "text": "reads"}, {"audio": "-u", "text": "--text-upstream"}
    raise UserError(
        f"Expected an upstream that {verbs[expected]} for {flags[expected]}, found '{config.name}', which {verbs[found]}. "
        f"Give it to {flags[found]}; `headwater upstreams` tells them apart."
    )


def _refuse_unknown_options(row: Registered, config: UpstreamConfig) -> None:
    for option in fields(UpstreamConfig):
        if option.name in _USE_FIELDS | row.options or getattr(config, option.name) == option.default:
            continue
        allowed = ", ".join(sorted(row.options)) or "no options"
        raise UserError(f"Upstream '{config.name}' has no option '{option.name}' (it has: {allowed}). Leave it out.")
    if config.path is not None and (row.source == "built in" or (row.code and "path" not in row.options)):
        raise UserError(f"Upstream '{config.name}' is built in and takes no weights: leave out -k, or name the model.")
