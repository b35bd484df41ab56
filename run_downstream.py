"""One task: train it, evaluate it. `python run_downstream.py -u hubert -d emotion`"""

from __future__ import annotations

import sys

try:
    from headwater.commands import downstream
    from headwater.commands.common.shell import run_command
except ModuleNotFoundError as problem:
    if problem.name != "headwater":
        raise
    print(
        "error: Expected headwater to be installed, found its clone alone. Run: pip install -c constraints.txt -e '.[demo]'",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(run_command(lambda arguments: downstream.main(arguments, prog="python run_downstream.py")))
