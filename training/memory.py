"""How much memory a step of training takes: counted on tensors that have a shape but no values, before anything is computed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..core.errors import UserError
from ..corpus.arrays import SAMPLE_RATE
from ..corpus.batch import Batch, Example
from ..upstream.adapters import WITHOUT, is_target, targets_of
from ..upstream.hub import cpu_dropout
from .batches import derive_seed
from .config import TrainingConfig
from .model import Model
from .step import TaskData, training_example

_CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)
LORA_RANK = 8
SHARES = (2, 4, 8)  # processes over which a table shares a model out
MOMENTS = {32: 8.0, 8: 2.0 + 8 / 256}  # bytes that Adam keeps of a weight, by bits; of eight, a scale for 256 of them each


@dataclass(frozen=True)
class Way:
    """How a step is made, as far as its memory depends on it."""

    name: str
    checkpointing: bool = False
    bf16: bool = False
    lora: bool = False  # in place of what is trained
    bits: int = 32  # of Adam's states
    processes: int = 1
    shard: bool = False


@dataclass(frozen=True)
class MemoryPlan:
    """The bytes that one process holds in a step; gradients come as activations go, so that not all is there at once."""

    way: Way
    weights: int
    gradients: int
    states: int
    activations: int | None  # of the largest piece, with what is there in passing; None: the model needs values to be counted
    total: int  # the most that is there at once
    piece: str  # which piece is the largest


@dataclass(frozen=True)
class Counted:
    """The most that a pass and its backward pass hold, beside weights and states."""

    activations: int
    with_gradients: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes that tensors made under it hold, and the most that they held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.gradients = self.peak = self.peak_without_gradients = 0
        self._known: set[int] = set()

    def _freed(self, key: int, size: int) -> None:
        self.now -= size
        self._known.discard(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count what it made."""
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        if func in _CONVOLUTIONS:
            self._note_peak(passing_bytes(func, args, made))
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self._note_peak()
        weakref.finalize(storage, self._freed, key, size)

    def _note_peak(self, passing: int = 0) -> None:
        self.peak = max(self.peak, self.now + passing)
        self.peak_without_gradients = max(self.peak_without_gradients, self.now + passing - self.gradients)

    def leave_out(self, tensor: Tensor) -> None:
        """Do not count a tensor that was there before, of which operations make views."""
        self._known.add(tensor.untyped_storage()._cdata)

    def keep_gradient_of(self, weight: Tensor) -> None:
        """Count the gradient of a weight apart, once it is there."""
        size, seen = weight.numel() * weight.element_size(), set[int]()

        def accumulated(_: Tensor) -> None:
            if not seen:
                seen.add(size)
                self.gradients += size

        weight.register_post_accumulate_grad_hook(accumulated)


def passing_bytes(convolution: Any, inputs: Sequence[Any], made: Any) -> int:
    """Return what a convolution on a CPU holds while it runs: copies in the order that its kernel reads (measured)."""
    sizes = [value.numel() * value.element_size() for value in tree_leaves((*inputs[:3], made)) if isinstance(value, Tensor)]
    if made_on(inputs) != "cpu":
        return 0
    return max(sizes) if convolution is _CONVOLUTIONS[0] else sum(sizes[:3])


def made_on(inputs: Sequence[Any]) -> str:
    """Return the kind of device of an operation's first input."""
    return next(value.device.type for value in inputs if isinstance(value, Tensor))


class Passes(nn.Module):
    """A model's pass and the backward pass, of the loss of a task, or of the mean of its outputs.

    Both are one call: blocks that run again in the backward pass must find the weights that the first pass found.
    """

    def __init__(self, model: Model, with_loss: bool, bf16: bool) -> None:
        super().__init__()
        self.model, self.with_loss, self.bf16 = model, with_loss, bf16

    def forward(self, task: str, batch: Batch, device: torch.device) -> None:
        """Leave gradients in the weights."""
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            loss = self._loss(task, batch)
        loss.backward()

    def _loss(self, task: str, batch: Batch) -> Tensor:
        if self.with_loss:
            return self.model(task, batch)[0]
        output = self.model.output_of(task, batch)
        return torch.stack([leaf.float().mean() for leaf in tree_leaves(vars(output)) if isinstance(leaf, Tensor)]).sum()


def memory_plan(
    model: Model, tasks: Sequence[TaskData], training: TrainingConfig, way: Way, seed: int, device: torch.device
) -> MemoryPlan:
    """Return what a step of the longest utterances takes in one process."""
    task, pieces = longest_pieces(tasks, training, way.processes, seed)
    piece = max(pieces, key=padded_seconds)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    of_adapter = 0
    if way.lora:
        through, of_adapter = with_lora(model)
        trained = through | {name for name in trained if not name.startswith("upstreams.")}
    counted = None
    for with_loss in (True, False):  # a loss may look at values, which are not there
        with using(model, way):
            counted = count(Passes(model, with_loss, way.bf16), task, piece, trained, min(len(pieces), 2), device)
        if counted is not None:
            break
    return totals(model, way, trained, of_adapter, counted, described(piece, len(pieces)))


def totals(model: Model, way: Way, trained: set[str], of_adapter: int, counted: Counted | None, piece: str) -> MemoryPlan:
    """Return the plan of a process, its weights shared out where they are to be."""
    sizes = {name: weight.numel() * weight.element_size() for name, weight in model.named_parameters()}
    buffers = sum(value.numel() * value.element_size() for value in model.buffers())
    parts = way.processes if way.shard else 1
    shares = {name: size / parts if name.startswith("upstreams.") else float(size) for name, size in sizes.items()}
    own = {name for name in trained if not (way.lora and name.startswith("upstreams."))}
    gradients = sum(shares[name] for name in own) + of_adapter / parts
    passing = sum(sizes[name] for name in trained - own)  # that the count has of LoRA's weights: those that they stand beside
    states = gradients * MOMENTS[way.bits] / 4
    if way.processes > 1 and not way.shard:
        gradients *= 2  # DDP averages them in a copy
    gathered = gathered_bytes(model, trained, way.bf16) if way.shard else 0
    weights = sum(shares.values()) + buffers
    known = int(weights), int(gradients), int(states)
    if counted is None:
        return MemoryPlan(way, *known, None, sum(known), piece)
    activations = int(counted.activations + gathered)
    at_once = counted.with_gradients - passing + (gradients if way.processes > 1 else of_adapter)
    if way.shard:  # of which the count has all, on one process
        at_once = activations + gradients
    return MemoryPlan(way, *known, activations, int(weights + states + max(at_once, activations)), piece)


def gathered_bytes(model: Model, trained: set[str], bf16: bool) -> int:
    """Return what lies whole in a process in passing: of two blocks the weights, of one the gradients, and all around them."""
    most = 0
    for role in model.configs:
        upstream = model.upstream(role)
        inside = {id(weight) for block in upstream.blocks() for weight in block.parameters()}
        around = sum(4 * weight.numel() for weight in upstream.parameters() if id(weight) not in inside)
        blocks = [sum(weight.numel() for weight in block.parameters()) for block in upstream.blocks()]
        trains = any(name.startswith(f"upstreams.{role}.") for name in trained)
        most = max(most, around + max(blocks, default=0) * (2 if bf16 else 4) * (3 if trains else 2))
    return most


def with_lora(model: Model) -> tuple[set[str], int]:
    """Return the weights that LoRA would stand beside in the trained upstreams, and the bytes of its own."""
    found, size = set[str](), 0
    for role, section in model.configs.items():
        upstream = model.upstream(role)
        if not section.trainable or section.adapter != WITHOUT:
            continue
        targets = targets_of(upstream, replace(section, adapter="lora", adapter_rank=LORA_RANK))
        blocks = {id(weight) for block in upstream.blocks() for weight in block.parameters()}
        for name, weight in upstream.named_parameters():
            module, _, kind = name.rpartition(".")
            if kind == "weight" and is_target(module, targets) and id(weight) in blocks:
                found.add(f"upstreams.{role}.{name}")
                size += 4 * LORA_RANK * sum(weight.shape)
    return found, size


@contextmanager
def using(model: Model, way: Way) -> Iterator[None]:
    """Have a model's trained upstreams run their blocks again, or not, as a way says; behind it all is as before."""
    upstreams: list[Any] = [form for role, section in model.configs.items() if section.trainable for form in model.forms(role)]
    able = [upstream for upstream in upstreams if hasattr(upstream, "recomputes")]
    before, mode = [upstream.recomputes for upstream in able], model.training
    try:
        for upstream in able:
            upstream.recomputes = way.checkpointing
        model.train()
        yield
    finally:
        for upstream, was in zip(able, before, strict=True):
            upstream.recomputes = was
        model.train(mode)


def count(
    passes: Passes, task: TaskData, piece: Sequence[Example], trained: set[str], times: int, device: torch.device
) -> Counted | None:
    """Return what a piece takes, in a step of as many; None where the model looks at values."""
    from torch._subclasses import fake_tensor

    stored = {role: layers.layers(piece) for role, layers in task.source.stored.items()}
    state, live = torch.get_rng_state(), LiveBytes()
    try:
        with without_numbers(fake_tensor.FakeTensor), fake_tensor.FakeTensorMode(allow_non_fake_inputs=True):

            def without_values(value: Tensor, name: str) -> Tensor:
                """Return a tensor of a shape; that of a trained weight gets a gradient."""
                made = torch.empty(value.shape, dtype=value.dtype, device=device)
                live.leave_out(made)
                if name in trained:
                    live.keep_gradient_of(made.requires_grad_())
                return made

            values = {f"model.{name}": without_values(value, name) for name, value in passes.model.named_parameters()}
            values |= {f"model.{name}": without_values(value, "") for name, value in passes.model.named_buffers()}
            batch = shape_of(task, piece, device, stored)
            with live:
                for _ in range(times):
                    torch.func.functional_call(passes, values, (task.name, batch, device))
    except (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException):
        return None
    finally:
        torch.set_rng_state(state)
        gc.collect()
    return Counted(live.peak_without_gradients, live.peak)


@contextmanager
def without_numbers(kind: type) -> Iterator[None]:
    """Let a spectrogram that numpy computes be one of silence, and draw nothing where dropout draws by numpy."""
    with (
        patch.object(kind, "numpy", lambda value: np.zeros(value.shape, np.float32), create=True),
        patch.object(cpu_dropout, "_seed", lambda: 0),
        patch.object(cpu_dropout, "_kept", lambda shape, p, draws: torch.empty(*shape, dtype=torch.int8)),  # noqa: ARG005
    ):
        yield


def shape_of(task: TaskData, piece: Sequence[Example], device: torch.device, stored: Mapping[str, Any]) -> Batch:
    """Return a batch of a piece's shape, its audio without values."""
    lengths = tuple(max(int(example.seconds * SAMPLE_RATE), 1) for example in piece)
    if len({*lengths}) == 1 < len(lengths):  # what is padded takes more: masks, and norms row by row
        lengths = (*lengths[:-1], max(int(0.98 * lengths[-1]), 1))
    made = Batch(
        torch.empty(len(piece), max(lengths), device=device) if task.source.uses_audio else None,
        lengths if task.source.uses_audio else (),
        ids=tuple(example.utterance.id for example in piece),
        texts=tuple(example.utterance.text for example in piece),
        targets=tuple(example.target for example in piece),
        stored=stored,
        draws=tuple(example.draw for example in piece),
    )
    return made.to(device)


def longest_pieces(
    tasks: Sequence[TaskData], training: TrainingConfig, processes: int, seed: int
) -> tuple[TaskData, list[list[Example]]]:
    """Return the task with the largest piece that a process can get, and the pieces of such a step."""
    found = []
    for task in tasks:
        longest = sorted(task.splits["train"], key=lambda example: -example.seconds)[: -(-task.batch_size // processes)]
        own = derive_seed(seed, task.name)
        step = [training_example(task, example, place, own, 0) for place, example in enumerate(longest)]
        pieces = [step] if task.expert.loss_needs == "whole_batch" else task.source.pieces(step, training)
        found.append((task, pieces))
    task, pieces = max(found, key=lambda pair: max(map(padded_seconds, pair[1])))
    return task, pieces if len(tasks) == 1 else [*pieces, *pieces]  # of several tasks, gradients are there before


def padded_seconds(piece: Sequence[Example]) -> float:
    """Return the seconds of audio in a piece, its padding among them."""
    return len(piece) * max(example.seconds for example in piece)


def described(piece: Sequence[Example], pieces: int) -> str:
    """Return what a piece is, for people."""
    longest = max(example.seconds for example in piece)
    return f"{len(piece)} utterance{'s' * (len(piece) > 1)} of up to {longest:.1f} s" + f", {pieces} pieces a step" * (pieces > 1)


def way_of(training: TrainingConfig, bits: int, processes: int) -> Way:
    """Return the way that a config says."""
    sharded = training.shard and processes > 1
    return Way("as set", training.gradient_checkpointing, training.precision == "bf16", False, bits, processes, sharded)


def cheaper_ways(way: Way, model: Model) -> list[Way]:
    """Return ways that take less memory, those first that change least of what is trained."""
    upstreams = [model.upstream(role) for role, section in model.configs.items() if section.trainable]
    able = all(hasattr(upstream, "recomputes") for upstream in upstreams)
    whole = any(section.trainable and section.adapter == WITHOUT for section in model.configs.values())
    again = replace(way, checkpointing=True)
    ways = [replace(again, name="training.gradient_checkpointing=true")] * (able and not way.checkpointing)
    ways += [replace(way, name="training.precision=bf16", bf16=True)] * (not way.bf16)
    ways += [replace(way, name="optimizer.bits=8", bits=8)] * (way.bits > 8 and not way.shard)
    least = replace(again if able else way, bf16=True, bits=way.bits if way.shard else 8)
    ways += [replace(least, name="all of these")] * (len(ways) > 1)
    ways += [
        replace(way, name=f"--shard, {count} processes", processes=count, shard=True)
        for count in SHARES
        if count > (way.processes if way.shard else 1)
    ]
    if whole and peft_can(model):
        ways += [replace(way, name="upstream.adapter=lora", lora=True)]
        ways += [replace(again, name="lora, checkpointing", lora=True)] * (able and not way.checkpointing)
    return ways


def peft_can(model: Model) -> bool:
    """Return whether LoRA knows the linear layers of what is trained."""
    try:
        return bool(with_lora(model)[0])
    except UserError:
        return False
