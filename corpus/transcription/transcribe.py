"""Transcribe with a recogniser: each distinct stretch of audio once, cached, and compared with the human text."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ...core.errors import UserError
from ...core.files import cache_folder, plain_disk_errors, write_text
from ..audio import Broken, check_files, read_audio
from ..base import Corpus, Utterance
from ..fingerprints import hashes_folder, row_keys
from ..tables import TABLES
from .recogniser import SAMPLE_RATE, AsrModel, Recogniser, find_asr
from .transcripts import TranscriptCache, texts_of_table, with_texts


@dataclass(frozen=True)
class Transcribed:
    """The transcripts of a corpus, and what they took."""

    texts: dict[str, str]  # utterance id -> text
    broken: list[Broken]  # passed over
    hours: float  # of all audio that can be read
    fresh: int  # stretches recognised now; the others were remembered
    fresh_hours: float
    seconds: float  # spent on them


@dataclass(frozen=True)
class WordErrors:
    """Word errors against the human text, both sides normalised."""

    errors: int
    spelling: int  # of the human text
    left_out: int  # utterances whose human text has no words

    @property
    def rate(self) -> float:
        """The word error rate."""
        return self.errors / self.spelling


def transcripts_of(asr: AsrModel) -> TranscriptCache:
    """Return where a recogniser's texts are remembered."""
    about = {"model": asr.name, "language": asr.language, "fingerprint": asr.fingerprint}
    return TranscriptCache(cache_folder() / "transcripts" / f"{asr.fingerprint[:32]}.jsonl", about)


def transcribe(utterances: Sequence[Utterance], asr: AsrModel, device: str = "cpu") -> Transcribed:
    """Return the transcript of each utterance; a kill costs the pass that was running, and the same call resumes behind it."""
    lengths, broken = check_files(utterances, cache_folder())
    audible = [utterance for utterance in utterances if utterance.id in lengths]
    keys = row_keys(audible, hashes_folder(), SAMPLE_RATE)
    cache = transcripts_of(asr)
    known = cache.read()
    todo = {keys[row.id]: row for row in audible if keys[row.id] not in known}
    recogniser = Recogniser(asr, device) if todo else None  # loading it is not what an hour of audio costs
    began = time.monotonic()
    added, fresh = ({}, []) if recogniser is None else _recognise(todo, recogniser, cache)
    known |= added
    return Transcribed(
        texts={row.id: known[keys[row.id]] for row in audible},
        broken=broken,
        hours=sum(lengths.values()) / 3600,
        fresh=len(fresh),
        fresh_hours=sum(lengths[row.id] for row in fresh) / 3600,
        seconds=time.monotonic() - began,
    )


def _recognise(
    todo: Mapping[str, Utterance], recogniser: Recogniser, cache: TranscriptCache
) -> tuple[dict[str, str], list[Utterance]]:
    """Return the texts by key, and what this process recognised of them: another one may be at the same corpus."""
    from tqdm import tqdm

    keys, texts, fresh = [*todo], dict[str, str](), list[Utterance]()
    random.Random(os.getpid()).shuffle(keys)  # two commands at once seldom transcribe the same
    left = iter(keys)
    with plain_disk_errors(cache.path), tqdm(total=len(keys), desc="transcribing", unit="utt", disable=None) as bar:
        while some := list(islice((key for key in left if key not in texts), recogniser.at_once)):
            rows = [todo[key] for key in some]
            waveforms = [read_audio(row.audio, row.start, row.duration, SAMPLE_RATE) for row in rows]
            recognised = dict(zip(some, recogniser.texts(waveforms), strict=True))
            cache.keep(recognised)
            added = cache.read() | recognised  # with what other processes found meanwhile
            texts |= added
            fresh += rows
            bar.update(len(added.keys() & todo.keys()))
    return texts, fresh


def with_transcripts(corpus: Corpus, what: str, *, where: str = "") -> Corpus:
    """Return a corpus with the texts of a table, or with the cached texts of a recogniser.

    `where` are the words that made this corpus (`--data DIR`, `--demo`), for the command that makes what is missing.
    """
    rows = [utterance for split in corpus.splits.values() for utterance in split]
    path = Path(what).expanduser()
    if path.suffix.lower() in TABLES:
        transcribed = with_texts(corpus, texts_of_table(path, rows), source=what, make="Add rows for them.")
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        return compared(corpus, transcribed, path.stem, EnglishTextNormalizer({}))
    asr = find_asr(what)
    lengths, _ = check_files(rows, cache_folder())
    keys = row_keys([row for row in rows if row.id in lengths], hashes_folder(), SAMPLE_RATE)
    known = transcripts_of(asr).read()
    texts = {utterance: known[key] for utterance, key in keys.items() if key in known}
    language = "" if asr.spelling == asr.name else f" --language {asr.language}"
    command = f"headwater corpus transcribe {corpus.name}{where and f' {where}'} --model {asr.name}{language}"
    transcribed = with_texts(corpus, texts, source=what, make=f"Make them: `{command}`", audible=lengths)
    return compared(corpus, transcribed, what, normalizer_of(asr)[0])


def compared(corpus: Corpus, transcribed: Corpus, source: str, normalize: Callable[[str], str]) -> Corpus:
    """Return a corpus of other words with their source, and how far they are from the corpus' own, in its tables."""
    texts = {row.id: row.text for rows in transcribed.splits.values() for row in rows}

    def rate(rows: Sequence[Utterance]) -> float | None:
        """Return the word error rate over utterances that have both texts."""
        own = [(row.id, row.text) for row in rows if row.text and texts[row.id] is not None]
        found = word_errors([(text, texts[name] or "") for name, text in own], normalize)
        return None if found is None else found.rate

    by_split = {split: rate(rows) for split, rows in corpus.splits.items()}
    whole = rate([row for rows in corpus.splits.values() for row in rows])
    return replace(
        transcribed, tables={**transcribed.tables, "transcripts": {"source": source, "wer": whole, "wer_by_split": by_split}}
    )


def normalizer_of(asr: AsrModel) -> tuple[Callable[[str], str], str]:
    """Return Whisper's normaliser for a recogniser's language, and what it is called."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if asr.language != "en":
        return BasicTextNormalizer(), "Whisper's basic normaliser"
    path = asr.folder / "normalizer.json"
    if not path.is_file():
        return EnglishTextNormalizer({}), "Whisper's English normaliser without its table of British spellings"
    return EnglishTextNormalizer(json.loads(path.read_text(encoding="utf-8"))), "Whisper's English normaliser"


def word_errors(pairs: Sequence[tuple[str, str]], normalize: Callable[[str], str]) -> WordErrors | None:
    """Return the word errors of pairs (human text, transcript), over all of them; None where no human text has a word."""
    import jiwer

    plain = [(normalize(human), normalize(recognised)) for human, recognised in pairs]
    kept = [(human, recognised) for human, recognised in plain if human.strip()]
    if not kept:
        return None
    found = jiwer.process_words([human for human, _ in kept], [recognised for _, recognised in kept])
    words = found.hits + found.substitutions + found.deletions
    return WordErrors(found.substitutions + found.deletions + found.insertions, words, len(pairs) - len(kept))


def table_ending(path: Path) -> str:
    """Return the ending of a table to write to."""
    if path.suffix.lower() not in TABLES:
        raise UserError(f"Expected a table ({', '.join(sorted(TABLES))}) to write to, found '{path}'. Name it so.")
    return path.suffix.lower()


def write_texts(path: Path, texts: Mapping[str, str]) -> None:
    """Write texts by utterance id as the table that its ending names, whole or not at all."""
    ending, buffer = table_ending(path), io.StringIO()
    if ending == ".jsonl":
        buffer.writelines(json.dumps({"id": key, "text": text}, ensure_ascii=False) + "\n" for key, text in texts.items())
    else:
        writer = csv.writer(buffer, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n")
        writer.writerows([("id", "text"), *texts.items()])
    write_text(path, buffer.getvalue())
