"""EmoDB: the Berlin database of emotional speech, ten German actors, ten texts, seven emotions."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.actors import make_emodb
from ..folds import check_fold, compare_counts, split_by_speaker
from ..locate import find_inside, is_demo, wav_files

PROTOCOLS = {"speaker10": 10}
EMOTIONS = ("anger", "boredom", "disgust", "fear", "happiness", "sadness", "neutral")
LETTERS = dict(zip("WLEAFTN", EMOTIONS, strict=True))  # of the German words: Wut, Langeweile, Ekel, Angst, Freude, Trauer
SPEAKERS = {
    "03": ("M", 31),
    "08": ("F", 34),
    "09": ("F", 21),
    "10": ("M", 32),
    "11": ("M", 26),
    "12": ("M", 30),
    "13": ("F", 32),
    "14": ("F", 35),
    "15": ("M", 25),
    "16": ("F", 31),
}
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_EXPECTED = dict(zip(EMOTIONS, (127, 81, 46, 69, 71, 62, 79), strict=True))
_NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WLEAFTN])(?P<version>[a-z]?)")


def read(root: str | Path, *, protocol: str = "speaker10", fold: int | None = None) -> Corpus:
    """Return the utterances; test is one speaker, dev the next one, train the other eight."""
    number = check_fold("emodb", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_files, "EmoDB", "files such as wav/03a01Fa.wav")
    utterances, others = [], 0
    for path in wav_files(folder / "wav" if (folder / "wav").is_dir() else folder):
        name = _NAME.fullmatch(path.stem)
        if name is None or name["speaker"] not in SPEAKERS:
            others += 1
        else:
            utterances.append(_utterance(path, name))
    if not utterances:
        raise UserError(f"Expected files such as 03a01Fa.wav in {folder}, found none. Name the folder of EmoDB with --data.")
    notes: tuple[str, ...] = (f"{others} files passed over: other names",) if others else ()
    if not is_demo(folder):
        notes += compare_counts("EmoDB", Counter(str(row.labels["emotion"]) for row in utterances), _EXPECTED)
    splits = split_by_speaker(utterances, [(speaker,) for speaker in SPEAKERS], number or 1)
    return Corpus("emodb", protocol, number, splits, label_order={"emotion": EMOTIONS}, notes=notes)


def _has_files(folder: Path) -> bool:
    return any(_NAME.fullmatch(path.stem) for place in (folder, folder / "wav") for path in place.glob("*.wav"))


def _utterance(path: Path, name: re.Match[str]) -> Utterance:
    sex, age = SPEAKERS[name["speaker"]]
    labels = {"emotion": LETTERS[name["emotion"]], "statement": name["text"], "sex": sex, "age": age}
    return Utterance(path.stem, str(path), text=TEXTS.get(name["text"]), speaker=name["speaker"], labels=labels)


register_corpus(
    Reader(
        name="emodb",
        read=read,
        has_layout=_has_files,
        tasks=("emotion",),
        protocols=PROTOCOLS,
        select_by={"emotion": "ua"},
        make_demo=partial(make_emodb, texts=TEXTS, speakers=SPEAKERS),
        description="German, 10 actors, 10 sentences, 7 emotions, 535 utterances",
        where="download.zip from http://emodb.bilderbar.info/download/ (CC0): the folder with wav in it",
    )
)
