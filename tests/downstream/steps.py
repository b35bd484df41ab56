"""A script for test_together: the gradients of one step of several recipes; run alone or by torchrun."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from headwater.commands.common.shell import leave_launch
from headwater.downstream.turbo.expert import Turbo

GRADIENTS = Path(__file__).parents[1] / "training" / "gradients.py"


def main(*recipes: str) -> None:
    """Write `x.pt` beside each recipe `x.yaml`, in the folder that the last argument names."""
    one_step = runpy.run_path(str(GRADIENTS))["main"]
    # two processes draw other dropout than one: without any, both views are alike, which a user may not ask for
    Turbo.refuse_equal_views = lambda *_: None  # type: ignore[method-assign]
    *paths, out = map(Path, recipes)
    for path in paths:
        one_step(str(path), str(out / f"{path.stem}.pt"), "0")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_launch()
