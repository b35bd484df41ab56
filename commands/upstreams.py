"""List the upstreams that have a name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .common.shell import Parser

HELP = "list the upstreams that have a name"
EXAMPLE = "headwater upstreams 'hubert*'"


def main(arguments: Sequence[str]) -> int:
    """Print one line for each upstream whose name matches."""
    words = "List upstreams; any hub id, model folder, run folder, s3prl/NAME and ./my_upstream.py works too."
    parser = Parser("headwater upstreams", words, EXAMPLE)
    parser.add_argument("pattern", nargs="?", default="*", help="names to list, with * and ?")
    parser.add_argument("--modality", choices=("audio", "text"), help="those that listen, or those that read")
    flags = parser.parse_args(arguments)
    from ..core.errors import UserError, nearest
    from ..upstream.base import UPSTREAMS
    from ..upstream.load import list_upstreams

    rows = list_upstreams(flags.pattern, flags.modality)
    for problem in UPSTREAMS.broken(flags.pattern):
        print(f"passed over: {problem}", file=sys.stderr)
    if not rows:
        known = [row.name for row in list_upstreams()]
        raise UserError(
            f"No upstream is called '{flags.pattern}'.{nearest(flags.pattern.strip('*'), known)} Try '*{flags.pattern}*'."
        )
    width, source = max(len(row.name) for row in rows), max(len(row.source) for row in rows)
    for row in rows:
        print(f"{row.name:<{width}}  {row.modality:<5}  {row.source:<{source}}  {row.description}".rstrip())
    return 0
