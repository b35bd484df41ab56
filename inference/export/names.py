"""Names of models and runs that mean something on other machines, too."""

from __future__ import annotations

import re
from pathlib import Path

from ...core.sharing.names import is_hub_name

_FROM = re.compile(r"(?P<run>.+) \(from (?P<model>.+)\)")  # the source of an upstream that is a run's


def plain_name(name: str) -> str:
    """Return a model's name; of a folder on this machine its last part."""
    if is_hub_name(name):
        return name
    # a hub id, s3prl/NAME and a built-in name have one stroke at most; what lies here may not be seen from here now
    is_place = name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).expanduser().exists()
    return Path(name).name if is_place else name


def plain_source(source: str) -> str:
    """Return where an upstream comes from, without the folders of this machine: of a run's, both the run and its model."""
    found = _FROM.fullmatch(source)
    if not found:
        return plain_name(source)
    run = found["run"] if is_hub_name(found["run"]) else Path(found["run"]).name
    return f"{run} (from {plain_name(found['model'])})"
