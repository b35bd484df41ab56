"""Names of models and runs that mean something on other machines, too."""

from __future__ import annotations

import re
from pathlib import Path

_FROM = re.compile(r"(?P<run>.+) \(from (?P<model>.+)\)")  # the source of an upstream that is a run's


def plain_name(name: str) -> str:
    """Return a model's name; of a folder on this machine its last part."""
    # a hub id, s3prl/NAME and a built-in name have one stroke at most; what lies here may not be seen from here now
    is_place = name.startswith(("/", ".", "~")) or name.count("/") > 1 or Path(name).expanduser().exists()
    return Path(name).name if is_place else name


def plain_source(source: str) -> str:
    """Return where an upstream comes from, without the folders of this machine: of a run's, both the run and its model."""
    found = _FROM.fullmatch(source)
    return f"{Path(found['run']).name} (from {plain_name(found['model'])})" if found else plain_name(source)
