"""The s3prl bridge: any of its upstreams by its s3prl name, importing only the family of that name."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError, nearest
from ...core.trust import CHECKPOINTS
from ...corpus.batch import Batch, as_batch
from ..base import Layers, Upstream, UpstreamConfig, UpstreamSpec, checked_waveforms, named_layers
from .torchaudio_stub import TorchaudioNeeded, stand_in_for_torchaudio

OPTIONS = frozenset({"padding"})
_LOG = logging.getLogger(__name__)
_SAMPLE_RATE = 16000
_SMALLEST = 1600  # samples: shorter utterances are padded with zeros, since each family has a limit of its own


class S3prlUpstream(Upstream):
    """An s3prl upstream; it runs one utterance at a time, since most of them let an utterance see its padding."""

    family = ("headwater.upstream.s3prl_bridge", "S3prlUpstream")

    model: Any  # s3prl's UpstreamExpert

    def __init__(self, model: Any, *, padding: Literal["exact", "s3prl"] = "exact") -> None:
        super().__init__()
        self.model = model
        self.exact = padding == "exact"
        states = self._states([torch.zeros(_SAMPLE_RATE)])
        dims = {state.shape[2] for state in states}
        if len(dims) > 1:
            raise UserError(f"Expected layers of one size, found sizes {sorted(dims)}. Choose another upstream of s3prl.")
        self.samples_per_frame = int(model.get_downsample_rates("hidden_states"))
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(states),
            dim=dims.pop(),
            sample_rate=_SAMPLE_RATE,
            num_frames=self._count_frames() if self.exact else self._frames_by_rate,
        )

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray],
        *,
        views: int = 1,
        masked: Tensor | None = None,  # noqa: ARG002 (refused where there is no mask embedding)
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the layers of each utterance, in s3prl's order."""
        wanted = named_layers(layers, self.spec.num_layers)
        device = next((weight.device for weight in self.model.parameters()), torch.device("cpu"))
        padded, lengths = checked_waveforms(as_batch(batch), device)
        waveforms = [row[:length] for row, length in zip(padded, lengths, strict=True)] * (views if self.training else 1)
        if not self.exact:
            states = self._states(waveforms)
            counts = tuple(max(min(self._frames_by_rate(len(wave)), states[0].shape[1]), 1) for wave in waveforms)
            return Layers([states[index] for index in wanted], counts)
        each = [self._states([waveform]) for waveform in waveforms]
        values = [nn.utils.rnn.pad_sequence([states[index][0] for states in each], batch_first=True) for index in wanted]
        return Layers(values, tuple(states[0].shape[1] for states in each))

    def front_end(self) -> list[nn.Module]:
        """Return the convolutions over the waveform, by the name that s3prl's families give them."""
        return [part for name, part in self.model.named_modules() if name.split(".")[-1] == "feature_extractor"]

    def _states(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Return s3prl's hidden states, each (batch, frame, dim), cut to the shortest as s3prl does."""
        output = self.model([F.pad(wave, (0, max(_SMALLEST - len(wave), 0))) for wave in waveforms])
        states = list(output["hidden_states"])
        shortest = min(state.shape[1] for state in states)
        return [state[:, :shortest] for state in states]

    def _frames_by_rate(self, num_samples: int) -> int:
        return max(round(max(num_samples, _SMALLEST) / self.samples_per_frame), 1)

    def _count_frames(self) -> Callable[[int], int]:
        """Probe where the model's next frame begins, and return its count of frames; done once, since s3prl declares none."""
        rate = self.samples_per_frame
        base, begins = self._probe(_SAMPLE_RATE), _SAMPLE_RATE
        least = _SAMPLE_RATE - rate  # one rate less has one frame less: search the first sample count with `base` frames
        while begins - least > 1:
            middle = (begins + least) // 2
            least, begins = (least, middle) if self._probe(middle) == base else (middle, begins)

        def num_frames(num_samples: int) -> int:
            return max(base + (max(num_samples, _SMALLEST) - begins) // rate, 1)

        checked = 3 * _SAMPLE_RATE // 2 + 77
        if self._probe(checked) != num_frames(checked):
            raise UserError(
                f"Expected a frame for every {rate} samples as s3prl says, found {self._probe(checked)} frames for {checked} "
                f"samples instead of {num_frames(checked)}. Add `-o upstream.padding=s3prl`, which counts as s3prl does."
            )
        return num_frames

    @torch.no_grad()
    def _probe(self, num_samples: int) -> int:
        return self._states([torch.zeros(num_samples)])[0].shape[1]


def build(config: UpstreamConfig) -> Upstream:
    """Return the upstream called `s3prl/NAME`."""
    name = config.name.removeprefix("s3prl/")
    family = find_family(name)
    with stand_in_for_torchaudio(), contextlib.redirect_stdout(sys.stderr), _named_failure(family):
        entry = getattr(importlib.import_module(f"s3prl.upstream.{family}.hubconf"), name)
        model = entry(**_checkpoint(config, name, family, entry)).eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            upstream = S3prlUpstream(model, padding=config.padding)
    upstream.source = f"s3prl's {name}" + (f" with {config.path}" if config.path else "")
    _LOG.warning(
        "s3prl/%s (family %s): probed %d layers of %d dims, a frame for every %d samples",
        name,
        family,
        upstream.spec.num_layers,
        upstream.spec.dim,
        upstream.samples_per_frame,
    )
    return upstream


def find_family(name: str) -> str:
    """Return the folder of s3prl whose hubconf.py defines a name; only the files' text is read."""
    spec = importlib.util.find_spec("s3prl")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"Expected the package s3prl for 's3prl/{name}', found none. Run `pip install --no-deps s3prl` "
            "(its requirements would replace your torchaudio)."
        )
    families: dict[str, list[str]] = {}  # name -> families that define it
    for path in sorted(Path(spec.submodule_search_locations[0]).glob("upstream/*/hubconf.py")):
        for defined in re.findall(r"^def ([a-zA-Z]\w*)\(", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            families.setdefault(defined, []).append(path.parent.name)
    if name not in families:
        raise UserError(
            f"Expected a name of s3prl, found 's3prl/{name}'.{nearest(name, families)} See s3prl's list of upstreams."
        )
    # vq_wav2vec defines wav2vec2_local too: the family that the name begins with is meant
    return max(families[name], key=lambda family: (name.startswith(family), len(family)))


def _checkpoint(config: UpstreamConfig, name: str, family: str, entry: Callable[..., Any]) -> dict[str, str]:
    """Return the entry's argument for -k; most entries would silently load their own weights instead."""
    if config.path is None:
        return {}
    passes_on = name.endswith(("_local", "_custom", "_url")) or name == "customized_upstream"
    if "ckpt" not in inspect.signature(entry).parameters and not passes_on:
        raise UserError(
            f"Expected an entry of s3prl that takes weights, found 's3prl/{name}', which loads its own. "
            f"Leave out -k, or name s3prl/{family}_local."
        )
    path = Path(config.path).expanduser()
    if not path.is_file():
        raise UserError(f"Expected a checkpoint file of s3prl at '{config.path}', found none. Check the path.")
    if not CHECKPOINTS.allows(path):
        raise UserError(
            f"Expected the file '{config.path}' to be typed, since s3prl executes what such a file holds, found it in a config "
            f"or recipe only. If you trust it, add -k {config.path}"
        )
    return {"ckpt": str(path)}


def _described(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:120]}"


@contextlib.contextmanager
def _named_failure(family: str) -> Iterator[None]:
    """Turn whatever s3prl's code raises into one line: family, cause, and the command that fixes it."""
    try:
        yield
    except UserError:
        raise
    except TorchaudioNeeded as error:
        cause, command = str(error), f"`pip install torchaudio` (the release made for torch {torch.__version__})"
    except ModuleNotFoundError as error:
        cause, command = f"no module '{error.name}'", f"`pip install {(error.name or '').split('.')[0]}`"
    except OSError as error:  # the download, or the file of -k
        cause, command = _described(error), f"weights fetched by hand: `-u s3prl/{family}_local -k FILE`"
    except Exception as error:  # whatever a family's own code raises is named, never passed over
        cause, command = _described(error), "`pip install --no-deps -U s3prl`, or choose another upstream"
    else:
        return
    raise UserError(f"Expected s3prl's '{family}' to work, found: {cause}. Mend it with {command}.")
