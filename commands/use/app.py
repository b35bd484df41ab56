"""Open finished runs as an app in the browser: a microphone or a file, and what each run predicts."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.errors import UserError
from ..common.console import print_note, print_result
from ..common.serving import add_run_flags, bound, load_for_others, refuse_below_0, require, url_of
from ..common.shell import Parser

if TYPE_CHECKING:
    from ...inference.folds import Folds
    from ...inference.serving.layers import Probe
    from ...inference.trained_run import TrainedRun

HELP = "open finished runs in the browser: speak or choose a file, see scores over time, over layers, side by side"
EXAMPLE = "headwater app result/downstream/my_run result/downstream/my_probe"
NEEDED = ("gradio", "fastapi", "uvicorn")
MOST_RUNS = 6  # side by side


def main(arguments: Sequence[str]) -> int:
    """Load the runs, print the address, and show them until the process is stopped."""
    flags = make_parser().parse_args(arguments)
    refuse_below_0({"--most-mb": flags.most_mb, "--most-seconds": flags.most_seconds})
    if len(flags.runs) > MOST_RUNS:
        raise UserError(f"Expected at most {MOST_RUNS} runs side by side, found {len(flags.runs)}. Leave some out.")
    require("app", NEEDED, "app")
    from ...inference.serving.app.app import app_of, private_uploads
    from ...inference.serving.app.subject import Subject
    from ...inference.serving.server import serve

    address = bound(flags.host, flags.port)
    subjects = [Subject.of(run_or_probe(folder, flags)) for folder in flags.runs]
    url = url_of(flags.host, address)
    ready = f"{', '.join(flags.runs)} at {url} (Ctrl-C ends it)"
    with private_uploads():
        serve(app_of(subjects, flags.most_mb, flags.most_seconds), address, lambda: print_result(ready))
    return 0


def run_or_probe(folder: str, flags: Namespace) -> TrainedRun | Folds | Probe:
    """Return a run, or all layers of a folder that `-l all` made."""
    from ...inference.serving.layers import probe_of

    probe = probe_of(folder, flags.upstream_ckpt, flags.task)
    if probe is None:
        return load_for_others(folder, flags)
    probe.move_to(flags.device)
    print_note(*(f"{mark}: not a result to quote" for mark in probe.first.marks))
    return probe


def make_parser() -> Parser:
    """Return the flags."""
    words = (
        "Open finished runs as an app in the browser: speak or choose a file, and see what each run predicts, its scores over "
        "time, and of a folder that `-l all` made, a slider over layers. Sounds stay on this machine."
    )
    parser = Parser("headwater app", words, EXAMPLE)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="run folders, folders of folds or seeds (their mean), or of `-l all`")
    add("--port", type=int, default=7860, help="the port (default: 7860; 0: any free one)")
    add("--most-mb", type=float, default=200.0, metavar="MB", help="the largest file (default: 200)")
    add("--most-seconds", type=float, default=3600.0, metavar="S", help="the longest sound (default: 3600)")
    add_run_flags(parser)
    return parser
