"""Which code a run was made with."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder
from .code import find
from .registry import FLAGS, REGISTRIES, SECTIONS, Kind, points_of, sources_of


def identity_of_code(names: Mapping[str, str]) -> dict[str, Any]:
    """Return `code`: by what it is there (task, audio, text), the hash of what was typed, a task's package with its version."""
    codes = {key: code_of(key, name) for key, name in names.items()}
    found = {key: code for key, code in codes.items() if code}
    return {"code": found} if found else {}


def code_of(key: str, name: str) -> str:
    """Return what is recorded of one name: of an upstream only typed code, since its weights' hash says the rest."""
    registry = REGISTRIES.get(kind_of(key))
    origin = None if registry is None else registry.origin(name)
    if origin is None or (origin.kind == "installed" and key in SECTIONS):
        return ""
    return origin.code


def kind_of(key: str) -> Kind:
    """Return the kind behind task, audio, text, or `task.NAME`."""
    return "upstream" if key in SECTIONS else "task"


def refuse_other_code(
    folder: Path, recipe: Mapping[str, Any], flags: Mapping[str, str] = FLAGS, keys: Collection[str] | None = None
) -> None:
    """Refuse a run of own code that was not typed, or that is not what the run was trained with.

    `flags` says what to type it after, `keys` what is needed of the run (task, audio, text); None: all of it.
    """
    run = RunFolder(folder)
    digests = run.read().identity().get("code", {}) if run.identity.is_file() else {}
    for key, digest in digests.items():
        if keys is not None and key.partition(".")[0] not in keys:
            continue
        kind, name = kind_of(key), _name_in(recipe, key)
        if not re.fullmatch("[0-9a-f]{64}", str(digest)):
            refuse_other_package(folder, name, str(digest))
            continue
        code, flag = find(kind, name), flags.get(key.partition(".")[0], "--use")
        if code is None:
            raise UserError(
                f"Expected the code of the {kind} '{name}' that '{folder}' was trained with, found no path to it: only a path "
                f"that you type is executed. Add {flag} PATH" + (" (or --use PATH)." if flag != "--use" else ".")
            )
        if code.digest != digest:
            raise UserError(
                f"Expected the code of the {kind} '{name}' that '{folder}' was trained with ({digest[:8]}), found other code in "
                f"'{code.path}' ({code.digest[:8]}). Bring the former back, or train again."
            )


def refuse_other_package(folder: Path, task: str, package: str) -> None:
    """Refuse a run whose task came from a package that is not here, or is here in another version."""
    typed, there = find("task", task), " and ".join(sources_of(points_of("task").get(task, [])))
    if typed is not None or there != package:
        found = f"that of '{typed.path}'" if typed else there or "none of that name"
        wanted = package.replace(" ", "==")
        raise UserError(
            f"Expected the task '{task}' of the package {package} that '{folder}' was trained with, found {found}. "
            f"Install it (pip install {wanted})" + (", or train again." if there else ".")
        )


def _name_in(recipe: Mapping[str, Any], key: str) -> str:
    """Return what a run calls its task, one of its tasks (`task.NAME`), or the upstream of a role."""
    if key in SECTIONS:
        return str((recipe.get(SECTIONS[key]) or {}).get("name", ""))
    if key == "task":
        return str(recipe.get("task", ""))
    name = key.partition(".")[2]
    return str(((recipe.get("tasks") or {}).get(name) or {}).get("task", name))
