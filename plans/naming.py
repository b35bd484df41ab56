"""Which folder a run goes to: the same command, the same folder, from the shell and from Python."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..core.run_folder import RunFolder
from ..runs.config.identity import identity_of
from ..runs.config.schema import RunConfig, roles_of
from ..upstream.base import UpstreamConfig
from ..upstream.load import list_upstreams
from .execute import Part
from .scenario import Scenario


def place_of_runs(config: RunConfig, parts: Sequence[Part], name: str = "") -> Path:
    """Return where runs go: below a name of the user's, or one that the same runs always have."""
    marks = "".join(f"-{mark}" for mark in expected_marks(config))
    return Path("result") / "downstream" / ((name or default_name(config, parts)) + marks)


def place_of_scenario(plan: Scenario, name: str = "") -> Path:
    """Return where a plan of joint runs goes: the same for all scenarios of the same tasks, which share their parts."""
    marks = "".join(f"-{mark}" for mark in expected_marks(plan.config))
    identity = {key: value for key, value in identity_of(plan.config).items() if key not in ("select", "baselines", "seed")}
    sections = [section for section in (plan.config.upstream, plan.config.text_upstream) if section.name]
    upstream = "+".join(section.name.strip("./").replace("/", "_") for section in sections)
    short = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
    return Path("result") / "mtl" / ((name or f"{upstream}-{'-'.join(plan.tasks)}-{short}") + marks)


def default_name(config: RunConfig, parts: Sequence[Part]) -> str:
    """Return task, upstream and corpus in words, and the rest of the command as a short hash."""
    # other data or weights under the same words are another command
    sections = roles_of(config).values()
    tasks = config.tasks.values()
    places = [place for task in tasks for place in (task.corpus.data, task.init_head, task.corpus.transcripts)]
    places += [config.steps_from] * bool(config.split)
    places += [place for section in sections for place in (section.path, section.name) if place and is_folder(place)]
    names = (re.sub(r"[^\w.-]+", "_", row.name.strip("./")) + suffix_of(row) for row in sections)
    upstream = "+".join(names)
    typed = [place and os.path.abspath(os.path.expanduser(place)) for place in places]
    identity = json.dumps([*typed, *(identity_of(part.config) for part in parts)], sort_keys=True)
    corpora = "+".join(dict.fromkeys(task.corpus.name for task in tasks))
    return f"{'+'.join(config.tasks)}-{upstream}-{corpora}-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"


def suffix_of(section: UpstreamConfig) -> str:
    """Return how a folder's name says what is trained of an upstream."""
    return f"-{'finetuned' if section.adapter == 'none' else section.adapter}" * section.trainable


def is_folder(name: str) -> bool:
    """Return whether a name leads to a folder."""
    return Path(name).expanduser().is_dir()


def expected_marks(config: RunConfig) -> list[str]:
    """Return the marks that a run will have, before its upstreams are loaded."""
    return ["DEMO"] * any(task.corpus.demo for task in config.tasks.values()) + ["UNTRAINED"] * any(
        is_untrained(row.name) for row in roles_of(config).values()
    )


def is_untrained(upstream: str) -> bool:
    """Return whether an upstream, or the run that it is, began with random weights."""
    run = RunFolder(Path(upstream))
    if run.identity.is_file():
        return "UNTRAINED" in run.read().identity().get("marks", [])
    return any(row.untrained for row in list_upstreams(upstream) if row.name == upstream)
