"""Audio inside tars, as WebDataset packs it (KEY.flac beside KEY.json), read without unpacking."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ...core.errors import UserError
from ...core.files import obstacle
from ..locate import AUDIO

TARS = (".tar", ".tar.gz", ".tgz")


def members(tar: Path, done: frozenset[str] = frozenset()) -> Iterator[tuple[str, bytes]]:
    """Yield (TAR/NAME, bytes) of each file of audio in a tar, in order; those that are done are passed over, not read.

    UserError where the tar cannot be read, or not to its end.
    """
    with readable(tar) as archive:
        for member in archive:
            name = f"{tar}/{member.name}"
            if not is_audio(member) or name in done:
                continue
            file = archive.extractfile(member)
            data = b"" if file is None else file.read()
            if len(data) < member.size:
                raise tarfile.ReadError("unexpected end of data")
            yield name, data


def is_audio(member: tarfile.TarInfo) -> bool:
    """Return whether a member is a file of audio, and no litter of macOS."""
    path = PurePosixPath(member.name)
    return member.isfile() and path.suffix.lower() in AUDIO and not path.name.startswith("._")


@contextmanager
def readable(tar: Path) -> Iterator[tarfile.TarFile]:
    """Give a tar to read in order; one that is packed is read as a stream. What is wrong with it becomes one line."""
    problem = obstacle(tar)
    try:
        if problem is None:
            with tarfile.open(tar, "r:" if is_plain(tar) else "r|gz") as archive:
                yield archive
                if is_plain(tar) and not tar_ends(tar, archive.offset):
                    raise tarfile.ReadError("no end of the tar: it is cut short")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        problem = str(error)
    if problem is not None:
        raise UserError(f"Expected a tar that can be read to its end, found {problem}: {tar}. Replace it, or leave it out.")


def is_plain(tar: Path) -> bool:
    """Return whether a tar's name says that it is not packed."""
    return tar.name.lower().endswith(".tar")


def tar_ends(tar: Path, offset: int) -> bool:
    """Return whether anything stands behind the last member: tarfile takes the end of a file for the end of the tar."""
    with tar.open("rb") as file:
        file.seek(offset)
        return bool(file.read(512))
