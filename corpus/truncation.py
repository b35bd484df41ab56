"""Whether an audio file is cut short: libsndfile decodes what is left of it, and says nothing."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

_STREAMED = 0x7FFFF000  # a WAV written to a pipe promises this much or more (or 0) because its length was not known
_MOST_CHUNKS = 1000  # in front of a RIFF file's data: zeros behind a header would be millions of empty ones
_WAVE64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb"  # the beginning of the name of its first chunk
_LONGEST_PAGE = 27 + 255 + 255 * 255  # of Ogg: header, table of segments, segments
_SIDE_INFO = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}  # MP3: (MPEG 1, mono) -> bytes
_LONGEST_FRAME = 1441  # of MP3: encoders differ by one in what they count


def missing_end(path: Path, data: bytes | None = None) -> str | None:
    """Return how an audio file is cut short, as far as its form tells; None where it does not. `data` are its bytes, if read."""
    with path.open("rb") if data is None else io.BytesIO(data) as file:
        head, size = file.read(12), os.fstat(file.fileno()).st_size if data is None else len(data)
        if head[:4] == b"OggS":
            return None if _ends_with_a_page(file, size) else "cut short: its last page is not whole"
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            missing = _missing_of_riff(file, size)
        elif head[:4] == b"FORM" and head[8:] in (b"AIFF", b"AIFC"):
            missing = 8 + int.from_bytes(head[4:8], "big") - size
        elif head[:4] == b".snd" and head[8:] != b"\xff\xff\xff\xff":  # which stands for a length that was not known
            missing = int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:], "big") - size
        elif head[:4] == b"RF64" and head[8:] == b"WAVE" and file.read(4) == b"ds64":
            file.seek(20)
            missing = 8 + int.from_bytes(file.read(8), "little") - size
        elif head == _WAVE64:
            file.seek(16)
            missing = int.from_bytes(file.read(8), "little") - size
        elif head[:4] == b"caff":
            missing = _missing_of_caf(file, size)
        else:
            missing = _missing_of_mp3(file, size)
    return f"cut short: the header promises {missing} bytes more than the file holds" if missing > 0 else None


def _missing_of_riff(file: BinaryIO, size: int) -> int:
    for _ in range(_MOST_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            return 0 if length == 0 or length >= _STREAMED else file.tell() + length - size
        file.seek(length + length % 2, os.SEEK_CUR)  # chunks begin at even positions
    return 0


def _missing_of_caf(file: BinaryIO, size: int) -> int:
    file.seek(8)
    for _ in range(_MOST_CHUNKS):
        chunk = file.read(12)
        length = int.from_bytes(chunk[4:], "big", signed=True)  # -1 of data that go on to the end
        if len(chunk) < 12 or length < 0:
            break
        if chunk[:4] == b"data":
            return file.tell() + length - size
        file.seek(length, os.SEEK_CUR)
    return 0


def _ends_with_a_page(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - 2 * _LONGEST_PAGE))
    end = file.read()
    page = end[end.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    behind = page[27 + page[26] + sum(page[27 : 27 + page[26]]) :]
    whole = len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return whole and not (behind and b"OggS".startswith(behind))  # the beginning of a next one


def _missing_of_mp3(file: BinaryIO, size: int) -> int:
    """Return what the first frame's Xing or Info header promises beyond the file's end; 0 where there is none."""
    file.seek(0)
    tag = file.read(10)
    first = 0
    if tag[:3] == b"ID3" and len(tag) == 10:
        first = 10 + sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)) + 10 * bool(tag[5] & 16)
    file.seek(first)
    frame = file.read(60)
    if len(frame) < 60 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # the beginning of a frame of layer III
        return 0
    place = 4 + _SIDE_INFO[frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3]
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    if frame[place : place + 4] not in (b"Xing", b"Info") or not flags & 2:
        return 0
    place += 12 if flags & 1 else 8  # the count of frames comes first
    missing = first + int.from_bytes(frame[place : place + 4], "big") - size
    return missing if missing > _LONGEST_FRAME else 0
