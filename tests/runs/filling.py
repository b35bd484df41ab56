"""A script for test_stored: runs a recipe and counts the utterances that this process computes; alone or by torchrun."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from headwater.commands.common.shell import run_command
from headwater.core.options import read_yaml
from headwater.runs import features as stored
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime
from headwater.upstream.store.writing import Computed


def main(recipe: str, folder: str, seconds: str = "0") -> int:
    """Run it, each utterance taking so many seconds more, so that others have their share."""
    torch.set_num_threads(1)
    compute, count = stored.compute, 0

    def counted(*arguments: Any) -> Iterator[tuple[int, Computed]]:
        nonlocal count
        for row in compute(*arguments):
            count += 1
            time.sleep(float(seconds) or 0.01)
            yield row

    stored.compute = counted
    run(resolve([read_yaml(recipe)]), Path(folder), Runtime("cpu"))
    Path(f"{folder}.rank{os.environ.get('RANK', '0')}").write_text(str(count))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(lambda arguments: main(*arguments), sys.argv[1:]))
