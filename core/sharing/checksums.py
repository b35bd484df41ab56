"""The hash of each file of an exported run: what is fetched, copied or unpacked is what was written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..errors import UserError
from ..files import hash_file, read_json, write_json
from ..run_folder import RunFolder

# all that a shared run consists of: numbers and texts; what an interpreter could run is refused, whatever it is called
SUFFIXES = frozenset({".safetensors", ".json", ".yaml", ".md", ".csv", ".txt"})
FREE = frozenset({"README.md", ".gitattributes"})  # a card may be edited on the hub; the other one the hub writes itself


def write_checksums(folder: Path) -> None:
    """Write the sha256 of each file in a folder, but for its README."""
    place = RunFolder(folder).checksums
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    write_json(place, {"sha256": {name: hash_file(folder / name) for name in names if name not in FREE | {place.name}}})


def check_checksums(folder: Path, advice: str, but: Path | None = None) -> None:
    """Refuse a folder whose files are not those that were written; one without hashes is of an earlier version."""
    place = RunFolder(folder).checksums
    if not place.is_file():
        return
    known = read_json(place, ["sha256"])["sha256"]
    if not isinstance(known, dict) or not all(is_inside(name) for name in known):
        raise UserError(f"Expected the hash of each file in '{place}', found something else. {advice}")
    for name, expected in known.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"Expected '{name}' in '{folder}', found that it is missing. {advice}")
        if path != but and hash_file(path) != expected:
            raise UserError(f"Expected the '{name}' that was exported to '{folder}', found another one: it is damaged. {advice}")


def refuse_strange(names: Iterable[str], what: str) -> None:
    """Refuse a list of files in which one is no data."""
    strange = [name for name in names if name not in FREE and PurePosixPath(name).suffix.lower() not in SUFFIXES]
    if strange:
        known = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise UserError(
            f"Expected a run of data alone ({known}) in {what}, found '{strange[0]}', which could hold code. Nothing was read: "
            "ask its owner to push it with `headwater push`."
        )


def refuse_unlisted(folder: Path, advice: str) -> None:
    """Refuse a folder with a file that its hashes leave out."""
    known = {*read_json(RunFolder(folder).checksums, ["sha256"])["sha256"]} | FREE | {RunFolder(folder).checksums.name}
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    for name in (name for name in found if name not in known and PurePosixPath(name).suffix != ".md"):
        raise UserError(f"Expected a hash of each file in '{folder}', found none of '{name}'. {advice}")


def is_inside(name: object) -> bool:
    """Return whether a name stays in its folder."""
    return isinstance(name, str) and not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
