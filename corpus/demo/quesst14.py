"""A miniature of QUESST 2014: sentences to search, and words of them spoken by other voices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .acting import Style, draw_speaker, in_silence, over_noise, voiced, write_wav
from .texts.talk import TOPICS, graded_sentence

_DOCUMENTS, _QUERIES = 80, 14  # at scale 1; queries of each split
_FEWEST = 2  # queries of a split
_SPLITS = ("dev", "eval")
_ENGLISH, _OTHER = "nnenglish", "slovak"  # of the release's six languages
_OTHERS = 2  # documents and queries that are listed in another language, as most of the release is
_VOICES = {_ENGLISH: ("en-us",), _OTHER: ("sk",)}


def make_demo(folder: Path, *, seed: int, scale: float) -> None:
    """Write 80 documents and 14 queries of each split at scale 1, in the layout of quesst14Database."""
    generator = np.random.default_rng(seed)
    nouns = [noun for words in TOPICS.values() for noun in words]
    count = max(_FEWEST, min(len(nouns) // 2, round(_QUERIES * scale)))
    drawn = [nouns[place] for place in generator.permutation(len(nouns))[: 2 * count]]
    topic_of = {noun: topic for topic, words in TOPICS.items() for noun in words}
    texts = [
        _sentence_with(drawn[place % len(drawn)], topic_of, generator)
        for place in range(max(2 * count, round(_DOCUMENTS * scale)))
    ]
    names = [f"quesst14_{number + 1:05d}" for number in range(len(texts) + _OTHERS)]
    languages = [_ENGLISH] * len(texts) + [_OTHER] * _OTHERS
    for name, language, text in zip(names, languages, [*texts, *["dobrý deň, ako sa máte"] * _OTHERS], strict=True):
        _say(folder / "Audio" / f"{name}.wav", text, language, generator)
    scoring = folder / "scoring"
    _write_list(scoring / "language_key_utterances.lst", "Audio", names, languages)
    for place, split in enumerate(_SPLITS):
        words = drawn[place::2]
        queries = [f"quesst14_{split}_{number + 1:04d}" for number in range(len(words) + _OTHERS)]
        languages = [_ENGLISH] * len(words) + [_OTHER] * _OTHERS
        for name, language, text in zip(queries, languages, [*words, *["deň"] * _OTHERS], strict=True):
            _say(folder / f"{split}_queries" / f"{name}.wav", text, language, generator)
        _write_list(scoring / f"language_key_{split}.lst", f"{split}_queries", queries, languages)
        spoken = dict(zip(names, texts, strict=False))
        truth = scoring / f"groundtruth_quesst14_{split}" / f"quesst14_{split}.rttm"
        _write_truth(
            truth, dict(zip(queries, words, strict=False)), spoken, dict.fromkeys(queries[len(words) :], names[len(texts) :])
        )


def _sentence_with(noun: str, topic_of: Mapping[str, str], generator: np.random.Generator) -> str:
    """Return a sentence that holds a noun."""
    while noun not in _words(text := graded_sentence(int(generator.integers(-2, 3)), topic_of[noun], generator)):
        pass
    return text


def _words(text: str) -> list[str]:
    return text.lower().replace(",", " ").replace(".", " ").split()


def _say(path: Path, text: str, language: str, generator: np.random.Generator) -> None:
    voices = _VOICES[language]
    speaker = draw_speaker(voices[generator.integers(len(voices))], "FM"[generator.integers(2)], generator)
    write_wav(path, over_noise(in_silence(voiced(text, speaker, Style(), 1.0, generator), generator), (20, 30), generator))


def _write_list(path: Path, place: str, names: Sequence[str], languages: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"quesst14Database/{place}/{name}.wav {language}\n" for name, language in zip(names, languages, strict=True))
    path.write_text("".join(lines), encoding="utf-8")


def _write_truth(path: Path, queries: Mapping[str, str], texts: Mapping[str, str], others: Mapping[str, Sequence[str]]) -> None:
    held = {query: [name for name, text in texts.items() if word in _words(text)] for query, word in queries.items()}
    lines = (
        f"LEXEME {document} 1 0.000 1.000 {query} lex query 1.0\n"
        for query, documents in {**held, **others}.items()
        for document in documents
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
