"""Every verb of the command line, with what `--help` prints."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib import import_module
from unittest.mock import patch

from headwater.__main__ import GROUPS, VERBS
from headwater.commands.common.shell import Action

from .markdown import block

INTRODUCTION = """\
# Every command

`headwater VERB`. In a clone, `python run_downstream.py` is `headwater downstream`, and `python run_mtl.py` is `headwater mtl`.
A mistake is one line and exit code 2; exit code 3 says that some files or parts were passed over.
"""


def page() -> str:
    """Return the page of all verbs."""
    lines = [INTRODUCTION]
    for group, verbs in GROUPS.items():
        lines += [f"## To {group}", ""]
        for verb in verbs:
            command = import_module(VERBS[verb])
            lines += [f"### headwater {verb}", "", f"{command.HELP[0].upper()}{command.HELP[1:]}.", ""]
            for action in actions_of(command):
                lines += [f"`headwater {verb} {action}`:" if action else "", *block(help_of(command.main, action)), ""]
    return "\n".join(lines)


def actions_of(command: object) -> Sequence[str]:
    """Return the second words of a verb that has actions; of any other, one empty word."""
    tables = [value for value in vars(command).values() if isinstance(value, Mapping) and value]
    found = [name for values in tables if all(isinstance(value, Action) for value in values.values()) for name in values]
    return found or [""]


def help_of(main: Callable[[Sequence[str]], int], action: str) -> str:
    """Return what a verb prints after --help, 100 characters wide."""
    printed = io.StringIO()
    with patch.dict(os.environ, COLUMNS="100"), redirect_stdout(printed), suppress(SystemExit):
        main([*filter(None, [action]), "--help"])
    return printed.getvalue()
