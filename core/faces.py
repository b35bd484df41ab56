"""The face of a package: its public names, each imported when it is first used, so that files behind it may move."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

Face = Mapping[str, str]  # file of the package -> its public names, in one line


def public_name(package: str, face: Face, name: str) -> Any:
    """Return a public name of a package, or say which there are."""
    for file, names in face.items():
        if name in names.split():
            return getattr(import_module(f"{package}.{file}"), name)
    known = ", ".join(public_names(face))
    raise AttributeError(f"{package} has no name '{name}'. It has: {known}.")


def public_names(face: Face) -> list[str]:
    """Return all public names of a package."""
    return sorted(name for names in face.values() for name in names.split())
