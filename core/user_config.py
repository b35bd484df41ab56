"""The user's config file: where corpora lie, and what a cluster is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError


def config_file() -> Path:
    """Return the user's config file: $HEADWATER_CONFIG, or headwater.yaml in the user's config folder."""
    chosen = os.environ.get("HEADWATER_CONFIG")
    return Path(os.path.expanduser(chosen or "~/.config/headwater.yaml"))  # without a home it stays a ~, where nothing lies


def configured(section: str, example: str) -> Mapping[str, Any]:
    """Return a section of the user's config file, nothing where there is no such file or section."""
    path = config_file()
    if not os.path.isfile(path):  # nor where its folder is closed to this user
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Expected yaml such as '{example}' in {path}, found: {' '.join(str(error).split())}. Mend it."
        ) from error
    found = content.get(section, {}) if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise UserError(f"Expected yaml such as '{example}' in {path}, found something else. Mend or remove it.")
    return found
