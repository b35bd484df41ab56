"""What is said in the files that a run is asked about: told by a list, written beside the file, or recognised; never made up."""

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
from .ask import Words
from .waveforms import SAMPLE_RATE, Heard, hear, name_of

Transcriber = Callable[[Heard], str]  # an item -> what is said in it


def words_by(model: str | None = None, device: str = "cpu") -> Words:
    """Return what gives the words of an item that a run is asked about, those that nobody wrote down by a recogniser if any.

    The recogniser is checked at once, and loaded where it is needed first; what it heard in a file is remembered.
    """
    if model is None:
        return text_for
    asr = find_asr(model)
    return partial(text_for, transcribe=partial(_recognised, cache(partial(Recogniser, asr, device)), transcripts_of(asr), {}))


def _recognised(load: Callable[[], Recogniser], kept: TranscriptCache, known: dict[str, str], item: Heard) -> str:
    """Return what is said in an item: what a recogniser was found to have heard in these bytes, else what it hears now."""
    if not isinstance(item, (str, Path, Utterance)):
        return load().text(hear(item))
    row = item if isinstance(item, Utterance) else Utterance(str(item), str(item))
    key = row_key(hash_file(row.audio), row, SAMPLE_RATE)
    known |= kept.read()  # with what other processes found meanwhile
    if key not in known:
        known[key] = load().text(hear(item))
        with plain_disk_errors(kept.path):
            kept.keep({key: known[key]})
    return known[key]


def text_for(item: Heard, transcribe: Transcriber | None = None) -> str:
    """Return what is said in an item: the list's text, the text in `x.txt` beside `x.wav`, else what is recognised."""
    told = item.text if isinstance(item, Utterance) else None
    if told is None and isinstance(item, (str, Path, Utterance)):
        told = _text_beside(item)
    if told is not None:
        return told
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
