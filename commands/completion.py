"""Print what lets a shell complete the words of `headwater`: verbs, flags, names of upstreams, tasks, corpora, recipes."""

from __future__ import annotations

from argparse import Action as Flag
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from ..core.errors import UserError, nearest
from .common.console import print_result
from .common.shell import Action, Parser, parser_of

HELP = "print the completion of a shell: verbs, flags, names of upstreams, tasks, corpora and recipes"
EXAMPLE = "headwater completion bash > ~/.local/share/bash-completion/completions/headwater"
# what stands behind a flag -> whose names complete it; anything else is completed as a file
KINDS = {
    "upstream": "upstreams",
    "text_upstream": "upstreams",
    "teacher": "upstreams",
    "downstream": "tasks",
    "tasks": "tasks",
    "corpus": "corpora",
    "config": "recipes",
    "recipe": "recipes",
}


@dataclass(frozen=True)
class Words:
    """What may stand behind a verb, or behind an action of one."""

    flags: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]  # flag -> its values, where these are names
    places: tuple[tuple[str, ...], ...] = ()  # what may stand first, second …: actions, or names


def main(arguments: Sequence[str]) -> int:
    """Print the script of a shell."""
    words = (
        "Print what lets a shell complete the words of `headwater`. Print it again after an update: it holds the names of today."
    )
    parser = Parser("headwater completion", words, f"{EXAMPLE}\n{OTHERS}")
    parser.add_argument("shell", metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    flags = parser.parse_args(arguments)
    if flags.shell not in SHELLS:
        close = nearest(flags.shell, SHELLS)
        raise UserError(f"Expected a shell ({', '.join(SHELLS)}) after `headwater completion`, found '{flags.shell}'.{close}")
    print_result(SHELLS[flags.shell](table()))
    return 0


def table() -> dict[str, Words]:
    """Return what may stand behind each verb, and behind each action of one (`list upstreams`)."""
    from ..__main__ import VERBS

    names, found = known_names(), dict[str, Words]()
    for verb, file in VERBS.items():
        command = import_module(file)
        actions = actions_of(command)
        if not actions:
            found[verb] = words_of(parser_of(command.main), names)
            continue
        found[verb] = Words(("--help",), {}, (actions,))
        found |= {f"{verb} {action}": words_of(parser_of(command.main, action), names) for action in actions}
    found["completion"] = Words(("--help",), {}, (tuple(SHELLS),))
    return found


def actions_of(command: ModuleType) -> tuple[str, ...]:
    """Return the second words of a verb that has actions."""
    tables = [value for value in vars(command).values() if isinstance(value, Mapping) and value]
    return tuple(name for values in tables if all(isinstance(value, Action) for value in values.values()) for name in values)


def known_names() -> dict[str, tuple[str, ...]]:
    """Return the names of everything that flags take by name."""
    from ..corpus.base import CORPORA
    from ..downstream.base import TASKS
    from ..runs.config.recipes import RECIPES
    from ..upstream.load import list_upstreams

    return {
        "upstreams": tuple(row.name for row in list_upstreams()),
        "tasks": tuple(TASKS.names()),
        "corpora": tuple(CORPORA.names()),
        "recipes": tuple(sorted(str(path.relative_to(RECIPES).with_suffix("")) for path in RECIPES.rglob("*.yaml"))),
    }


def words_of(parser: Parser, names: Mapping[str, tuple[str, ...]]) -> Words:
    """Return the flags of a parser, and their values where these have names."""
    actions = parser._actions
    flags = tuple(flag for action in actions for flag in action.option_strings)
    values = {flag: found for action in actions for flag in action.option_strings if (found := values_of(action, names))}
    places = tuple(values_of(action, names) for action in actions if not action.option_strings)
    return Words(flags, values, places if any(places) else ())


def values_of(action: Flag, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the values of a flag that have names."""
    if action.choices is not None:
        return tuple(map(str, action.choices))
    is_path = getattr(action, "only_paths", False)
    return () if is_path else names.get(KINDS.get(action.dest, ""), ())


BASH = """# headwater's completion for bash (zsh takes it, too: headwater completion zsh)
_headwater() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} at="${{COMP_WORDS[1]}}" first=2 words=""
  case " {groups} " in *" $at "*) (( COMP_CWORD > 2 )) && {{ at="$at ${{COMP_WORDS[2]}}"; first=3; }} ;; esac
  if (( COMP_CWORD == 1 )); then
    words="{verbs}"
  else
    case "$at $before" in
{values}
      *) case "$at" in
{flags}
        esac ;;
    esac
  fi
  COMPREPLY=( $(compgen -W "$words" -- "$current") )
}}
complete -o default -F _headwater headwater
"""


def bash(words: Mapping[str, Words]) -> str:
    """Return the script of bash."""
    values: dict[str, list[str]] = {}
    for at, found in words.items():
        for flag, names in found.values.items():
            values.setdefault(" ".join(names), []).append(f'"{at} {flag}"')
    lines = [f'      {"|".join(flags)}) words="{names}" ;;' for names, flags in values.items()]
    rows = []
    for at, found in words.items():
        places = "".join(
            f'(( COMP_CWORD == first + {number} )) && words="{" ".join(names)}"; ' for number, names in enumerate(found.places)
        )
        rows.append(f'        "{at}") {places}[[ $current == -* ]] && words="{" ".join(found.flags)}" ;;')
    groups = " ".join(at for at in words if any(other.startswith(f"{at} ") for other in words))
    verbs = " ".join(at for at in words if " " not in at)
    return BASH.format(groups=groups, verbs=verbs, values="\n".join(lines), flags="\n".join(rows))


def zsh(words: Mapping[str, Words]) -> str:
    """Return the script of zsh: that of bash, through the part of zsh that reads it."""
    return (
        f"# to be sourced by zsh\nautoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n{bash(words)}"
    )


def fish(words: Mapping[str, Words]) -> str:
    """Return the script of fish."""
    return "\n".join(["# headwater's completion for fish", *fish_lines(words)]) + "\n"


def fish_lines(words: Mapping[str, Words]) -> Iterator[str]:
    """Yield a line for each verb, flag and list of values."""
    verbs = [at for at in words if " " not in at]
    yield f"complete -c headwater -f -n __fish_use_subcommand -a '{' '.join(verbs)}'"
    for at, found in words.items():
        verb, _, action = at.partition(" ")
        seen = f"__fish_seen_subcommand_from {verb}" + f"; and __fish_seen_subcommand_from {action}" * bool(action)
        before = len(at.split()) + 1
        for number, names in enumerate(found.places):
            on = f"{seen}; and test (count (commandline -opc)) -eq {before + number}"
            yield f"complete -c headwater -f -n '{on}' -a '{' '.join(names)}'"
        for flag in found.flags:
            kind = "-l " + flag[2:] if flag.startswith("--") else "-s " + flag[1:] if len(flag) == 2 else "-o " + flag[1:]
            values = f" -x -a '{' '.join(found.values[flag])}'" if flag in found.values else ""
            yield f"complete -c headwater -n '{seen}' {kind}{values}"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
OTHERS = """  headwater completion zsh > ~/.headwater.zsh     # and in ~/.zshrc: source ~/.headwater.zsh
  headwater completion fish > ~/.config/fish/completions/headwater.fish"""
