"""The command: `headwater VERB`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from headwater.commands.common.shell import run_command
from headwater.core.errors import UserError, nearest

# verb -> its file in commands/; nothing heavy is imported before a verb runs
VERBS = {
    "downstream": "headwater.commands.downstream",
    "upstreams": "headwater.commands.upstreams",
    "corpus": "headwater.commands.corpus",
    "mtl": "headwater.commands.mtl",
    "recipe": "headwater.commands.recipe",
    "check": "headwater.commands.check",
    "predict": "headwater.commands.predict",
    "export": "headwater.commands.export",
    "layer-weights": "headwater.commands.layer_weights",
    "geometry": "headwater.commands.geometry",
    "relations": "headwater.commands.relations",
    "report": "headwater.commands.report",
    "compare": "headwater.commands.compare",
    "doctor": "headwater.commands.doctor",
    "store": "headwater.commands.store",
    "import": "headwater.commands.import_",
}


def help_text() -> str:
    """Return what each verb does, with an example."""
    lines = ["usage: headwater VERB …", "", "How well does a speech model solve my tasks, and which of its layers matter?", ""]
    for verb, module in VERBS.items():
        command = import_module(module)
        lines += [f"  {verb:<14} {command.HELP}", f"  {'':<14} {command.EXAMPLE}", ""]
    return "\n".join([*lines, "`headwater VERB --help` lists a verb's flags."])


def dispatch(arguments: Sequence[str]) -> int:
    """Run the verb that the first word names."""
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(help_text())
        return 0
    if arguments[0] in {"-V", "--version"}:
        from headwater import __version__

        print(f"headwater {__version__}")
        return 0
    if arguments[0] not in VERBS:
        raise UserError(f"There is no verb '{arguments[0]}'.{nearest(arguments[0], VERBS)} There are: {', '.join(VERBS)}.")
    return import_module(VERBS[arguments[0]]).main(arguments[1:])


def main() -> int:
    """Enter from the console script and from `python -m headwater`."""
    return run_command(dispatch)


if __name__ == "__main__":
    sys.exit(main())
