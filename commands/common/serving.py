"""What the verbs share that predict for others: the flags that load a run, and the address that they are bound to."""

from __future__ import annotations

import importlib.util
import socket
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...core.errors import UserError
from ...core.installation import install_command
from .console import print_note
from .sections import sections_of, text_weights_of
from .shell import Parser

if TYPE_CHECKING:
    from ...inference.folds import Folds
    from ...inference.trained_run import TrainedRun

SECTIONS = ("text_upstream", "asr")  # that -o sets
LOCAL = ("127.0.0.1", "localhost", "::1")


def add_run_flags(parser: Parser) -> None:
    """Add the flags that say how a run is loaded."""
    add = parser.add_argument
    add("--task", help="predict this task of a run that has several")
    add("--fold", type=int, metavar="N", help="use this fold of a plan (default: the mean of all)")
    add("--no-text", action="store_true", help="predict without transcripts (needs a run trained with modality_dropout)")
    add("-k", "--upstream_ckpt", metavar="DIR", help="folder with the weights of the upstream, if they have moved")
    help_text = "where weights have moved to, how transcripts are found: text_upstream.path=DIR, asr.beam.lm=FILE, asr.beam=null"
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=help_text)
    add("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    help_text = "the address to bind (default: 127.0.0.1, this machine alone; 0.0.0.0: every machine that reaches this one)"
    add("--host", default="127.0.0.1", help=help_text)


def require(extra: str, packages: Sequence[str], verb: str) -> None:
    """Refuse to begin without the packages of an extra."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Expected the packages {', '.join(packages)} for `headwater {verb}`, found no {missing[0]}. "
            f"Run: {install_command(extra)}"
        )


def refuse_below_0(limits: Mapping[str, float]) -> None:
    """Refuse limits that let nothing in."""
    for name, value in limits.items():
        if not value > 0:
            raise UserError(f"Expected a number above 0 after {name}, found {value:g}. Leave it out for the default.")


def load_for_others(folder: str, flags: Namespace) -> TrainedRun | Folds:
    """Return a run that takes audio, on its device; its marks are printed."""
    from ...inference.load import load_run

    sections = sections_of(flags.override, SECTIONS)
    options = {name: sections[name] for name in sections if name != "text_upstream"}
    run = load_run(folder, flags.upstream_ckpt, text_weights_of(sections), flags.task, flags.fold, options)
    run = run.without_text() if flags.no_text else run
    if "audio" not in run.roles:
        raise UserError(f"Expected a run that takes audio, found one that only reads in '{folder}'. Use `headwater predict`.")
    run.move_to(flags.device)
    print_note(*(f"{mark}: not a result to quote" for mark in run.marks))
    return run


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; 0 is any free port."""
    if not 0 <= port <= 65_535:
        raise UserError(f"Expected a port from 0 (any free one) to 65535 after --port, found {port}. For instance: --port 8000")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise UserError(f"Expected a free port at {host}:{port}, found: {reason}. Choose another with --port.") from None
    if host not in LOCAL:
        print_note(f"note: {host} is open to other machines, without a password; put a proxy with one in front of it")
    return found


def url_of(host: str, found: socket.socket) -> str:
    """Return the address of a bound socket as a browser takes it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{found.getsockname()[1]}"
