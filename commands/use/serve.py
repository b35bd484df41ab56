"""Serve a finished run over http: audio in, json out."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.console import print_note, print_result
from ..common.serving import add_run_flags, bound, load_for_others, refuse_below_0, require, url_of
from ..common.shell import Parser

HELP = "serve a finished run over http: POST audio, get labels and scores as json"
EXAMPLE = "headwater serve result/downstream/my_run --port 8000"
NEEDED = ("fastapi", "uvicorn", "python_multipart")


def main(arguments: Sequence[str]) -> int:
    """Load the run, print the address, and predict until the process is stopped."""
    flags = make_parser().parse_args(arguments)
    limited = {"--most-mb": flags.most_mb, "--most-seconds": flags.most_seconds, "--most-waiting": flags.most_waiting}
    refuse_below_0(limited)
    require("serve", NEEDED, "serve")
    from ...inference.serving.gather import Gathered
    from ...inference.serving.limits import Limits
    from ...inference.serving.replies import facts_of
    from ...inference.serving.server import serve
    from ...inference.serving.web import app_of

    address = bound(flags.host, flags.port)
    run = load_for_others(flags.run, flags)
    gathered = Gathered.started(run)
    if gathered.gatherer.most == 1:
        print_note("note: pieces go through this model one by one: together they would change its scores")
    limits = Limits(most_mb=flags.most_mb, most_seconds=flags.most_seconds, most_waiting=flags.most_waiting)
    url = url_of(flags.host, address)
    ready = f"serving {flags.run} at {url} (Ctrl-C ends it): curl -F file=@my.wav {url}/predict"
    serve(app_of(gathered, facts_of(run), limits), address, lambda: print_result(ready))
    print_note("every request that came in has been answered")
    return 0


def make_parser() -> Parser:
    """Return the flags."""
    words = (
        "Serve a finished run over http on this machine. POST /predict takes audio files as a form or as bytes, returns labels "
        "and scores as json; /info, /health, /openapi.json and a page at / describe it. Nothing that is sent is kept or logged."
    )
    parser = Parser("headwater serve", words, EXAMPLE)
    add = parser.add_argument
    add("run", metavar="RUN", help="a run folder, or the folder of several folds or seeds (their scores are averaged)")
    add("--port", type=int, default=8000, help="the port (default: 8000; 0: any free one)")
    add("--most-mb", type=float, default=25.0, metavar="MB", help="the largest body of a request (default: 25)")
    add("--most-seconds", type=float, default=300.0, metavar="S", help="the longest audio of a file (default: 300)")
    help_text = "requests that are held at once; others get 503 and when to try again (default: 256)"
    add("--most-waiting", type=int, default=256, metavar="N", help=help_text)
    add_run_flags(parser)
    return parser
