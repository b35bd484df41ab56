"""The tables of docs/from_s3prl.md: `python -m headwater.commands.s3prl.page docs/from_s3prl.md` writes them anew."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError
from ...core.files import write_text
from ..common.shell import run_command
from . import override
from .flags import TABLE


def flags_table() -> str:
    """Return the table of s3prl's flags, and what Headwater does with each."""
    rows = [f"| {', '.join(f'`{name}`' for name in flag.names)} | {flag.kind} | {flag.here} |" for flag in TABLE]
    return "\n".join(["| s3prl | | Headwater |", "|---|---|---|", *rows])


def overrides_table() -> str:
    """Return the table of the keys of s3prl's `-o` that Headwater translates."""
    rows = {f"`{theirs}`": f"`{ours.replace('TASK', 'emotion')}`" for theirs, ours in override.KEYS.items()}
    rows[f"`{override.FOLD}`"] = "`-v`"
    rows[f"`{override.SIZE}` x `{override.PIECES}`"] = "`training.batch_size`, the product of both"
    decay = f"; torch's AdamW brings `optimizer.weight_decay={override.TORCH_DECAY}`, s3prl's own has none"
    rows[", ".join(f"`{key}`" for key in override.OPTIMIZER)] = f"`optimizer.name`{decay}"
    rows[", ".join(f"`{key}`" for key in override.LEFT_OUT)] = "ignored: no score depends on it"
    return "\n".join(["| s3prl | Headwater |", "|---|---|", *(f"| {theirs} | {ours} |" for theirs, ours in rows.items())])


def with_tables(text: str) -> str:
    """Return a page with its tables as they are now."""
    for name, table in {"flags": flags_table(), "overrides": overrides_table()}.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise UserError(
                f"Expected the marks '{begin.strip()}' and '{end.strip()}' in the page, found not both. Put them back."
            )
        before, rest = text.split(begin, 1)
        text = before + begin + table + end + rest.split(end, 1)[1]
    return text


def main(arguments: Sequence[str]) -> int:
    """Write the page's tables anew."""
    page = Path(arguments[0])
    write_text(page, with_tables(page.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
