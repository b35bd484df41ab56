"""RAVDESS: 24 North American actors, two sentences, eight emotions; the speech files."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path

from ...core.errors import UserError
from ..base import Corpus, Reader, Utterance, register_corpus
from ..demo.actors import make_ravdess
from ..folds import check_fold, compare_counts, split_by_speaker
from ..locate import find_inside, is_demo, wav_files

PROTOCOLS = {"actor6": 6, "emobox": 6}
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08
TEXTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
FOLDS = {  # protocol -> the test actors of each fold; women have even numbers
    # two women and two men each: our own
    "actor6": tuple(tuple(f"{actor:02d}" for actor in range(first, first + 4)) for first in range(1, 25, 4)),
    # EmoBox's: their results compare with no other folds' (its second one is four women)
    "emobox": tuple(
        tuple(actors.split())
        for actors in ("01 11 20 21", "04 10 12 14", "08 09 19 23", "03 05 07 24", "02 15 16 18", "06 13 17 22")
    ),
}
_ACTORS = tuple(f"{actor:02d}" for actor in range(1, 25))
_EXPECTED = {emotion: 96 if emotion == "neutral" else 192 for emotion in EMOTIONS}
_NAME = re.compile(
    r"(?P<modality>0[1-3])-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])"
    r"-(?P<statement>0[12])-(?P<repetition>0[12])-(?P<actor>\d\d)"
)
_AUDIO_ONLY, _SPEECH = "03", "01"


def read(root: str | Path, *, protocol: str = "actor6", fold: int | None = None) -> Corpus:
    """Return the audio-only speech files, in folders Actor_01 to Actor_24 or flat; dev is the next fold's actors."""
    number = check_fold("ravdess", PROTOCOLS, protocol, fold)
    folder = find_inside(root, _has_files, "RAVDESS", "files such as Actor_01/03-01-01-01-01-01-01.wav")
    chosen: dict[str, Path] = {}
    passed_over: Counter[str] = Counter()
    for path in wav_files(folder):
        name = _NAME.fullmatch(path.stem)
        if name is None:
            passed_over["other names"] += 1
        elif name["modality"] != _AUDIO_ONLY or name["channel"] != _SPEECH:
            passed_over["song or video"] += 1
        elif path.stem in chosen:  # a widespread archive holds everything twice
            passed_over["second copies"] += 1
        else:
            chosen[path.stem] = path
    if not chosen:
        raise UserError(
            f"Expected audio-only speech (03-01-*.wav) of RAVDESS in {folder}, found none. Get Audio_Speech_Actors_01-24.zip."
        )
    utterances = [_utterance(path) for _, path in sorted(chosen.items())]
    notes = tuple(f"{count} files passed over: {why}" for why, count in sorted(passed_over.items()))
    actors = {str(row.speaker) for row in utterances}
    missing = [actor for actor in _ACTORS if actor not in actors]
    if missing and not is_demo(folder):
        notes += (f"{len(missing)} of {len(_ACTORS)} actors are missing: {', '.join(missing)}",)
    if not is_demo(folder):
        notes += compare_counts("RAVDESS speech", Counter(str(row.labels["emotion"]) for row in utterances), _EXPECTED)
    splits = split_by_speaker(utterances, FOLDS[protocol], number or 1)
    return Corpus("ravdess", protocol, number, splits, label_order={"emotion": EMOTIONS}, notes=notes)


def _has_files(folder: Path) -> bool:
    return (folder / "Actor_01").is_dir() or any(_NAME.fullmatch(path.stem) for path in folder.glob("0*.wav"))


def _utterance(path: Path) -> Utterance:
    name = _NAME.fullmatch(path.stem)
    assert name is not None, f"{path} was chosen by this pattern"
    return Utterance(
        id=path.stem,
        audio=str(path),
        text=TEXTS[name["statement"]],
        speaker=name["actor"],
        labels={
            "emotion": EMOTIONS[int(name["emotion"]) - 1],
            "intensity": {"01": "normal", "02": "strong"}[name["intensity"]],
            "statement": name["statement"],
            "sex": "M" if int(name["actor"]) % 2 else "F",
        },
    )


register_corpus(
    Reader(
        name="ravdess",
        read=read,
        has_layout=_has_files,
        tasks=("emotion",),
        protocols=PROTOCOLS,
        select_by={"emotion": "ua"},
        make_demo=partial(make_ravdess, texts=TEXTS),
        description="English, 24 actors, 2 sentences, 8 emotions, 1,440 speech files",
        where="Audio_Speech_Actors_01-24.zip from https://zenodo.org/records/1188976 (CC BY-NC-SA 4.0)",
    )
)
