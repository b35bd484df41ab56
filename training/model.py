"""One run's upstreams, weighted sums and experts; what is frozen is decided here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.errors import UserError
from ..corpus.batch import Batch
from ..downstream.base import Expert, Output
from ..downstream.masks import MasksConfig, mask
from ..upstream.adapters import WITHOUT, belongs_to_adapter, train_adapter_only
from ..upstream.base import Frames, Layers, Role, Upstream, UpstreamConfig
from ..upstream.statistics import STATISTICS, pooled_layers
from ..upstream.weighted_sum import WeightedSum
from .config import OptimizerConfig
from .parts import as_part

SHARED = "all"  # where a weighted sum that all tasks share stands in a checkpoint


class Model(nn.Module):
    """Upstreams by role, and for each task its weighted sums and its expert."""

    def __init__(
        self,
        upstreams: Mapping[Role, Upstream],
        experts: Mapping[str, Expert],
        configs: Mapping[Role, UpstreamConfig],
        *,
        shares_sums: bool = False,
        standardizes: bool = False,
        masks: MasksConfig | None = None,
        own_upstreams: Mapping[str, Mapping[Role, Upstream]] | None = None,
    ) -> None:
        super().__init__()
        self.upstreams = nn.ModuleDict({str(role): upstream for role, upstream in upstreams.items()})
        # task -> role -> the upstream with an adapter of the task's own, over the weights of the one above
        of_tasks = {task: {str(role): own for role, own in roles.items()} for task, roles in (own_upstreams or {}).items()}
        self.own = nn.ModuleDict({task: nn.ModuleDict(roles) for task, roles in of_tasks.items()})
        self.experts = nn.ModuleDict(experts)
        # role -> how its layers are used
        self.configs: dict[str, UpstreamConfig] = {str(role): config for role, config in configs.items()}
        self.standardizes = standardizes  # each layer before the sum, by mean and scale of the training split
        self.shares_sums = shares_sums  # one weighted sum of each role for all tasks
        self.sharded = False  # upstreams' weights lie in parts on several processes: `sharding.shard`
        self.masks = masks or MasksConfig()  # of audio's frames, between the weighted sum and the expert
        for name, expert in experts.items():
            if self.masks.is_on and expert.pools.get("audio") not in (None, "mean"):
                raise UserError(
                    f"Expected a head over frames beside masks, found that '{name}' pools {expert.pools['audio']} of each layer "
                    "first. Leave the masks out, or use pooling=mean."
                )
        used = {task: tuple(role for role in expert.roles if role not in expert.takes) for task, expert in experts.items()}
        if shares_sums:
            used = {SHARED: tuple(role for role in self.configs if any(role in roles for roles in used.values()))}
        self.sums = nn.ModuleDict({task: self._weighted_sums(roles, experts.get(task)) for task, roles in used.items()})
        self._freeze()

    def _weighted_sums(self, roles: Sequence[str], of: Expert | None) -> nn.ModuleDict:
        sums = {}
        for role in roles:
            layers = self.upstream(role).spec.num_layers if self.configs[role].layer is None else 1
            dim = self.standard_dim(role, of) if self.standardizes else None
            sums[role] = WeightedSum(layers, normalize=self.configs[role].normalize_layers, standard_dim=dim)
        return nn.ModuleDict(sums)

    def standard_dim(self, role: str, expert: Expert | None) -> int:
        """Return how many numbers an expert gets of each layer of a role."""
        assert expert is not None, "a weighted sum that several tasks share has no training split to standardise by"
        return self.upstream(role).spec.dim * STATISTICS.get(expert.pools.get(role) or "mean", 1)

    def _freeze(self) -> None:
        for role, config in self.configs.items():
            self.upstream(role).requires_grad_(False)
            for upstream in self.forms(role):
                upstream.requires_grad_(config.trainable)
                for part in upstream.front_end():
                    part.requires_grad_(config.trainable and config.front_end == "trained")
                if config.adapter != WITHOUT:
                    train_adapter_only(upstream, config.adapter)
        for module in self.sums.modules():
            if isinstance(module, WeightedSum):
                module.requires_grad_(module.num_layers > 1)

    def upstream(self, role: str, task: str | None = None) -> Upstream:
        """Return the upstream of a role, or that of a task, which may have an adapter of its own."""
        of_task = cast(nn.ModuleDict, self.own[task]) if task is not None and task in self.own else self.upstreams
        return cast(Upstream, of_task[role] if role in of_task else self.upstreams[role])

    def forms(self, role: str) -> list[Upstream]:
        """Return the upstreams of a role that compute anything: one, or one for each task."""
        own = [self.upstream(role, task) for task in self.own if role in cast(nn.ModuleDict, self.own[task])]
        return own or [self.upstream(role)]

    def weights_of_task(self, task: str) -> list[nn.Parameter]:
        """Return the weights that a task alone trains."""
        parts = [part[task] for part in (self.experts, self.sums, self.own) if task in part]
        return [weight for part in parts for weight in part.parameters() if weight.requires_grad]

    def expert(self, task: str) -> Expert:
        """Return the expert of a task."""
        return cast(Expert, self.experts[task])

    def summed(self, task: str) -> list[str]:
        """Return the roles of which a task gets a weighted sum."""
        return [role for role in self.expert(task).roles if role not in self.expert(task).takes]

    def weighted_sum(self, task: str, role: str) -> WeightedSum:
        """Return the weighted sum that a task uses of a role's layers."""
        return cast(WeightedSum, cast(nn.ModuleDict, self.sums[SHARED if self.shares_sums else task])[role])

    def train(self, mode: bool = True) -> Model:
        """Set the mode; a frozen upstream stays in eval mode."""
        super().train(mode)
        for role, config in self.configs.items():
            for upstream in self.forms(role):
                upstream.train(mode and config.trainable)
        return self

    def forward(self, task: str, batch: Batch) -> tuple[Tensor, Output]:
        """Return the mean loss over the batch, and the expert's output."""
        output = self.output_of(task, batch)
        return self.expert(task).loss(output, batch), output

    def output_of(self, task: str, batch: Batch, without: Sequence[str] = ()) -> Output:
        """Return the expert's output, if need be without an optional role; no label is needed."""
        expert = self.expert(task)
        frames = {role: self._frames(task, role, batch) for role in expert.roles if role not in without}
        return expert(frames)

    def layers(self, role: str, batch: Batch, views: int = 1, task: str | None = None) -> Layers:
        """Return the upstream's layers for a batch (of a task), stored or computed."""
        if role in batch.stored:
            return batch.stored[role]
        config = self.configs[role]
        wanted = None if config.layer is None else [self.layer_index(role)]
        with nullcontext() if config.trainable else torch.no_grad():
            return self.upstream(role, task)(batch, views=views, layers=wanted)

    def layer_index(self, role: str) -> int:
        """Return the chosen layer, counted from the front."""
        layer, count = self.configs[role].layer, self.upstream(role).spec.num_layers
        assert layer is not None, f"no layer was chosen of '{role}'"
        return layer % count

    def taken(self, expert: Expert, role: str, batch: Batch, task: str | None = None) -> Layers:
        """Return the layers that an expert takes as they are."""
        if role in batch.stored:
            return batch.stored[role]
        count = self.upstream(role).spec.num_layers
        hidden = expert.hide(batch) if role == "audio" else None
        with nullcontext() if self.configs[role].trainable else torch.no_grad():
            layers = self.upstream(role, task)(batch, masked=hidden, layers=[layer % count for layer in expert.takes[role]])
        return replace(layers, masked=hidden)

    def _frames(self, task: str, role: str, batch: Batch) -> Any:
        views = self.expert(task).views if self.training else 1
        if role in self.expert(task).takes:
            return self.taken(self.expert(task), role, batch, task)
        layers, statistics = self.layers(role, batch, views, task), self.expert(task).pools.get(role)
        if statistics is not None and (statistics != "mean" or self.standardizes):
            layers = pooled_layers(layers, statistics)
        frames: Frames = self.weighted_sum(task, role)(layers)
        if len(frames.lengths) < views * len(batch):  # frozen or stored: computed once, and used twice by the head
            frames = Frames(frames.values.repeat(views, 1, 1), frames.lengths * views, frames.pooled)
        return mask(frames, self.masks) if self.training and role == "audio" else frames

    def trained_state(self) -> dict[str, Tensor]:
        """Return the weights that a checkpoint holds: experts, weighted sums, upstreams that are finetuned or their adapters."""
        return {key: value for key, value in self.state_dict().items() if self._is_trained(key)}

    def _is_trained(self, key: str) -> bool:
        kind, role, name = (*key.split(".", 2), "", "")[:3]
        if kind == "own":
            role, name = name.split(".", 1)
        elif kind != "upstreams":
            return True
        elif self.forms(role) != [self.upstream(role)]:  # its adapters are the tasks'
            return False
        config = self.configs[role]
        return config.trainable and (config.adapter == WITHOUT or belongs_to_adapter(name, config.adapter))

    def load_trained_state(self, state: Mapping[str, Tensor], where: str) -> None:
        """Take the weights of a checkpoint; every key must be there, and no other."""
        expected = self.trained_state()
        # of an exported run a checkpoint holds frozen upstreams too
        state = {renamed(key): value for key, value in state.items() if self._is_trained(key)}
        problems = sorted({*expected} ^ {*state}) or [key for key in expected if expected[key].shape != state[key].shape]
        if problems:
            raise UserError(
                f"Expected the weights of this model in '{where}', found a mismatch at '{problems[0]}' ({len(problems)} in all). "
                "Name a run of the same upstream, task and number of classes."
            )
        self.load_state_dict({key: as_part(value, expected[key]) for key, value in state.items()}, strict=False)

    def parameter_groups(self, config: OptimizerConfig) -> list[dict]:
        """Return the optimizer's groups: heads, layer weights, and finetuned upstreams by depth."""
        weights_lr = config.lr if config.weights_lr is None else config.weights_lr
        groups = [_group(self.experts.parameters(), config.lr), _group(self.sums.parameters(), weights_lr)]
        for role, section in self.configs.items():
            rate = config.upstream_lr if section.adapter == WITHOUT else config.adapter_lr
            for upstream in self.forms(role):
                groups += _by_depth(upstream, rate, config.layer_decay)
        return [group for group in groups if group["params"]]


def weights_of_task(tensors: Mapping[str, Tensor], name: str, called: str) -> dict[str, Tensor]:
    """Return what a checkpoint holds of the upstreams and of one task `name`, which becomes `called`."""
    kept = {}
    for key, value in tensors.items():
        kind, owner, rest = (*key.split(".", 2), "", "")[:3]
        if kind == "upstreams" or owner == SHARED:
            kept[key] = value
        elif owner == name:
            kept[f"upstreams.{rest}" if kind == "own" else f"{kind}.{called}.{rest}"] = value
    return kept


def renamed(key: str) -> str:
    """Return a weight's name of today for one of before experts had a branch for each modality."""
    for before, now in (("head.projector.", "fusion.branches.audio.projector."), ("head.classifier.", "classifier.")):
        key = key.replace(f"experts.emotion.{before}", f"experts.emotion.{now}")
    return key


def check_device(name: str) -> None:
    """Refuse a device that nobody has, or that this machine lacks."""
    kind, _, number = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (number and (kind == "mps" or not number.isdecimal())):
        raise UserError(f"Expected --device cpu, cuda, cuda:N or mps, found '{name}'. Leave it out to take what is there.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "Expected a Mac's GPU that torch can use for --device mps, found none. Leave it out, or use --device cpu."
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "cuda" and int(number or 0) >= count:
        found = f"{count} of them" if count else "none"
        raise UserError(f"Expected a CUDA device for --device {name}, found {found}. Leave it out, or use --device cpu.")


def _group(parameters: Iterable[nn.Parameter], rate: float) -> dict:
    return {"params": [parameter for parameter in parameters if parameter.requires_grad], "lr": rate, "base_lr": rate}


def _by_depth(upstream: Upstream, rate: float, decay: float) -> list[dict]:
    """The top block trains at `rate`, each one below at `decay` times the one above; what is under the blocks last."""
    blocks: Sequence[nn.Module] = upstream.blocks()
    groups = [_group(block.parameters(), rate * decay ** (len(blocks) - 1 - depth)) for depth, block in enumerate(blocks)]
    in_blocks = {id(parameter) for block in blocks for parameter in block.parameters()}
    rest = [parameter for parameter in upstream.parameters() if id(parameter) not in in_blocks]
    return [*groups, _group(rest, rate * decay ** len(blocks))]
