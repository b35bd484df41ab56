"""A miniature of IEMOCAP in its official layout: five sessions, ten speakers, ratings by several raters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .acting import Speaker, perform, write_wav
from .texts.sentences import WORDS_OF, sentence_for

# one woman and one man for each session
_CAST = (
    (Speaker("en-us+f3", "F", 62, 188), Speaker("en-us+m7", "M", 32, 198)),
    (Speaker("en+f2", "F", 54, 202), Speaker("en+m3", "M", 40, 184)),
    (Speaker("en-us+f5", "F", 68, 180), Speaker("en+m5", "M", 36, 192)),
    (Speaker("en-gb-x-rp+f4", "F", 58, 194), Speaker("en-us+m1", "M", 28, 204)),
    (Speaker("en-us+Annie", "F", 60, 206), Speaker("en-us+m4", "M", 44, 186)),
)
_DIALOGS = ("{}F_impro01", "{}M_impro02", "{}F_script01_1", "{}M_script02_1")
_TURNS = 14  # of each speaker in each dialog, at scale 1
_CLASSES = (("neu",), ("sad",), ("ang",), ("hap", "exc"))  # of the usual protocol, with the codes that make them
_ACTED = {"neu": "neutral", "hap": "happy", "exc": "excited", "sad": "sad", "ang": "angry", "fru": "frustrated"}
_NAMES = {"neu": "Neutral", "hap": "Happiness", "exc": "Excited", "sad": "Sadness", "ang": "Anger", "fru": "Frustration"}
# code -> valence, activation, dominance on 1..5
_RATINGS = {
    "neu": (3.0, 2.5, 2.9),
    "hap": (4.1, 3.2, 3.1),
    "exc": (4.2, 3.9, 3.4),
    "sad": (2.0, 2.0, 2.4),
    "ang": (1.8, 3.8, 4.0),
    "fru": (2.3, 3.1, 3.3),
}


@dataclass(frozen=True)
class _Turn:
    name: str
    sex: str
    code: str  # what is acted
    agreed: str  # what the raters settled on: xxx where they did not
    text: str


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write Session1 to Session5 into the folder; about 560 turns at scale 1."""
    for session, cast in enumerate(_CAST, start=1):
        generator = np.random.default_rng([seed, session])
        speakers = {speaker.sex: speaker for speaker in cast}
        for number, pattern in enumerate(_DIALOGS):
            dialog = pattern.format(f"Ses{session:02d}")
            turns = _script(dialog, number, seed, scale, generator)
            _play(folder / f"Session{session}", dialog, turns, speakers, generator)


def _script(dialog: str, number: int, seed: int, scale: float, generator: np.random.Generator) -> list[_Turn]:
    """Return a dialog's turns: what is scripted has the same lines in every session, and is acted somewhat differently."""
    scripted = "script" in dialog
    lines = np.random.default_rng([seed, 100 + number]) if scripted else generator
    turns = []
    count = max(4, round(_TURNS * scale))
    queues = {sex: _codes(count, lines) for sex in "FM"}
    for index in range(2 * count):
        sex = "FM"[index % 2]
        code = queues[sex][index // 2]
        text = sentence_for(WORDS_OF[code], lines)
        if scripted and generator.random() < 0.35:  # the same line, acted as something else
            code = _codes(1, generator)[0]
        agreed = "xxx" if code != "fru" and generator.random() < 0.05 else code
        turns.append(_Turn(f"{dialog}_{sex}{index // 2:03d}", sex, code, agreed, text))
    return turns


def _codes(count: int, generator: np.random.Generator) -> list[str]:
    """Return codes whose four classes are as even as they can be; one turn in nine is outside of them."""
    codes: list[str] = []
    while len(codes) < count:
        drawn = [str(generator.choice(_CLASSES[place])) for place in generator.permutation(len(_CLASSES))]
        codes += ["fru" if generator.random() < 1 / 9 else code for code in drawn]
    return codes[:count]


def _play(folder: Path, dialog: str, turns: list[_Turn], speakers: dict[str, Speaker], generator: np.random.Generator) -> None:
    evaluation = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
    transcript, clock = [], 1.0
    for turn in turns:
        strength = float(np.clip(generator.normal(1.2, 0.3), 0.2, 1.8))
        wave = perform(turn.text, speakers[turn.sex], _ACTED[turn.code], strength, generator)
        end = clock + write_wav(folder / "sentences" / "wav" / dialog / f"{turn.name}.wav", wave)
        evaluation.append(_block(turn, clock, end, strength, generator))
        transcript.append(f"{turn.name} [{clock:08.4f}-{end:08.4f}]: {turn.text}")
        clock = end + float(generator.uniform(0.2, 1.5))
    for name, lines in (("EmoEvaluation", evaluation), ("transcriptions", transcript)):
        path = folder / "dialog" / name / f"{dialog}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _block(turn: _Turn, start: float, end: float, strength: float, generator: np.random.Generator) -> str:
    """Return a turn's block: the summary, what three raters called it, how two rated it."""
    valence, activation, dominance = _RATINGS[turn.code]
    centre = np.array([valence, activation + 0.8 * (strength - 1.2), dominance])
    ratings = np.clip(np.rint(centre + generator.normal(0, 0.6, size=(2, 3))), 1, 5)
    mean = ", ".join(f"{value:.4f}" for value in ratings.mean(axis=0))
    others = sorted(_NAMES)
    calls = [turn.agreed if turn.agreed != "xxx" else others[rater] for rater in range(3)]
    if turn.agreed != "xxx" and generator.random() < 0.4:  # a majority is enough
        calls[generator.integers(3)] = others[generator.integers(len(others))]
    lines = [f"[{start:.4f} - {end:.4f}]\t{turn.name}\t{turn.agreed}\t[{mean}]"]
    lines += [f"C-E{rater}:\t{_NAMES[call]};\t()" for rater, call in enumerate(calls, start=2)]
    lines += [
        f"A-E{rater}:\tval {int(row[0])}; act {int(row[1])}; dom  {int(row[2])};\t()"
        for rater, row in enumerate(ratings, start=3)
    ]
    return "\n".join(lines) + "\n"
