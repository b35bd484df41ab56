"""Device-directed speech: utterances to a device, and speech that it overhears, in a folder with a table clips.csv."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..base import Corpus, Reader, register_corpus
from ..demo.directed import make_demo
from ..locate import find_inside
from . import manifest

PROTOCOLS = {"split": 1}
TABLE = "clips.csv"


def read(root: str | Path, *, protocol: str = "split", fold: int | None = None) -> Corpus:
    """Return the clips as a manifest has them; label 1 is directed, 0 is not, and device and lang are labels too."""
    folder = find_inside(root, _has_table, "device-directed clips", f"a table {TABLE}")
    return replace(manifest.read(folder / TABLE, protocol=protocol, fold=fold), name="directed")


def _has_table(folder: Path) -> bool:
    return (folder / TABLE).is_file()


register_corpus(
    Reader(
        name="directed",
        read=read,
        has_layout=_has_table,
        tasks=("dsd",),
        default_for=("dsd",),
        protocols=PROTOCOLS,
        make_demo=make_demo,
        description="a folder with clips.csv (audio, text, label 1 or 0, speaker, session, device, lang, split) and its clips",
        where="no set is public: bring your own as such a folder, or any table with --corpus manifest; the demo is spoken",
    )
)
