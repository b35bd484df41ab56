"""List, prune and verify the cached features of frozen upstreams."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UserError
from ..core.files import format_bytes
from .common.console import print_note, print_result
from .common.shell import Parser

if TYPE_CHECKING:
    from ..upstream.store.maintenance import StoredSpace


HELP = "show the cached features of frozen upstreams, delete unused ones, or verify them"
EXAMPLE = "headwater store prune --to 20GB"


def main(arguments: Sequence[str]) -> int:
    """Run `status`, `prune` or `verify`."""
    parser = Parser(
        "headwater store",
        "status: show the cached features. prune: delete some of them. verify: hash the audio again and compare all checksums.",
        EXAMPLE,
    )
    parser.add_argument("action", choices=("status", "prune", "verify"))
    parser.add_argument("--store", metavar="DIR", help="the cache that `--store DIR` made (default: the one in the cache folder)")
    parser.add_argument("--all", action="store_true", help="prune: delete everything that no running process uses")
    parser.add_argument("--unused", metavar="AGE", help="prune: delete what was not used for so long: 12h, 30d, 8w")
    parser.add_argument("--to", metavar="SIZE", help="prune: delete the longest unused until so much is left: 20GB")
    parser.add_argument("--dry-run", action="store_true", help="prune: print what would be deleted, and delete nothing")
    flags = parser.parse_args(arguments)
    if flags.action != "prune" and (flags.all or flags.unused or flags.to or flags.dry_run):
        raise UserError(f"Expected --all, --unused, --to and --dry-run after `prune`, found them after `{flags.action}`.")
    from ..core.files import plain_disk_errors
    from ..runs.features import store_root

    root = store_root(flags.store or "auto")
    if not root.is_dir():
        if flags.store:
            raise UserError(f"Expected a store in '{root}', found no folder. Check the path.")
        print_result(f"nothing is stored in {root}")
        return 0
    with plain_disk_errors(root):
        return {"status": status, "prune": prune, "verify": verify}[flags.action](flags, root)


def status(_: Namespace, root: Path) -> int:
    """Print each space, the total, and how much a run may add unasked."""
    from ..upstream.store.maintenance import list_spaces
    from ..upstream.store.store import default_limit

    spaces = list_spaces(root)
    lines: list[tuple[str, ...]] = [("upstream", "layers", "rows are", "precision", "rows", "size", "last used", "folder")]
    lines += [described(space) for space in spaces]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines if spaces else []:
        print_result("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    count = f"{len(spaces)} space{'s' * (len(spaces) != 1)}"
    print_result(f"{format_bytes(sum(space.size for space in spaces))} in {count}, in {root}")
    print_result(f"a run adds at most {format_bytes(default_limit(root))} by itself (raise it with -o store.limit=SIZE)")
    return 0


def described(space: StoredSpace) -> tuple[str, ...]:
    """Return a space as a line of the table."""
    layers = space.described.get("layers", [])
    day = time.strftime("%Y-%m-%d", time.localtime(space.used))
    return (
        space.name,
        f"{layers[0]}" if len(layers) == 1 else f"all {len(layers)}",
        space.holds,
        str(space.described.get("precision", "?")),
        str(space.rows),
        format_bytes(space.size),
        day,
        space.folder.name,
    )


def prune(flags: Namespace, root: Path) -> int:
    """Remove what the flags choose, and say what was freed."""
    from ..core.files import parse_size
    from ..upstream.store.maintenance import clear_remains, list_spaces, parse_age
    from ..upstream.store.maintenance import prune as prune_spaces

    if sum(map(bool, (flags.all, flags.unused, flags.to))) != 1:
        raise UserError("Expected one of --all, --unused 30d and --to 20GB after `store prune`. Add --dry-run to see what goes.")
    since = time.time() - parse_age(flags.unused) if flags.unused else None
    down_to = parse_size(flags.to) if flags.to else None
    if not flags.dry_run:
        clear_remains(root)
    spaces = list_spaces(root)
    removed, held = prune_spaces(spaces, unused_since=since, down_to=down_to, dry_run=flags.dry_run)
    word = "would go" if flags.dry_run else "removed"
    for space in removed:
        print_result(f"{word}  {format_bytes(space.size)}  {space.name}, {space.holds}, {space.rows} rows  {space.folder.name}")
    for space in held:
        print_note(f"kept     {format_bytes(space.size)}  {space.name}, {space.holds}: a running process holds it")
    for space in spaces:
        if not space.is_known:
            print_note(f"kept     {format_bytes(space.size)}  {space.folder}: no space.json says that the store made it")
    print_result(
        f"{format_bytes(sum(space.size for space in removed))} {'would be freed' if flags.dry_run else 'freed'} in {root}"
    )
    return 0


def verify(_: Namespace, root: Path) -> int:
    """Hash audio again and compare checksums; what is wrong is forgotten or removed, so that the next run computes it anew."""
    from ..core.files import cache_folder
    from ..upstream.store.maintenance import changed_audio, damaged_shards

    files, changed = changed_audio(root, cache_folder())
    for path in changed:
        print_result(f"changed  {path}: its bytes are others, with size and time as before; its features are computed anew")
    shards, damaged = damaged_shards(root)
    for shard in damaged:
        print_result(f"damaged  {shard}: removed, its rows are computed again")
    print_result(f"{files} audio files, {len(changed)} changed; {shards} shards, {len(damaged)} damaged, in {root}")
    return 3 if changed or damaged else 0
