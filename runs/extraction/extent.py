"""How much audio a source has: from the headers of all recordings, or from those of a sample."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UserError
from ...corpus.audio import header_seconds
from ...corpus.base import Utterance
from ...corpus.recordings.cut import bounds_of
from ...corpus.recordings.source import Source
from ...corpus.recordings.tars import is_audio, is_plain, readable

MOST_HEADERS = 2000  # that are all read; of more recordings
SAMPLED = 500  # are
TARS, OF_TAR = 5, 400  # tars of a sample, and recordings of each


@dataclass(frozen=True)
class Measured:
    """Some recordings: how much of the whole they are, and the seconds of their utterances."""

    share: float  # of all recordings, or bytes of tars
    recordings: int
    utterances: tuple[float, ...]  # seconds of each
    by_recording: tuple[float, ...]  # seconds of each


@dataclass(frozen=True)
class Extent:
    """How much audio there is."""

    recordings: int
    utterances: int
    seconds: float
    frames: int
    longest: float  # seconds of the longest utterance that was measured
    how: str  # it was measured


def measure_extent(source: Source, stretch: float | None, num_frames: Callable[[float], int]) -> Extent:
    """Return how much audio a source has, once it is cut."""
    found = measure_tars(source, stretch) if source.kind == "tars" else measure_files(source, stretch)
    if not found.utterances:
        raise UserError(f"Expected audio in {source.place}, found none that can be read. Check the path.")
    seconds, count = sum(found.utterances), len(found.utterances)
    frames = sum(num_frames(one) for one in found.utterances)
    recordings = round(found.recordings / found.share)
    how = f"from the headers of all {found.recordings} recordings"
    if found.share < 1:
        margin = f"± {spread(found.by_recording):.0%}"
        how = f"estimated from the headers of {found.recordings} of about {recordings} recordings, {margin}"
    extent = (round(count / found.share), seconds / found.share, round(frames / found.share))
    return Extent(recordings, *extent, max(found.utterances), how)


def spread(seconds: Sequence[float]) -> float:
    """Return the half width of the 95 % interval of a sum that a sample stands for, as a share of it."""
    mean = sum(seconds) / len(seconds)
    deviation = math.sqrt(sum((one - mean) ** 2 for one in seconds) / max(1, len(seconds) - 1))
    return 1.96 * deviation / math.sqrt(len(seconds)) / mean if mean else 0.0


def measure_files(source: Source, stretch: float | None) -> Measured:
    """Measure files of a folder or a table; rows that say where they end are not opened."""
    files = source.files
    named = [row for rows in source.stretches.values() for row in rows]
    if named and all(row.duration is not None for row in named):
        seconds = tuple(row.duration or 0.0 for row in named)
        return Measured(1.0, len(files), seconds, seconds)
    chosen = files if len(files) <= MOST_HEADERS else random.Random(0).sample(files, SAMPLED)
    rows: list[tuple[float, ...]] = []
    for path in chosen:
        try:
            length = header_seconds(path)
        except UserError:  # it is a failure of its shard
            continue
        stretches = source.stretches.get(str(path), (Utterance("", ""),))
        rows.append(tuple(one for row in stretches for one in lengths(row, length, stretch)))
    return Measured(
        len(chosen) / len(files), len(chosen), tuple(one for of_file in rows for one in of_file), tuple(map(sum, rows))
    )


def lengths(row: Utterance, seconds: float, stretch: float | None) -> Iterator[float]:
    """Yield the seconds of the utterances that a row is cut into."""
    if row.duration is not None:
        yield row.duration
    elif stretch is None:
        yield max(0.0, seconds - row.start)
    else:
        yield from (end - start for start, end in bounds_of(row.start, seconds, stretch))


def measure_tars(source: Source, stretch: float | None) -> Measured:
    """Measure tars: all of them where they are few and small, else the beginnings of some."""
    few = len(source.files) <= TARS
    chosen = source.files if few else random.Random(0).sample(source.files, TARS)
    rows: list[tuple[float, ...]] = []
    seen, whole = 0, sum(path.stat().st_size for path in source.files)
    for tar in chosen:
        size, found = measure_tar(tar, stretch, MOST_HEADERS if few else OF_TAR)
        seen += size
        rows += found
    share = min(1.0, seen / whole)
    return Measured(share, len(rows), tuple(one for of_file in rows for one in of_file), tuple(map(sum, rows)))


def measure_tar(tar: Path, stretch: float | None, most: int) -> tuple[int, list[tuple[float, ...]]]:
    """Return how many bytes of a tar were looked at, and the seconds of its recordings' utterances."""
    rows: list[tuple[float, ...]] = []
    size = tar.stat().st_size
    try:
        with readable(tar) as archive:
            for member in archive:
                file = archive.extractfile(member) if is_audio(member) else None
                if file is None:
                    continue
                if is_plain(tar) and member.offset_data + member.size > size:  # cut short: libsndfile would meet the end
                    break
                try:
                    length = header_seconds(member.name, file if is_plain(tar) else io.BytesIO(file.read()))
                except UserError:
                    continue
                rows.append(tuple(lengths(Utterance("", ""), length, stretch)))
                if len(rows) >= most and is_plain(tar):
                    return member.offset_data + member.size, rows
    except UserError:  # it is a failure of its shard
        pass
    return size, rows
