"""Upstreams: what each one promises, and all that are registered by name."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..core.errors import UserError
from ..core.options import ABOVE_0, SHARE
from ..corpus.arrays import SAMPLE_RATE, Waveform16kHz, waveforms_at
from ..corpus.batch import Batch
from ..plugins.registry import ADDING, Registry

Modality = Literal["audio", "text"]
Role = Literal["audio", "text", "teacher"]  # what an upstream is in a run
TEACHER: Role = "teacher"


def modality_of(role: str) -> Modality:
    """Return what an upstream of a role takes: a teacher listens."""
    return "text" if role == "text" else "audio"


_LENGTHS = (20, 40)  # seconds of the two utterances that tell how many frames a second has


@dataclass(frozen=True)
class UpstreamSpec:
    """What an upstream promises; declared from its config and tested, never probed."""

    modality: Modality
    num_layers: int  # entries of Layers.values
    dim: int
    sample_rate: int  # 0 of a text's
    # samples of an utterance -> its frames; a text has none, and refuses. Its repr would be that of the whole model
    num_frames: Callable[[int], int] = field(repr=False)
    normalize: bool = False  # waveforms go in with zero mean and unit variance
    maskable: bool = False  # forward(masked=…) works
    centred: bool = False  # frames of an utterance have mean zero: linear -> mean would see nothing

    @property
    def frame_seconds(self) -> float:
        """The seconds from a frame to the next: what lies between two lengths, which the ends have no part in."""
        short, long = (self.num_frames(seconds * self.sample_rate) for seconds in _LENGTHS)
        return (_LENGTHS[1] - _LENGTHS[0]) / (long - short)


@dataclass(frozen=True)
class Layers:
    """All layers of one pass over a batch."""

    values: Sequence[Tensor]  # each (batch, frame, dim)
    lengths: tuple[int, ...]  # valid frames of each utterance
    pooled: bool = False  # the one frame is a mean over time
    masked: Tensor | None = None  # (batch, frame): what was hidden from the upstream


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
    """The `upstream:` section of a recipe: which model, and how it is used."""

    name: str = ""  # -u, --text-upstream: a registered name, a hub id, a folder, a run folder, s3prl/NAME
    path: str | None = None  # -k: a folder with the weights of the named model
    trainable: bool = False  # -f
    layer: int | None = None  # -l: one layer instead of the weighted sum
    normalize_layers: bool = False  # layer norm of each layer before the sum
    keep_layers: int | None = None  # only the first so many transformer blocks
    padding: Literal["exact", "s3prl"] = "exact"  # exact: features do not depend on batch mates; s3prl: they do, as there
    normalize_waveform: Literal["auto", "yes", "no"] = "auto"  # auto: as the checkpoint was trained
    dropout: float | None = None  # None: as in the checkpoint's config
    dropout_of: Literal["all", "hidden"] = "all"  # what `dropout` sets: attention and activations too, or hidden units alone
    layerdrop: float | None = 0.0  # share of transformer blocks that a training step skips; None: as in the checkpoint's config
    spec_augment: bool = False  # masks in the model's input while it is trained, as its config says
    front_end: Literal["frozen", "trained"] = "frozen"  # of a finetuned upstream: its convolutions
    front_end_gradient: float = 1.0  # by which the gradient of trained convolutions is multiplied
    attend: Literal["all", "valid"] = "all"  # Whisper: all 1,500 positions, or the valid ones only
    config: Mapping[str, Any] | None = None  # new/FAMILY: the sizes of a model that starts from random weights
    filters: Literal["random", "gabor"] = "random"  # new/FAMILY: what its first convolution starts from
    # what is trained in place of the model's weights, beside -f; its options concern those kinds that have them
    adapter: Literal["none", "lora", "dora", "ia3", "houlsby", "bitfit"] = "none"
    adapter_rank: Annotated[int, ABOVE_0] = 8  # of lora and dora; units of a bottleneck of houlsby
    adapter_alpha: Annotated[float, ABOVE_0] | None = None  # of lora and dora: scaling times rank; None: twice the rank
    adapter_dropout: Annotated[float, SHARE] = 0.0  # of lora's and dora's input
    adapter_targets: list[str] | None = None  # ends of names of linear layers in a block; None: the kind's usual ones


class Upstream(nn.Module, ABC):
    """A batch -> Layers, and nothing else: no freezing, no pooling, no logging."""

    spec: UpstreamSpec
    name: str = ""  # as the user typed it
    source: str = ""  # hub id, folder or "built in"
    untrained: bool = False  # random weights: results are marked
    code: str = ""  # of one that is not ours: which code computes it
    family: ClassVar[tuple[str, str] | None] = None  # of ours: what the store's keys call the class; it never changes

    def __call__(
        self,
        batch: Batch | Waveform16kHz | Sequence[Waveform16kHz | str],
        *,
        sampling_rate: float = SAMPLE_RATE,
        views: int = 1,
        masked: Tensor | None = None,
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the layers of a batch, of a list of 16 kHz mono waveforms (or one, or an array (batch, sample)), or of texts.

        Waveforms of another `sampling_rate` are resampled as files are; int16 samples are divided by 32,768.
        """
        if not isinstance(batch, Batch) and self.spec.modality == "audio":
            batch = waveforms_at(batch, sampling_rate, self.spec.sample_rate)
        elif sampling_rate != SAMPLE_RATE:
            found = "a batch, which is at 16 kHz" if isinstance(batch, Batch) else "texts"
            raise UserError(f"Expected waveforms beside sampling_rate, found {found}. Leave it out.")
        if masked is not None and not self.spec.maskable:
            raise ValueError(f"Expected a model with a mask embedding, found none in '{self.name}'. Leave `masked` out.")
        return super().__call__(batch, views=views, masked=masked, layers=layers)

    def train(self, mode: bool = True) -> Self:
        """Switch on what is random in training: the checkpoint's dropout, and what the config adds (LayerDrop, SpecAugment).

        It switches on no gradients: a loaded upstream has none before `upstream.requires_grad_(True)`.
        """
        return super().train(mode)

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
        """Return the parts that are trained where `front_end: trained` says so (the convolutions)."""
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
class TokenCounter(Protocol):
    """What a text upstream knows of a text without running."""

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


UPSTREAMS: Registry[Registered] = Registry("upstream", "headwater.upstream.families")


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
        """Add the function to the upstreams."""
        public, origin = name or function.__name__, ADDING.get()
        text = description or (function.__doc__ or "").strip().split("\n")[0]
        place = origin.place or source
        row = Registered(public, function, place, text, modality, untrained, frozenset(options), origin.code)
        UPSTREAMS.register(row, getattr(function, "__module__", "headwater"))
        return function

    return register if build is None else register(build)


def run_block(block: nn.Module, hidden: Tensor, recomputes: bool, **others: Any) -> Any:
    """Return a block's output; one that is to be recomputed keeps its input only, and the state that dropout drew from."""
    if recomputes and torch.is_grad_enabled():
        return checkpoint(block, hidden, use_reentrant=False, preserve_rng_state=True, **others)
    return block(hidden, **others)


def checked_waveforms(batch: Batch, device: torch.device) -> tuple[Tensor, tuple[int, ...]]:
    """Return a batch's waveforms on a device, cut behind the longest utterance, and their lengths."""
    if batch.waveforms is None:
        raise ValueError("Expected waveforms, found a batch of stored layers only. Use its `stored` entry instead.")
    for name, length in zip(batch.ids, batch.lengths, strict=True):
        if length < 1:
            raise ValueError(f"Expected at least one sample, found none in utterance '{name}'. Leave it out.")
    return batch.waveforms[:, : max(batch.lengths)].to(device), batch.lengths


def named_layers(layers: Sequence[int] | None, num_layers: int) -> list[int]:
    """Return the requested layers, all where none are named."""
    wanted = list(range(num_layers)) if layers is None else list(layers)
    if not wanted or min(wanted) < 0 or max(wanted) >= num_layers:
        raise ValueError(f"Expected layers from 0 to {num_layers - 1}, found {wanted}.")
    return wanted
