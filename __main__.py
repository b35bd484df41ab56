"""The command: `headwater VERB`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from headwater.commands.common.console import print_result
from headwater.commands.common.hints import unknown_verb
from headwater.commands.common.shell import run_command

# verb -> its file in commands/; nothing heavy is imported before a verb runs
VERBS = {
    "downstream": "headwater.commands.downstream",
    "mtl": "headwater.commands.mtl",
    "recipe": "headwater.commands.recipe",
    "qbe": "headwater.commands.qbe",
    "predict": "headwater.commands.use.predict",
    "serve": "headwater.commands.use.serve",
    "app": "headwater.commands.use.app",
    "export": "headwater.commands.use.export",
    "push": "headwater.commands.use.push",
    "import": "headwater.commands.use.import_",
    "merge": "headwater.commands.use.merge",
    "status": "headwater.commands.status",
    "compare": "headwater.commands.compare",
    "audit": "headwater.commands.audit",
    "report": "headwater.commands.report",
    "plot": "headwater.commands.plot",
    "list": "headwater.commands.list_",
    "check": "headwater.commands.check",
    "store": "headwater.commands.store",
    "extract": "headwater.commands.extract",
    "corpus": "headwater.commands.corpus",
    "completion": "headwater.commands.completion",
}
GROUPS = {
    "train": ("downstream", "mtl", "recipe"),
    "search": ("qbe",),
    "use": ("predict", "serve", "app", "export", "push", "import", "merge"),
    "look": ("status", "compare", "audit", "report", "plot"),
    "look after": ("list", "check", "store", "extract", "corpus", "completion"),
}


def help_text() -> str:
    """Return what each verb does, with an example, group by group."""
    lines = ["usage: headwater VERB …", "", "How well does a speech model solve my tasks, and which of its layers matter?"]
    for group, verbs in GROUPS.items():
        lines += ["", f"{group}:"]
        for verb in verbs:
            command = import_module(VERBS[verb])
            lines += [f"  {verb:<11} {command.HELP}", f"  {'':<11} {command.EXAMPLE}"]
    return "\n".join([*lines, "", "`headwater VERB --help` shows the flags of a verb."])


def dispatch(arguments: Sequence[str]) -> int:
    """Run the verb that the first word names."""
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print_result(help_text())
        return 0
    if arguments[0] in {"-V", "--version"}:
        from headwater import __version__

        print_result(f"headwater {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise unknown_verb(verb, rest, [*VERBS])
    return import_module(VERBS[verb]).main(rest)


def main() -> int:
    """Enter from the console script and from `python -m headwater`."""
    return run_command(dispatch)


if __name__ == "__main__":
    sys.exit(main())
