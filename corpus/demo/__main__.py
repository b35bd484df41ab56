"""Make one miniature: `python -m headwater.corpus.demo NAME FOLDER SEED SCALE`, in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import soundfile

from headwater.core.errors import UserError
from headwater.corpus.load import get_reader
from headwater.corpus.locate import MARKER


def main(name: str, folder: str, seed: str, scale: str) -> None:
    """Write the miniature, and its marker last: a folder that has one is whole."""
    make_demo = get_reader(name).make_demo
    if make_demo is None:
        raise UserError(f"Expected a corpus with a demo, found '{name}'.")
    make_demo(Path(folder), seed=int(seed), scale=float(scale))
    words = f"Synthetic speech (espeak-ng, seed {seed}, scale {scale}) in the layout of {name}: not a result to quote.\n"
    (Path(folder) / MARKER).write_text(words, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (UserError, OSError) as error:
        sys.exit(str(error))
    except soundfile.LibsndfileError as error:  # it does not say what the disk refused
        sys.exit(
            f"Expected to write the miniature into '{sys.argv[2]}', found that the disk refuses it ({error}). Make room, or "
            "choose another folder: HEADWATER_CACHE=FOLDER"
        )
