"""Which folder a run goes to, as its flags say."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import UserError

if TYPE_CHECKING:
    from ...plans.execute import Part
    from ...runs.config.schema import RunConfig


def folder_of(flags: Namespace, config: RunConfig, parts: Sequence[Part]) -> Path:
    """Return where the run goes: as typed, or a name that the same command always gives."""
    from ...core.run_folder import RunFolder
    from ...plans.naming import place_of_runs

    if flags.expname and flags.expdir:
        raise UserError("Expected one folder for the run, found both -n and -p. Leave one out.")
    folder = Path(flags.expdir) if flags.expdir else place_of_runs(config, parts, flags.expname or "")
    if flags.again and RunFolder(folder).result.is_file():
        others = (folder.with_name(f"{folder.name}-{number}") for number in range(2, 10_000))
        folder = next(other for other in others if not RunFolder(other).result.is_file())
    return folder
