"""A miniature of MSP-Podcast in its official layout: rated talk from podcasts, some of them in test2 alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .acting import Speaker, Style, draw_speaker, in_silence, over_noise, voiced, write_wav
from .rooms import sloped
from .texts.talk import TOPICS, graded_sentence, misheard

_SEEN, _UNSEEN = 12, 6  # podcasts
# split -> speakers of each seen podcast, of each unseen one, utterances of each speaker at scale 1
_PLAN = {"Train": (2, 0, 11), "Development": (1, 0, 8), "Test1": (1, 0, 9), "Test2": (0, 2, 9), "Test3": (0, 1, 4)}
_NOT_KNOWN = {"Train": 5, "Test1": 12, "Test2": 12}  # every so-manieth speaker is `Unknown`
_ACCENTS = ("en-us", "en", "en-gb-x-rp")
# class -> valence, arousal, dominance around which it is called so, in standard deviations
_CENTRES = {
    "N": (0.1, -0.5, 0.0),
    "H": (1.3, 0.3, 0.1),
    "A": (-1.0, 1.1, 0.9),
    "S": (-1.1, -1.1, -0.7),
    "U": (0.4, 1.4, -0.3),
    "F": (-0.8, 0.9, -1.0),
    "D": (-1.3, 0.0, 0.5),
    "C": (-0.4, -0.4, 1.2),
}
_RATERS = 5


@dataclass(frozen=True)
class _Podcast:
    number: int
    topic: str
    slope: float  # dB for each octave: the microphone
    gain: float  # dB
    noise: float  # dB below the voice


@dataclass(frozen=True)
class _State:
    """How somebody feels who speaks, in standard deviations: valence is independent of arousal."""

    valence: float
    arousal: float
    dominance: float


@dataclass(frozen=True)
class _Segment:
    file: str
    split: str
    podcast: _Podcast
    speaker: Speaker
    speaker_id: str
    state: _State
    emotion: str


_WORD_ERRORS = {"asr_base.csv": 0.22, "asr_tiny.csv": 0.24}  # share of words; the paper's Whisper base and tiny


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write Audios, Labels, Transcripts, Partitions.txt and Speaker_ids.txt; about 600 utterances at scale 1.

    Beside them lie two tables of transcripts as recognisers of two sizes may hear them (`--transcripts asr_base.csv`).
    """
    labels = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    partitions, identities = [], []
    transcripts: dict[str, list[str]] = {name: ["id,text"] for name in _WORD_ERRORS}
    (folder / "Transcripts").mkdir(parents=True)
    for number, segment in enumerate(_script(seed, scale)):
        generator = np.random.default_rng([seed, 2, number])
        text = _speak(folder / "Audios" / f"{segment.file}.wav", segment, generator)
        partitions.append(f"{segment.split}; {segment.file}.wav")
        for place, (name, share) in enumerate(_WORD_ERRORS.items()):
            transcripts[name].append(f"{segment.file},{misheard(text, share, np.random.default_rng([seed, 3 + place, number]))}")
        if segment.split == "Test3":  # who speaks, what is said and how it is rated are hidden
            continue
        labels.append(f"{segment.file}.wav,{_rated(segment, generator)},{segment.split}")
        identities.append(f"{segment.file}.wav; {segment.speaker_id}")
        if generator.random() > 0.02:
            (folder / "Transcripts" / f"{segment.file}.txt").write_text(f"{text}\n", encoding="utf-8")
    (folder / "Labels").mkdir()
    for path, lines in (
        ("Labels/labels_consensus.csv", labels),
        ("Partitions.txt", partitions),
        ("Speaker_ids.txt", identities),
        *transcripts.items(),
    ):
        (folder / path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _script(seed: int, scale: float) -> Iterator[_Segment]:
    """Yield who says what in which podcast: no speaker is in two splits, every split's first takes go through all classes."""
    podcasts = _podcasts(np.random.default_rng([seed, 0]))
    turns = [0] * len(podcasts)
    number = 0
    for split, (seen, unseen, takes) in _PLAN.items():
        for place in [each for each in range(len(podcasts)) for _ in range(seen if each < _SEEN else unseen)]:
            number += 1
            generator = np.random.default_rng([seed, 1, number])
            speaker = draw_speaker(_ACCENTS[generator.integers(3)], "FM"[number % 2], generator)
            known = not _NOT_KNOWN.get(split) or number % _NOT_KNOWN[split]
            emotion, state = _feel(list(_CENTRES)[number % 8], None, generator)
            for take in range(max(1, round(takes * scale))):
                if take:  # in pairs of opposite valence: no voice, no microphone and no topic stands for one
                    emotion, state = _feel(None, -state.valence if take % 2 else None, generator)
                turns[place] += int(generator.integers(1, 9))
                name = f"MSP-PODCAST_{podcasts[place].number:04d}_{turns[place]:04d}"
                identity = str(number) if known else "Unknown"
                yield _Segment(name, split, podcasts[place], speaker, identity, state, emotion)


def _podcasts(generator: np.random.Generator) -> list[_Podcast]:
    """Return podcasts with a topic, a microphone and a noise of their own; those of test2 are recorded less well."""
    topics, numbers = list(TOPICS), 1 + generator.permutation(2000)[: _SEEN + _UNSEEN]
    podcasts = []
    for place, number in enumerate(numbers):
        seen = place < _SEEN
        topic = topics[place % 5] if seen else topics[5 + place % 3]
        spread = 2.0 if seen else 4.0
        slope, gain = generator.uniform(-spread, spread, size=2)
        noise = generator.uniform(18, 30) if seen else generator.uniform(10, 20)
        podcasts.append(_Podcast(int(number), topic, float(slope), float(gain), float(noise)))
    return podcasts


def _feel(wanted: str | None, valence: float | None, generator: np.random.Generator) -> tuple[str, _State]:
    """Return a class and a state of this valence, or of any; where a class is wanted, states are drawn until one is called so."""
    while True:
        drawn, arousal, own = generator.normal(size=3)
        valence = float(drawn) if wanted or valence is None else valence
        dominance = 0.6 * arousal + 0.8 * own
        seen = np.array([valence, arousal, dominance]) + 0.35 * generator.normal(size=3)
        emotion = min(_CENTRES, key=lambda code: float(np.sum((seen - np.array(_CENTRES[code])) ** 2)))
        if wanted is None and generator.random() < 0.12:
            emotion = "OX"[generator.integers(2)]
        if wanted in (None, emotion):
            return emotion, _State(valence, float(arousal), float(dominance))


def _speak(path: Path, segment: _Segment, generator: np.random.Generator) -> str:
    """Write the audio and return the words: the voice tells arousal and dominance, the words valence."""
    state, podcast = segment.state, segment.podcast
    grade = int(np.clip(np.rint(1.25 * state.valence + 0.2 * generator.normal()), -2, 2))
    text = graded_sentence(grade if generator.random() < 0.95 else 0, podcast.topic, generator)
    style = Style(
        pitch=10 * state.arousal - 4 * state.dominance + 3 * state.valence,
        range=8 * state.arousal + 8 * state.valence,
        rate=18 * state.arousal,
        loudness=2 * state.arousal + 2.5 * state.dominance,
        word_gap=-0.8 * state.arousal + 0.8 * state.dominance,
        tilt=0.15 * state.arousal + 0.15 * state.dominance + 0.08 * state.valence,
    )
    wave = voiced(text, segment.speaker, style, 1.0, generator)
    wave = sloped(in_silence(wave, generator), podcast.slope) * 10 ** (podcast.gain / 20)
    write_wav(path, over_noise(wave, (podcast.noise - 1, podcast.noise + 1), generator))
    return text


def _rated(segment: _Segment, generator: np.random.Generator) -> str:
    """Return class, mean ratings of five raters on 1..7, speaker and gender, as the table has them."""
    state = segment.state
    felt = 4 + 1.15 * np.array([state.arousal, state.valence, state.dominance])
    ratings = np.clip(np.rint(felt + 0.8 * generator.normal(size=(_RATERS, 3))), 1, 7).mean(axis=0)
    gender = "Unknown" if segment.speaker_id == "Unknown" else {"F": "Female", "M": "Male"}[segment.speaker.sex]
    return ",".join([segment.emotion, *(f"{rating:.1f}" for rating in ratings), segment.speaker_id, gender])
