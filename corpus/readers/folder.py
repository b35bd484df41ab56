"""Any folder of audio, with no label at all: for pretraining and distillation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...core.errors import UserError
from ...core.files import expanded
from ..audio import check_files
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo import librispeech as demo
from ..folds import check_fold, in_drawn_order
from ..locate import audio_files

PROTOCOLS = {"held_out": 1}
MOST_DEV = 1000  # files


def read(
    root: str | Path, *, protocol: str = "held_out", fold: int | None = None, longest: float = 15.6, dev_share: float = 0.02
) -> Corpus:
    """Return all audio below a folder, cut into equal stretches of at most `longest` seconds; a share of the files is dev."""
    check_fold("folder", PROTOCOLS, protocol, fold)
    folder = expanded(root)
    if not folder.is_dir():
        raise UserError(
            f"Expected a folder of audio at {folder}, found {'a file' if folder.exists() else 'nothing'}. Check --data."
        )
    for name, value, right in (("longest", longest, longest > 0), ("dev_share", dev_share, 0 < dev_share < 1)):
        if not right:
            raise UserError(
                f"Expected corpus.options.{name} {'between 0 and 1' if name == 'dev_share' else 'above 0'}, found {value}."
            )
    files = audio_files(folder)
    if len(files) < 2:
        raise UserError(
            f"Expected at least two audio files below {folder}, one of them to hold out, found {len(files)}. Check --data."
        )
    whole = [Utterance(str(path.relative_to(folder)), str(path)) for path in files]
    seconds, _ = check_files(whole)
    held_out = in_drawn_order(row.id for row in whole if row.id in seconds)
    dev = {*held_out[: min(max(1, round(dev_share * len(held_out))), MOST_DEV)]}
    splits: dict[str, list[Utterance]] = {"train": [], "dev": []}
    for row in whole:
        rows = stretches(row, seconds[row.id], longest) if row.id in seconds else [row]  # a broken one is reported with others
        splits["dev" if row.id in dev else "train"] += rows
    hours = sum(seconds.values()) / 3600
    notes = (f"{len(whole)} files, {hours:.2f} h; dev is {len(dev)} of them",)
    return Corpus("folder", protocol, None, {name: tuple(rows) for name, rows in splits.items()}, notes=notes)


def stretches(row: Utterance, seconds: float, longest: float) -> list[Utterance]:
    """Return an utterance in equal stretches of at most so many seconds; a short one as it is."""
    count = int(-(-seconds // longest))
    if count <= 1:
        return [row]
    size = seconds / count
    return [replace(row, id=f"{row.id}#{number}", start=number * size, duration=size) for number in range(count)]


register_corpus(
    Reader(
        name="folder",
        read=read,
        tasks=("pretrain", "distil"),
        default_for=("pretrain", "distil"),
        protocols=PROTOCOLS,
        make_demo=demo.make_demo,
        test="dev",
        description="any folder of audio, with no labels: files are cut into stretches, two in a hundred held out",
        where="your own audio: wav, flac, ogg, mp3 …",
    )
)
