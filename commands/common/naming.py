"""Which folder a run goes to: the same command, the same folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import UserError

if TYPE_CHECKING:
    from ...plans.execute import Part
    from ...runs.config.schema import RunConfig
    from ...upstream.base import UpstreamConfig


def folder_of(flags: Namespace, config: RunConfig, parts: Sequence[Part]) -> Path:
    """Return where the run goes: as typed, or a name that the same command always gives."""
    from ...core.run_folder import RunFolder

    if flags.expname and flags.expdir:
        raise UserError("Expected one folder for the run, found both -n and -p. Leave one out.")
    marks = "".join(f"-{mark}" for mark in expected_marks(config))
    if flags.expdir:
        folder = Path(flags.expdir)
    elif flags.expname:
        folder = Path("result") / "downstream" / (flags.expname + marks)
    else:
        folder = Path("result") / "downstream" / (default_name(config, parts) + marks)
    if flags.again and RunFolder(folder).result.is_file():
        others = (folder.with_name(f"{folder.name}-{number}") for number in range(2, 10_000))
        folder = next(other for other in others if not RunFolder(other).result.is_file())
    return folder


def default_name(config: RunConfig, parts: Sequence[Part]) -> str:
    """Return task, upstream and corpus in words, and the rest of the command as a short hash."""
    from ...runs.config.identity import identity_of
    from ...runs.config.schema import roles_of

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
    from ...runs.config.schema import roles_of

    return ["DEMO"] * any(task.corpus.demo for task in config.tasks.values()) + ["UNTRAINED"] * any(
        is_untrained(row.name) for row in roles_of(config).values()
    )


def is_untrained(upstream: str) -> bool:
    """Return whether an upstream, or the run that it is, began with random weights."""
    from ...core.run_folder import RunFolder
    from ...upstream.load import list_upstreams

    run = RunFolder(Path(upstream))
    if run.identity.is_file():
        return "UNTRAINED" in run.read().identity().get("marks", [])
    return any(row.untrained for row in list_upstreams(upstream) if row.name == upstream)
