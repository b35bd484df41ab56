"""Transcripts of the files to predict: from a list, from a text beside the file, or from a recogniser; never made up."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from ..core.errors import UserError
from ..core.files import NO_FILE, expanded, hash_file, obstacle, plain_disk_errors
from ..corpus.base import Utterance
from ..corpus.fingerprints import row_key
from ..corpus.transcription.recogniser import Recogniser, find_asr
from ..corpus.transcription.transcribe import transcripts_of
from ..corpus.transcription.transcripts import TranscriptCache
from .predict import TranscriptLookup
from .waveforms import SAMPLE_RATE, AudioItem, name_of, read_waveform

Transcriber = Callable[[AudioItem], str]  # an item -> its transcript


def lookup_transcripts(model: str | None = None, device: str = "cpu") -> TranscriptLookup:
    """Return the lookup of an item's transcript, by a recogniser (if any) where nobody wrote one down.

    The recogniser is checked at once, and loaded where it is needed first; its transcripts are cached.
    """
    if model is None:
        return text_for
    asr = find_asr(model)
    return partial(text_for, transcribe=partial(_recognised, cache(partial(Recogniser, asr, device)), transcripts_of(asr), {}))


def _recognised(load: Callable[[], Recogniser], kept: TranscriptCache, known: dict[str, str], item: AudioItem) -> str:
    """Return the recogniser's transcript of an item: the cached one of these bytes, else a new one."""
    if not isinstance(item, (str, Path, Utterance)):
        return load().text(read_waveform(item))
    row = item if isinstance(item, Utterance) else Utterance(str(item), str(item))
    key = row_key(hash_file(row.audio), row, SAMPLE_RATE)
    known |= kept.read()  # with what other processes found meanwhile
    if key not in known:
        known[key] = load().text(read_waveform(item))
        with plain_disk_errors(kept.path):
            kept.keep({key: known[key]})
    return known[key]


def text_for(item: AudioItem, transcribe: Transcriber | None = None) -> str:
    """Return an item's transcript: the list's text, the text in `x.txt` beside `x.wav`, else the recogniser's."""
    text = item.text if isinstance(item, Utterance) else None
    if text is None and isinstance(item, (str, Path, Utterance)):
        text = _text_beside(item)
    if text is not None:
        return text
    if transcribe is not None:
        return transcribe(item)
    if isinstance(item, Utterance):
        sought, fill = f"in its row of the list, nor in {Path(item.audio).with_suffix('.txt')}", "Fill a column 'text'"
    elif isinstance(item, (str, Path)):
        sought, fill = f"in {Path(item).with_suffix('.txt')}", "Write it there, give a list with a column 'text'"
    else:
        sought, fill = "beside it", "Give its text"
    raise UserError(
        f"Expected the words of {name_of(item)} (the run reads text), found nothing {sought}. {fill}, or add --transcribe."
    )


def _text_beside(item: str | Path | Utterance) -> str | None:
    """Return the text of `x.txt` beside `x.wav`, which may be empty; None where there is no such file.

    It is the text of the whole file: a stretch of one has no part of it.
    """
    if isinstance(item, Utterance) and (item.start or item.duration is not None):
        return None
    audio = Path(item.audio if isinstance(item, Utterance) else item)
    path = expanded(audio).with_suffix(".txt")
    if obstacle(path) == NO_FILE:
        raise UserError(f"Expected the words of {audio.name} as UTF-8 text in {path}, found {NO_FILE}. Save it so.")
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as problem:  # ValueError: no UTF-8, or a name that no file can have
        raise UserError(f"Expected the words of {audio.name} as UTF-8 text in {path}, found: {problem}. Save it so.") from None
