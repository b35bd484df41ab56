"""Spaces: what all rows of one folder of the store share, and the hash that names it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..base import Upstream, UpstreamConfig
from ..statistics import STATISTICS
from .eight_bits import HEAD

Numbers = Literal["float16", "int8"]
FORMAT = 2  # of the files; raised when their layout changes
FEATURES = 1  # raised by hand when any upstream's output changes


@dataclass(frozen=True)
class Space:
    """What all rows of one folder share; whatever differs here lies elsewhere."""

    upstream: str  # hash of weights, architecture, options and class
    layers: tuple[int, ...]
    dim: int
    pooled: bool  # rows are statistics over time
    normalized: bool  # each layer of each frame was normed before the mean
    padding: str
    normalize_waveform: str
    attend: str
    precision: str  # of the computation
    format: int = FORMAT
    features: int = FEATURES
    statistics: str = "mean"  # of pooled rows
    numbers: Numbers = "float16"  # of frames; statistics are in float32

    def described(self) -> dict[str, Any]:
        """Return what decides the rows; those of before there was a choice keep their place."""
        first = {"statistics": "mean", "numbers": "float16"}
        return {name: value for name, value in asdict(self).items() if first.get(name) != value}

    @property
    def key(self) -> str:
        """The name of the space's folder."""
        return hashlib.sha256(json.dumps(self.described(), sort_keys=True).encode()).hexdigest()[:24]

    @property
    def kind(self) -> str:
        """What the rows are called."""
        if not self.pooled:
            return "frames in 8 bits" if self.numbers == "int8" else "frames"
        return "means" if self.statistics == "mean" else self.statistics

    def size(self, rows: int, frames: int) -> int:
        """Return the bytes of so many utterances, which have so many frames."""
        number = len(self.layers) * self.dim
        if self.pooled:
            return 4 * rows * number
        return (frames + HEAD * rows if self.numbers == "int8" else 2 * frames) * number


def space_of(
    upstream: Upstream,
    config: UpstreamConfig,
    *,
    layers: Sequence[int],
    statistics: str | None,
    precision: str,
    numbers: Numbers = "float16",
    weights_hash: str | None = None,
) -> Space:
    """Return the space of an upstream as a run uses it: of statistics over time, or (None) of all frames."""
    return Space(
        upstream=fingerprint(upstream, weights_hash),
        layers=tuple(layers),
        dim=upstream.spec.dim * STATISTICS[statistics or "mean"],
        pooled=statistics is not None,
        normalized=statistics is not None and config.normalize_layers,
        padding=config.padding,
        normalize_waveform=config.normalize_waveform,
        attend=config.attend,
        precision=precision,
        statistics=statistics or "mean",
        numbers=numbers if statistics is None else "float16",
    )


def fingerprint(upstream: Upstream, weights_hash: str | None = None) -> str:
    """Return a hash of all that decides an upstream's output: weights, architecture, options, class and promises.

    Where its name or folder lies does not matter, except for an upstream that only its name describes. Hashing the weights
    of a large model takes seconds: whoever knows the hash gives it.
    """
    spec, architecture = upstream.spec, upstream.architecture()
    promises = [spec.num_layers, spec.dim, spec.sample_rate, spec.normalize, spec.centred]
    named = upstream.name if architecture is None else ""
    described = [_class_of(upstream), named, promises, _options(upstream), _stable(architecture or {})]
    weights = upstream.weights_hash() if weights_hash is None else weights_hash
    return hashlib.sha256((json.dumps(described, sort_keys=True) + weights).encode()).hexdigest()


def _class_of(upstream: Upstream) -> list[str]:
    """Name the class; where it is not ours, no FEATURES is raised when its code changes, so that the code counts."""
    kind = type(upstream)
    if family := vars(kind).get("family"):  # not inherited: a user's class that extends ours is theirs
        return [*family]
    named = [kind.__module__, kind.__qualname__]
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is None:
        return named
    return [*named, hashlib.sha256(Path(file).read_bytes()).hexdigest()]


def _options(upstream: Upstream) -> dict[str, Any]:
    """Return the options that the upstream was built with, which a run folder's upstream has from its own recipe."""
    passing = {"name", "source", "untrained", "training"}
    plain = (bool, int, float, str, tuple, type(None))
    return {
        key: repr(value)
        for key, value in vars(upstream).items()
        if key not in passing and not key.startswith("_") and isinstance(value, plain)
    }


def _stable(architecture: Any) -> Any:
    """Leave out what transformers writes about files and versions."""
    if isinstance(architecture, Mapping):
        passing = {"transformers_version", "architectures", "dtype", "torch_dtype"}
        named = {str(key): value for key, value in architecture.items()}
        return {key: _stable(value) for key, value in named.items() if key not in passing and not key.startswith("_")}
    return architecture
