"""What all commands share: a parser whose errors help, and one line for every mistake."""

from __future__ import annotations

import argparse
import codecs
import errno
import io
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

from ...core.errors import UserError, nearest
from ...core.process import end_with_parent
from ...core.trust import CHECKPOINTS
from ...plugins.code import is_path, use
from ...plugins.registry import Kind
from .console import print_error, print_note, print_result
from .hints import Retired, instead_of_flag, refuse_retired


class TypedPath(argparse.Action):
    """A flag after which the user may type a path to their own code: it is executed here, and its name takes its place."""

    def __init__(self, *arguments: Any, kind: Kind | None = None, only_paths: bool = False, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kind, self.only_paths = kind, only_paths

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:  # noqa: ARG002
        """Execute what is a path, and keep the names; what may be left out comes as None."""
        if values is None:
            return
        typed = str(values).split(",") if self.kind == "task" else [str(values)]  # --tasks takes several
        words = [self.named(word, option_string) for word in typed]
        setattr(namespace, self.dest, ",".join(words))

    def named(self, word: str, flag: str | None) -> str:
        """Return what a word stands for."""
        if self.kind is None or is_path(word, self.kind):
            return use(word, self.kind).name
        if self.only_paths:
            raise UserError(
                f"Expected the path of your own {self.kind} after {flag}, found '{word}'. Leave {flag} out: a run knows ours."
            )
        return word


COLLECTING: ContextVar[bool] = ContextVar("collecting", default=False)


class Collected(Exception):
    """The parser of a verb, where it is wanted in place of what the verb does."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.prog)
        self.parser = parser


def parser_of(main: Callable[[Sequence[str]], int], action: str = "") -> Parser:
    """Return the parser that a verb, or an action of one, reads its words with."""
    token = COLLECTING.set(True)
    try:
        main([action] if action else [])
    except Collected as found:
        return found.parser
    finally:
        COLLECTING.reset(token)
    raise AssertionError(f"{main} has read no words")


class Parser(argparse.ArgumentParser):
    """An argument parser that says in one line what to type instead of a wrong flag."""

    def __init__(self, prog: str, description: str, example: str, retired: Mapping[str, Retired] | None = None) -> None:
        super().__init__(
            prog=prog,
            description=textwrap.fill(description, 100),
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.retired, self.example = retired or {}, example
        self.words: Sequence[str] = ()
        words = "load the code of your own task (its folder), upstream or corpus (a .py file); other flags then take its name"
        self.add_argument("--use", action=TypedPath, metavar="PATH", help=words)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read the words; an empty one is a shell variable that was never set, and would be passed over in silence."""
        if COLLECTING.get():
            raise Collected(self)
        words = [*args]
        if "" in words:
            place = words.index("")
            before = f"after {words[place - 1]}" if place else "first"
            self.error(f"Expected a value {before}, found an empty word. Is a variable of your shell unset?")
        refuse_retired(words, self.retired)
        self.words = words
        found, rest = super().parse_known_args(words, namespace)
        if getattr(found, "upstream_ckpt", None):
            CHECKPOINTS.take(found.upstream_ckpt)
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print the mistake and where help is, and exit with code 2."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        if message.startswith("unrecognized arguments:"):
            wrong = message.split(": ", 1)[1].split()[0]
            behind = self.words[self.words.index(wrong) + 1 :] if wrong in self.words else ()
            message = f"Unknown argument '{wrong}'.{instead_of_flag(wrong, behind[:1], flags)}"
        elif message.startswith("the following arguments are required:"):
            message = f"Expected {self.missing(message.split(': ', 1)[1].split(', '))}, found none. For instance: {self.example}"
        message = message if message.endswith((".", "?")) else f"{message}."
        self.exit(2, f"error: {message} See `{self.prog} --help`.\n")

    def missing(self, names: Sequence[str]) -> str:
        """Return the missing words as a person says them: of one that has choices, the choices."""
        choices = {action.metavar or action.dest: action.choices for action in self._actions if action.choices is not None}
        return " and ".join(f"one of {', '.join(map(str, choices[name]))}" if name in choices else name for name in names)


@dataclass(frozen=True)
class Action:
    """What a verb does with the words behind its second word."""

    run: Callable[[Sequence[str]], int]
    help: str
    example: str


def run_action(prog: str, description: str, actions: Mapping[str, Action], arguments: Sequence[str]) -> int:
    """Run the action that the first word names."""
    if arguments and arguments[0] in {"-h", "--help"}:
        lines = [f"usage: {prog} {{{','.join(actions)}}} …", "", f"{description[0].upper()}{description[1:]}.", ""]
        for name, action in actions.items():
            lines += [f"  {name:<12} {action.help}", f"  {'':<12} {action.example}", ""]
        print_result(*lines, f"`{prog} WORD --help` shows the flags.")
        return 0
    known = ", ".join(actions)
    if not arguments:
        example = next(iter(actions.values())).example
        raise UserError(f"Expected a word after `{prog}` ({known}), found none. For instance: {example}")
    if arguments[0] not in actions:
        close = nearest(arguments[0], actions) or f" See `{prog} --help`."
        raise UserError(f"Expected one of {known} after `{prog}`, found '{arguments[0]}'.{close}")
    return actions[arguments[0]].run(arguments[1:])


LENIENT = "headwater.lenient"


def lenient(problem: UnicodeError) -> tuple[bytes, int]:
    """Return the bytes of a file's name that is no UTF-8 as they are, and a question mark for what a terminal does not have."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    byte = ord(problem.object[problem.start]) - 0xDC00  # where Python keeps such bytes
    return bytes([byte]) if 0x80 <= byte <= 0xFF else b"?", problem.start + 1


codecs.register_error(LENIENT, lenient)


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None = None) -> int:
    """Run a command's function; a user's mistake is one message on stderr and exit code 2."""
    # torch is not loaded yet: threads that wait by spinning take seven times as long beside another busy process
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")  # what a Mac's GPU lacks (CTC's loss) runs on its CPU
    end_with_parent()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=LENIENT)
    try:
        code = main(sys.argv[1:] if arguments is None else arguments)
        leave_launch()
        sys.stdout.flush()  # while a reader that went away, or a full disk, can still be reported
        return code
    except UserError as problem:
        print_error(problem)
        return 2
    except KeyboardInterrupt:
        print_note("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output went away: `headwater … | head`
        close_stdout()
        return 0
    except OSError as problem:
        if problem.errno in {errno.ENAMETOOLONG, errno.ELOOP}:  # wherever a path came from
            found = f"{str(problem.filename)[:60]}…: {problem.strerror}"
            print_error(f"Expected a path that the file system takes, found {found}. Shorten or mend it.")
            return 2
        if problem.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        close_stdout()
        place = problem.filename or "the output"
        print_error(f"Expected to write {place}, found: {problem.strerror}. Make room, or write elsewhere.")
        return 2


def leave_launch() -> None:
    """End the group of a launch's processes: its threads would now and then abort an interpreter that goes before them."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def close_stdout() -> None:
    """Drop what waits to be printed, so that Python's own flush at the end has nothing to complain about."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def split_numbers(text: str, flag: str) -> list[int]:
    """Return `1,2,3` as numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"Expected whole numbers after {flag}, as in `{flag} 1,2,3`, found '{text}'.") from None


def split_pairs(text: str, flag: str) -> dict[str, str]:
    """Return `audio=path,label=emotion` as a mapping."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals and key and value for key, equals, value in pairs):
        raise UserError(f"Expected `{flag} ours=theirs,…`, found '{text}'. For instance: {flag} audio=path,label=emotion")
    return {key.strip(): value.strip() for key, _, value in pairs}
