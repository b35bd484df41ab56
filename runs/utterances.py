"""Which utterances of a corpus a run can use: those with readable audio, and with a transcript, where its roles need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.errors import UserError
from ..core.files import cache_folder, obstacle
from ..corpus.audio import Broken, check_files
from ..corpus.base import Utterance
from ..corpus.transcription.transcripts import require_texts
from ..upstream.base import Role, TokenCounter, Upstream
from .config.schema import CorpusConfig

SECONDS_PER_WORD = 0.4  # of speech: what a text counts for, where no audio is opened
Chosen = Mapping[str, tuple[Utterance, ...]]  # split -> the utterances that have a target


def usable_utterances(
    chosen: Chosen, config: CorpusConfig, upstreams: Mapping[Role, Upstream], *, writes: bool = False
) -> tuple[Chosen, dict[str, float], tuple[str, ...]]:
    """Return what a run can use of the utterances, the seconds of each, and what a user should know.

    `writes`: the transcript is what the run predicts.
    """
    seconds: dict[str, float] | None = None
    notes: tuple[str, ...] = ()
    if "audio" in upstreams:
        seconds, notes = audible(chosen, config)
        chosen = {name: tuple(row for row in rows if row.id in seconds) for name, rows in chosen.items()}
    if writes:
        chosen, note = require_texts(chosen, config.missing_text, "learns to write")
        notes = (*notes, note) if note else notes
    if "text" in upstreams:
        chosen, texts = readable(chosen, config, upstreams["text"])
        notes = (*notes, *texts)
    return chosen, estimated_seconds(chosen) if seconds is None else seconds, notes


def audible(chosen: Mapping[str, Sequence[Utterance]], config: CorpusConfig) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return seconds by utterance id; broken files stop the run, or are left out with corpus.skip_broken."""
    utterances = [utterance for rows in chosen.values() for utterance in rows]
    seconds, broken = check_files(utterances, cache_folder())
    if broken and not config.skip_broken:
        raise broken_files(
            broken, len(utterances), "Mend or remove these files, or go on without them with -o corpus.skip_broken=true."
        )
    return seconds, (f"{len(broken)} broken file{'s' * (len(broken) > 1)} left out",) if broken else ()


def refuse_absent(splits: Chosen) -> None:
    """Refuse a corpus of which no file is there; none is opened."""
    rows = [row for split in splits.values() for row in split]
    broken = [Broken(row.id, row.audio, found) for row in rows if (found := obstacle(row.audio))]
    if rows and len(broken) == len(rows):
        raise broken_files(broken, len(rows), "Check the paths: relative ones begin at the table's folder, or at audio_root.")


def broken_files(broken: Sequence[Broken], total: int, advice: str) -> UserError:
    """Return the error that names the first of the files that cannot be read."""
    listed = "\n".join(f"  {entry}" for entry in broken[:5])
    more = f"\n  and {len(broken) - 5} more" if len(broken) > 5 else ""
    return UserError(f"Expected readable audio for all {total} utterances, found {len(broken)} broken:\n{listed}{more}\n{advice}")


def readable(chosen: Chosen, config: CorpusConfig, reader: Upstream) -> tuple[Chosen, tuple[str, ...]]:
    """Return the utterances with a text each, as the config says what becomes of those without."""
    chosen, note = require_texts(chosen, config.missing_text)
    notes = [note] if note else []
    if isinstance(reader, TokenCounter):
        most = reader.max_tokens
        cut = sum(reader.num_tokens(row.text or "") > most for rows in chosen.values() for row in rows)
        notes += [f"{cut} texts are longer than the {most} tokens that '{reader.name}' reads: their ends are cut"] if cut else []
    return chosen, tuple(notes)


def estimated_seconds(chosen: Mapping[str, Sequence[Utterance]]) -> dict[str, float]:
    """Return a guess at each utterance's seconds from its text, for a run that opens no audio."""
    return {row.id: max(1.0, SECONDS_PER_WORD * len((row.text or "").split())) for rows in chosen.values() for row in rows}
