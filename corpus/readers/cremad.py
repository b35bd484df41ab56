"""CREMA-D: 91 actors of many backgrounds, twelve sentences, six emotions."""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.actors import make_cremad
from ..folds import check_fold, compare_counts, deal, split_by_speaker
from ..locate import find_inside, is_demo, wav_files

PROTOCOLS = {"actor5": 5}
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
TEXTS = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
FOLDS = deal([str(actor) for actor in range(1001, 1092)], 5)
_SILENT = "1076_MTI_SAD_XX"  # a file of zeros in the release
_EXPECTED = {"clips": 7442, "actors": 91}
_NAME = re.compile(r"(?P<actor>1\d{3})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>LO|MD|HI|XX|X)")


def read(root: str | Path, *, protocol: str = "actor5", fold: int | None = None) -> Corpus:
    """Return the clips of AudioWAV, labelled with the acted emotion; every fifth actor makes a fold, dev is the next fold."""
    number = check_fold("cremad", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_files, "CREMA-D", "a folder AudioWAV with files such as 1001_DFA_ANG_XX.wav")
    sexes = _read_sexes(folder)
    utterances, others, silent = [], 0, 0
    for path in wav_files(folder / "AudioWAV" if (folder / "AudioWAV").is_dir() else folder, "*_*.wav"):
        name = _NAME.fullmatch(path.stem)
        if path.stem == _SILENT:
            silent += 1
        elif name is None or name["emotion"] not in EMOTIONS or name["sentence"] not in TEXTS:
            others += 1
        else:
            utterances.append(_utterance(path, name, sexes))
    if not utterances:
        raise UserError(
            f"Expected clips such as 1001_DFA_ANG_XX.wav in {folder / 'AudioWAV'}, found none. Fetch the files with git lfs."
        )
    notes = ((f"{_SILENT}.wav left out: it is silent",) if silent else ()) + (
        (f"{others} files passed over: other names",) if others else ()
    )
    if not is_demo(folder):
        found = {"clips": len(utterances) + silent, "actors": len({row.speaker for row in utterances})}
        notes += compare_counts("CREMA-D", found, _EXPECTED)
    splits = split_by_speaker(utterances, FOLDS, number or 1)
    return Corpus("cremad", protocol, number, splits, label_order={"emotion": EMOTIONS}, notes=notes)


def _has_files(folder: Path) -> bool:
    return (folder / "AudioWAV").is_dir() or any(_NAME.fullmatch(path.stem) for path in folder.glob("1*_*.wav"))


def _utterance(path: Path, name: re.Match[str], sexes: dict[str, str]) -> Utterance:
    labels = {"emotion": name["emotion"], "level": name["level"], "statement": name["sentence"]}
    if name["actor"] in sexes:
        labels["sex"] = sexes[name["actor"]]
    return Utterance(path.stem, str(path), text=TEXTS[name["sentence"]], speaker=name["actor"], labels=labels)


def _read_sexes(folder: Path) -> dict[str, str]:
    """Return F or M by actor, where the release's table lies beside the audio."""
    path = folder / "VideoDemographics.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {row["ActorID"]: row["Sex"][:1] for row in csv.DictReader(file) if row.get("ActorID") and row.get("Sex")}


register_corpus(
    Reader(
        name="cremad",
        read=read,
        has_layout=_has_files,
        tasks=("emotion",),
        protocols=PROTOCOLS,
        select_by={"emotion": "ua"},
        make_demo=partial(make_cremad, texts=TEXTS),
        description="English, 91 actors, 12 sentences, 6 emotions, 7,442 clips",
        where="git lfs clone https://github.com/CheyneyComputerScience/CREMA-D (ODbL): the folder with AudioWAV in it",
    )
)
