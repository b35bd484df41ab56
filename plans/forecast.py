"""What a plan will take: steps, disk and hours, as far as its finished and running runs show."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..core.files import cache_folder, read_json
from ..core.hub import WEIGHTS, is_hub_id
from ..core.run_folder import RunFolder
from ..corpus.tables import TABLES
from ..runs.config.schema import RunConfig, roles_of
from ..upstream.adapters import WITHOUT
from ..upstream.base import UpstreamConfig
from ..upstream.hub.models import configure, encoder_config, family_in, new_model
from ..upstream.load import find_upstream, load_upstream
from .execute import PART, STAGE, Part
from .standing import standing

NUMBER = 4  # bytes
FIRST_STEPS = 50  # after which a pace is believed
FRONT_END = (
    "feature_extractor.",
    "conv1.",
    "conv2.",
    "embed_positions.",
)  # of transformers' models: convolutions, which nobody trains here


@dataclass(frozen=True)
class Outlook:
    """What is left of one part of a plan."""

    runs: int
    done: int
    steps: int  # left, at most: patience may end a run before
    size: float | None  # bytes that its checkpoints will take
    pace: float | None  # seconds a step, dev and saving included

    @property
    def seconds(self) -> float | None:
        """Seconds that are left, at most."""
        return None if self.pace is None else self.steps * self.pace


def outlook(runs: Sequence[Part], folder: Path, others: Mapping[str, Part]) -> Outlook:
    """Return what is left of a part's runs; `others` are all runs of the plan by folder."""
    open_runs = [run for run in runs if not RunFolder(folder / run.name).is_finished]
    stands = {run.name: standing(folder / run.name) for run in runs}
    left = sum(run.config.training.steps - stands[run.name][0] for run in open_runs)
    first = {run.name: FIRST_STEPS if run in open_runs else 1 for run in runs}
    took = [stands[name] for name, needed in first.items() if stands[name][0] >= needed]
    pace = sum(seconds for _, seconds in took) / sum(steps for steps, _ in took) if took else None
    sizes = {run.stage: size_of(run, runs, folder, others) for run in open_runs}
    known = [sizes[run.stage] for run in open_runs]
    size = None if None in known else sum(size for size in known if size is not None)
    return Outlook(len(runs), len(runs) - len(open_runs), left, size, pace)


def size_of(run: Part, runs: Sequence[Part], folder: Path, others: Mapping[str, Part]) -> float | None:
    """Return the bytes of a run's checkpoints: of one that has both, else counted; None where the model is not here."""
    for twin in (other for other in runs if other.stage == run.stage):
        there = RunFolder(folder / twin.name)
        files = [there.best, there.last]
        if all(file.is_file() for file in files):
            return float(sum(file.stat().st_size for file in files))
    size = 0.0
    whole = (section for section in models_of(run, others) if section.trainable and section.adapter == WITHOUT)
    for section in whole:  # adapters are small
        counts = count_weights(section)
        if counts is None:
            return None
        size += NUMBER * 2 * sum(counts)  # all in the best and the last checkpoint, Adam's two moments of what is trained
    return size


def models_of(run: Part, others: Mapping[str, Part]) -> list[UpstreamConfig]:
    """Return a run's upstreams, one that is another run's as the model which that one was made from."""
    found = []
    for role, section in roles_of(run.config).items():
        source = run
        while section.name in source.needs:
            source = others[source.needs[section.name]]
            below = roles_of(source.config).get(role, UpstreamConfig())
            section = replace(below, trainable=section.trainable, adapter=section.adapter)
        found.append(section)
    return found


def count_weights(section: UpstreamConfig) -> tuple[int, int] | None:
    """Return how many weights a finetuned upstream has and trains, without loading any; None where nothing here says."""
    row = find_upstream(section)
    if row.source == "built in":
        upstream = load_upstream(section)
        count = sum(weight.numel() for weight in upstream.parameters())
        return count, count - sum(weight.numel() for part in upstream.front_end() for weight in part.parameters())
    described = described_model(section, row.source)
    if described is None:
        return None
    family = family_in(described["model_type"])
    if family is None:
        return None
    described = encoder_config(described, family.inside.get(described["model_type"]), Path(section.path or row.source))
    settings = configure(family.model_class.config_class.from_dict(described), section)
    setattr(settings, family.count, section.keep_layers or getattr(settings, family.count))
    with torch.device("meta"):
        weights = {name: weight.numel() for name, weight in new_model(settings).named_parameters()}
    return sum(weights.values()), sum(count for name, count in weights.items() if not name.startswith(FRONT_END))


def described_model(section: UpstreamConfig, source: str) -> dict[str, Any] | None:
    """Return the config.json of a model that is on this machine; None: it is not, or does not say what it is."""
    from huggingface_hub import try_to_load_from_cache

    folder = Path(section.path or section.name).expanduser()
    found = folder / "config.json" if folder.is_dir() else None
    if found is None and is_hub_id(source):
        cached = try_to_load_from_cache(source, "config.json")
        found = Path(cached) if isinstance(cached, str) else None
    described = read_json(found) if found is not None and found.is_file() else {}
    return described if "model_type" in described else None


def missing_weights(run: Part, folder: Path | None = None) -> dict[str, str]:
    """Return the hub ids, by upstream, whose weights this machine lacks for a run; one finished in `folder` needs none."""
    from huggingface_hub import try_to_load_from_cache

    if folder is not None and RunFolder(folder / run.name).is_finished:
        return {}
    found: dict[str, str] = {}
    for section in roles_of(run.config).values():
        if section.name.startswith((PART, STAGE)) or section.path is not None:
            continue
        hub_id = find_upstream(section).source
        if is_hub_id(hub_id) and not Path(hub_id).expanduser().is_dir():
            there = (isinstance(try_to_load_from_cache(hub_id, name), str) for name in WEIGHTS)
            found |= {} if any(there) else {section.name: hub_id}
    return found


def missing_transcripts(config: RunConfig) -> str:
    """Return how a recogniser's transcripts are made, where this machine has none by it, of any corpus; else nothing."""
    corpus = config.only.corpus
    source = corpus.transcripts
    if source is None or Path(source).suffix.lower() in TABLES or not config.text_upstream.name:
        return ""
    model, language = re.sub(r":[a-z]{2,}$", "", source), (re.findall(r":([a-z]{2,})$", source) or [""])[0]
    for path in (cache_folder() / "transcripts").glob("*.jsonl"):
        with path.open("rb") as file:
            first = file.readline()
        if json.loads(first).get("about", {}).get("model") == model:
            return ""
    where = "--demo" if corpus.demo else f"--data {corpus.data}" if corpus.data else ""
    spoken = f" --language {language}" if language else ""
    command = " ".join(["headwater corpus transcribe", corpus.name, *[where] * bool(where), "--model", model]) + spoken
    return f"transcripts by {model} are not here: `{command}`"
