"""What a user names to predict on: audio files, folders and lists, as one list of files in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..corpus.table import likeliest, read_table
from ..errors import UserError

TABLES = {".csv", ".tsv", ".jsonl"}
# what soundfile reads, by ending: in a folder everything else is passed over
AUDIO = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".sph", ".nist", ".rf64"}


def files_of(names: Sequence[str]) -> list[str]:
    """Return the files that the names stand for, in the order given; a folder's files in the order of their paths."""
    return [file for name in names for file in _files_of(name)]


def _files_of(name: str) -> Iterable[str]:
    path = Path(name).expanduser()
    if path.is_dir():
        found = sorted(str(file) for file in path.rglob("*") if file.suffix.lower() in AUDIO and not file.name.startswith("._"))
        if not found:
            raise UserError(f"Expected audio files below '{name}', found none ({', '.join(sorted(AUDIO))}). Check the path.")
        return found
    if path.suffix.lower() in TABLES:
        return _listed(path)
    if path.suffix.lower() == ".txt" and path.is_file():
        return [_beside(path, line.strip()) for line in _text_of(path).splitlines() if line.strip()]
    return [str(path)]  # a file that is missing or broken has its own line in the answer


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as problem:
        raise UserError(f"Expected a list of files, one a line, in '{path}', found: {problem}. Save it as UTF-8 text.") from None


def _listed(path: Path) -> list[str]:
    headers, rows = read_table(path)
    header = likeliest("audio", headers)
    if header is None:
        raise UserError(f"Expected a column of audio files in '{path}', found {', '.join(headers)}. Call it 'audio'.")
    missing = next((row.number for row in rows if not str(row.values.get(header) or "").strip()), None)
    if missing is not None:
        raise UserError(f"Expected a file in column '{header}', found none in row {missing} of '{path}'. Fill it in.")
    return [_beside(path, str(row.values[header]).strip()) for row in rows]


def _beside(table: Path, name: str) -> str:
    """A relative path is meant from the list's own folder."""
    return str(table.parent / Path(name).expanduser())
