"""The contract tests of an upstream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from ..corpus.batch import Batch, as_batch
from ..upstream.base import Layers, Modality, Upstream, UpstreamConfig, valid_positions
from ..upstream.load import load_upstream
from .base import Failed, distance

LENGTHS = (16_000, 24_001, 33_333, 47_999)  # samples: 1 to 3 s, odd ones among them
SHORT = (1, 2, 17, 160, 399, 400)
TEXTS = ("why did you ask me that? I told you all of it before", "I do not think so, no", "yes")
TOLERANCE = 1e-5
SWEPT = range(400, 48_001, 100)  # samples
SAMPLE_RATE = 16_000  # of all audio that upstreams are given


@dataclass(frozen=True)
class UpstreamSubject:
    """An upstream, and what it is given."""

    config: UpstreamConfig
    upstream: Upstream

    @property
    def is_text(self) -> bool:
        """Whether it is given texts instead of waveforms."""
        return self.upstream.spec.modality == "text"

    def material(self, lengths: Sequence[int] = LENGTHS) -> list[Any]:
        """Return utterances as it takes them: noise of so many samples, or texts."""
        if self.is_text:
            return list(TEXTS)
        generator = torch.Generator().manual_seed(1)
        return [0.1 * (number + 1) * torch.randn(length, generator=generator) for number, length in enumerate(lengths)]

    def layers(self, utterances: Any, **options: Any) -> Layers:
        """Return its layers, without a gradient."""
        with torch.no_grad():
            return self.upstream(utterances, **options)


def upstream_subject(what: str | UpstreamConfig) -> UpstreamSubject:
    """Return an upstream with what its contract tests need."""
    config = UpstreamConfig(name=what) if isinstance(what, str) else what
    try:
        return UpstreamSubject(config, load_upstream(config))
    except AttributeError as problem:
        if "'spec'" not in str(problem):
            raise
        raise Failed(
            f"Expected an Upstream with its spec from the builder of '{config.name}', found none ({problem}). Return one, whose "
            "__init__ sets self.spec = UpstreamSpec(…)."
        ) from problem


def it_keeps_its_promise(subject: UpstreamSubject) -> None:
    """What comes out is what the spec promises: layers, dimensions, and num_frames(samples) frames."""
    spec, utterances = subject.upstream.spec, subject.material()
    found = subject.layers(utterances)
    if spec.modality not in get_args(Modality):
        raise Failed(f"Expected modality 'audio' or 'text' in the spec, found {spec.modality!r}. Say which it is given.")
    if not subject.is_text and spec.sample_rate != SAMPLE_RATE:
        raise Failed(f"Expected sample_rate={SAMPLE_RATE} in the spec, found {spec.sample_rate}: audio is given at that rate.")
    refuse_other_count(found, spec.num_layers, "eval mode")
    for number, values in enumerate(found.values):
        if values.ndim != 3 or values.shape[2] != spec.dim or values.shape[0] != len(utterances):
            raise Failed(
                f"Expected (batch {len(utterances)}, frame, dim {spec.dim}) from layer {number}, found {tuple(values.shape)}."
            )
        if not torch.isfinite(values).all():
            raise Failed(f"Expected finite numbers in layer {number}, found others. Is a logarithm of zero taken?")
        if max(found.lengths) > values.shape[1]:
            raise Failed(f"Expected at least {max(found.lengths)} frames in layer {number}, found {values.shape[1]}.")
    promised = found.lengths if subject.is_text else tuple(spec.num_frames(len(waveform)) for waveform in utterances)
    if tuple(found.lengths) != promised:
        raise Failed(f"Expected lengths {promised} of {LENGTHS} samples (spec.num_frames), found {tuple(found.lengths)}.")
    refuse_falling_frames(subject)
    refuse_idle_mask(subject, found)


def refuse_falling_frames(subject: UpstreamSubject) -> None:
    """Refuse that more samples are promised fewer frames: training, stores and crops trust num_frames at every length."""
    if subject.is_text:
        return
    promised = [subject.upstream.spec.num_frames(length) for length in SWEPT]
    for place, (fewer, more) in enumerate(itertools.pairwise(promised)):
        if more < fewer:
            raise Failed(
                f"Expected spec.num_frames to grow with the samples, found {fewer} frames of {SWEPT[place]} and {more} of "
                f"{SWEPT[place + 1]}. Mend it."
            )


def refuse_idle_mask(subject: UpstreamSubject, unmasked: Layers) -> None:
    """Refuse `maskable` in the spec of what leaves masked frames as they are."""
    if not subject.upstream.spec.maskable:
        return
    masked = valid_positions([1] * len(unmasked.lengths), unmasked.values[-1].shape[1])  # (batch, frame): each one's first
    found = subject.layers(subject.material(), masked=masked)
    if all(same(values, before) for values, before in zip(found.values, unmasked.values, strict=True)):
        raise Failed("Expected other layers where frames are masked (spec.maskable), found the same. Use `masked`, or drop it.")


def refuse_other_count(found: Layers, count: int, mode: str) -> None:
    """Refuse another number of layers than was promised."""
    if len(found.values) != count:
        raise Failed(f"Expected {count} layers (spec.num_layers) in {mode}, found {len(found.values)}. Is LayerDrop on?")


def padding_is_nothing(subject: UpstreamSubject) -> None:
    """An utterance's frames depend neither on its batch mates nor on the padding, to 1e-5."""
    utterances = subject.material()
    together = subject.layers(utterances)
    longer = together if subject.is_text else subject.layers(padded_to_twice(as_batch(utterances)))
    for row, utterance in enumerate(utterances):
        alone = subject.layers([utterance])
        frames = alone.lengths[0]
        for number, values in enumerate(alone.values):
            worst = max(distance(batch.values[number][row, :frames], values[0, :frames]) for batch in (together, longer))
            if worst > TOLERANCE:
                raise Failed(
                    f"Expected the frames that the utterance has alone, found others in a batch ({worst:.1e} off in layer "
                    f"{number}). Mask what is behind its end: norms over time, convolutions, attention."
                )


def padded_to_twice(batch: Batch) -> Batch:
    """Return a batch with as many zeros again behind its longest utterance."""
    assert batch.waveforms is not None, "a batch made of waveforms has them"
    return Batch(torch.nn.functional.pad(batch.waveforms, (0, batch.waveforms.shape[1])), batch.lengths, batch.ids)


def eval_is_certain(subject: UpstreamSubject) -> None:
    """Run twice, it gives the same layers: in eval mode nothing is random."""
    one, two = (subject.layers(subject.material()) for _ in range(2))
    if not all(torch.equal(first, second) for first, second in zip(one.values, two.values, strict=True)):
        raise Failed("Expected the same layers twice in eval mode, found others. Use nn.Dropout, or check self.training.")


def short_is_defined(subject: UpstreamSubject) -> None:
    """The shortest audio, one sample to 400, gives at least one finite frame."""
    if subject.is_text:
        return
    for length in SHORT:
        found, promised = subject.layers(subject.material([length])), subject.upstream.spec.num_frames(length)
        if promised < 1 or tuple(found.lengths) != (promised,):
            raise Failed(f"Expected at least one frame of {length} samples, found {promised} promised and {found.lengths} given.")
        if not all(torch.isfinite(values).all() for values in found.values):
            raise Failed(f"Expected finite frames of {length} samples, found others. Pad what is shorter than a window.")


def training_changes_nothing(subject: UpstreamSubject) -> None:
    """In train mode there are as many layers, and `views=2` gives each utterance twice, one view behind the other."""
    utterances, count = subject.material(), subject.upstream.spec.num_layers
    try:
        subject.upstream.train()
        once, twice = subject.layers(utterances), subject.layers(utterances, views=2)
    finally:
        subject.upstream.eval()
    refuse_other_count(once, count, "train mode")
    for found, rows in (
        (once, len(utterances)),
        (twice, 2 * len(utterances)),
        (subject.layers(utterances, views=2), len(utterances)),
    ):
        if len(found.lengths) != rows or found.values[0].shape[0] != rows:
            raise Failed(f"Expected {rows} rows (two views in train mode only), found {found.values[0].shape[0]}. See `views`.")
    refuse_twins_side_by_side(subject.layers(utterances), twice)


def refuse_twins_side_by_side(once: Layers, twice: Layers) -> None:
    """Refuse views in another order; both are random, but likest to what they are views of."""
    behind, end = [*range(len(once.lengths))] * 2, min(once.lengths)  # frames that all of them have
    off = [
        sum(distance(view[:end], once.values[0][row, :end]) for view, row in zip(twice.values[0], order, strict=True))
        for order in (behind, sorted(behind))
    ]
    if off[1] < 0.5 * off[0] or twice.lengths != once.lengths * 2:
        raise Failed("Expected all utterances, then all of them again for views=2, found each beside its twin. Use repeat().")


def layers_can_be_chosen(subject: UpstreamSubject) -> None:
    """`layers=[…]` gives those layers, in that order."""
    utterances, last = subject.material(), subject.upstream.spec.num_layers - 1
    whole, chosen = subject.layers(utterances), subject.layers(utterances, layers=[last, 0])
    if len(chosen.values) != 2 or not (same(chosen.values[0], whole.values[last]) and same(chosen.values[1], whole.values[0])):
        raise Failed(
            f"Expected layers {last} and 0 for layers=[{last}, 0], found {len(chosen.values)} others. Leave none out of `layers`."
        )


def same(found: Tensor, expected: Tensor) -> bool:
    """Tell whether two layers are the same; the fewer layers, the fewer roundings may differ."""
    return found.shape == expected.shape and distance(found, expected) < TOLERANCE


def weights_are_known(subject: UpstreamSubject) -> None:
    """Its weights_hash is the same each time that it is loaded."""
    again = load_upstream(subject.config)
    if again.weights_hash() != subject.upstream.weights_hash():
        raise Failed("Expected the same weights twice, found others. Draw them from a seed, or load them; say untrained=True.")


CHECKS: Sequence[Callable[[UpstreamSubject], None]] = (
    it_keeps_its_promise,
    padding_is_nothing,
    eval_is_certain,
    short_is_defined,
    training_changes_nothing,
    layers_can_be_chosen,
    weights_are_known,
)
