"""Any folder of audio, with no label at all: for pretraining and distillation."""

from __future__ import annotations

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


def read(root: str | Path, *, protocol: str = "held_out", fold: int | None = None, dev_share: float = 0.02) -> Corpus:
    """Return all audio below a folder; a share of the files is dev."""
    check_fold("folder", PROTOCOLS, protocol, fold)
    folder = expanded(root)
    if not folder.is_dir():
        raise UserError(
            f"Expected a folder of audio at {folder}, found {'a file' if folder.exists() else 'nothing'}. Check --data."
        )
    if not 0 < dev_share < 1:
        raise UserError(f"Expected corpus.options.dev_share between 0 and 1, found {dev_share}.")
    files = audio_files(folder)
    if len(files) < 2:
        raise UserError(
            f"Expected at least two audio files below {folder}, one of them to hold out, found {len(files)}. Check --data."
        )
    whole = [Utterance(str(path.relative_to(folder)), str(path)) for path in files]
    seconds, _ = check_files(whole)
    held_out = in_drawn_order(row.id for row in whole if row.id in seconds)
    dev = {*held_out[: min(max(1, round(dev_share * len(held_out))), MOST_DEV)]}
    splits = {"train": tuple(row for row in whole if row.id not in dev), "dev": tuple(row for row in whole if row.id in dev)}
    hours = sum(seconds.values()) / 3600
    return Corpus("folder", protocol, None, splits, notes=(f"{len(whole)} files, {hours:.2f} h; dev is {len(dev)} of them",))


register_corpus(
    Reader(
        name="folder",
        read=read,
        tasks=("pretrain", "distil"),
        default_for=("pretrain", "distil"),
        protocols=PROTOCOLS,
        make_demo=demo.make_demo,
        test="dev",
        description="any folder of audio, with no labels, two files in a hundred held out",
        where="your own audio: wav, flac, ogg, mp3 …",
    )
)
