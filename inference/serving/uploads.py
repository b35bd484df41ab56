"""Audio that came as bytes: read as a file is, in memory where the system can, and never kept."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ...core.errors import UserError
from ...core.text import printable
from ...corpus.arrays import SAMPLE_RATE
from ...corpus.audio import read_audio, refuse_cut
from ..waveforms import Waveform

_DECODERS = threading.BoundedSemaphore(4)  # at once: a kilobyte of flac may take 0.7 GB while it is decoded
_LONGEST_NAME = 120  # characters of a file's name that are repeated in a reply


class TooLong(UserError):
    """Audio of more seconds than are allowed."""


@dataclass(frozen=True)
class Upload:
    """A file as it came, and its text where one came with it."""

    name: str
    content: bytes = field(repr=False)
    text: str | None = field(default=None, repr=False)


def plain_name(name: str | None) -> str:
    """Return the last part of a file's name as a client gave it, such as can be printed."""
    return printable(PurePath((name or "").replace("\\", "/")).name)[:_LONGEST_NAME] or "audio"


def waveform_of(upload: Upload, most_seconds: float) -> Waveform:
    """Return an upload's waveform at 16 kHz, read by the function that files go through."""
    if not upload.content:
        raise UserError(f"Expected audio, found an empty file: {upload.name}. Send the bytes of a wav, flac, ogg or mp3.")
    with _DECODERS, readable_path(upload.content) as path:
        try:
            refuse_cut(path)
            samples = read_audio(path, 0.0, most_seconds + 1.0, SAMPLE_RATE)  # a header may promise a day
        except UserError as problem:
            raise type(problem)(str(problem).replace(str(path), upload.name)) from None
    if len(samples) > most_seconds * SAMPLE_RATE:
        raise TooLong(f"Expected at most {most_seconds:g} s of audio, found more: {upload.name}. Cut the file.")
    return Waveform(samples, SAMPLE_RATE, upload.name)


@contextmanager
def readable_path(content: bytes) -> Iterator[Path]:
    """Give bytes a path for as long as they are read: in memory on Linux, else a temporary file, which is removed."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("upload")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            yield Path(f"/proc/self/fd/{handle}")
        return
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        path = Path(folder) / "upload"
        path.write_bytes(content)
        yield path
