"""Where a corpus lies on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core import user_config
from ..core.errors import UserError
from ..core.user_config import config_file
from .base import CORPORA, Reader
from .load import claimants

MARKER = "DEMO"  # a file of this name at a corpus' root says that nobody may quote its numbers


def find_root(reader: Reader, data: str | None = None) -> Path:
    """Return the corpus' folder (or file): --data, then $HEADWATER_DATA/<corpus>, then the user's config file."""
    places = [("--data", data), ("$HEADWATER_DATA", _from_environment(reader)), (str(config_file()), _from_config(reader))]
    for source, place in places:
        if place is None:
            continue
        root = _at_home(place, source)
        kind = "table" if reader.is_file else f"folder of {reader.name}"
        if not root.exists():
            raise UserError(f"Expected the {kind} at {root} (from {source}), found nothing there. Check the path.")
        if root.is_dir() == reader.is_file:
            found = "folder" if root.is_dir() else "file"
            hint = "Name the table in it." if reader.is_file else "Name the folder, or read a table with --corpus manifest."
            raise UserError(f"Expected the {kind} (from {source}), found the {found} {root}. {hint}")
        return root
    raise UserError(_nowhere(reader))


def _at_home(place: str, source: str) -> Path:
    try:
        return Path(place).expanduser()
    except RuntimeError:
        raise UserError(f"Expected a home for '{place}' (from {source}), found none. Write the path out.") from None


def is_demo(root: Path) -> bool:
    """Tell whether a corpus' folder is a miniature of it, or lies in one."""
    return any((place / MARKER).is_file() for place in (root.resolve(), *root.resolve().parents))


def find_inside(root: str | Path, fits: Callable[[Path], bool], corpus: str, expected: str) -> Path:
    """Return the folder that has the corpus' layout: the one named, or the only one directly inside it."""
    named = Path(root).expanduser()
    if not named.is_dir():
        raise UserError(
            f"Expected the folder of {corpus} at {named}, found {'a file' if named.exists() else 'nothing'}. Check --data."
        )
    if fits(named):
        return named
    inside = [child for child in sorted(named.iterdir()) if child.is_dir() and not _is_litter(child) and fits(child)]
    if len(inside) == 1:
        return inside[0]
    if inside:
        listed = ", ".join(child.name for child in inside)
        raise UserError(f"Expected one {corpus} in {named}, found {len(inside)} ({listed}). Name one with --data.")
    if fits(named.resolve().parent):
        raise UserError(
            f"Expected {expected} in {named}, found a part of it only. Name the folder above: --data {named.resolve().parent}"
        )
    names = sorted(child.name for child in named.iterdir() if not _is_litter(child))
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise UserError(
        f"Expected {expected} in {named}, found {listed or 'nothing'}. "
        f"Name the folder of {corpus} with --data, or another corpus with --corpus."
    )


def recognise(folder: Path) -> list[str]:
    """Return the names of the corpora whose layout a folder has, or one folder directly inside it."""
    try:
        inside = [child for child in folder.iterdir() if child.is_dir() and not _is_litter(child)]
        layouts = {name: reader.has_layout for name, reader in CORPORA.loaded().items() if reader.has_layout}
        here = sorted(name for name, fits in layouts.items() if fits(folder))
        return here or sorted(name for name, fits in layouts.items() if any(map(fits, inside)))
    except OSError:  # the reader says what is wrong with the folder
        return []


def _is_litter(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"


# what soundfile reads, by ending: in a folder everything else is passed over
AUDIO = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".sph", ".nist", ".rf64"} | {
    *(".aifc", ".snd", ".voc", ".mp2", ".bwf", ".avr", ".svx", ".paf", ".ircam", ".sf", ".pvf", ".htk", ".sds", ".wve")
}


def audio_files(root: Path) -> list[Path]:
    """Return all audio below a folder, macOS litter left out, in order of their paths."""
    files = (path for path in root.rglob("*") if path.suffix.lower() in AUDIO and path.is_file())
    return sorted(path for path in files if not any(_is_litter(Path(part)) for part in path.relative_to(root).parts))


def wav_files(root: Path, pattern: str = "*.wav") -> list[Path]:
    """Return a folder's WAV files, macOS litter left out, in order of their paths."""
    files = {*root.rglob(pattern), *root.rglob(pattern.replace(".wav", ".WAV"))}
    return sorted(path for path in files if not any(_is_litter(Path(part)) for part in path.relative_to(root).parts))


def _from_environment(reader: Reader) -> str | None:
    base = os.environ.get("HEADWATER_DATA")
    place = None if not base else _at_home(base, "$HEADWATER_DATA") / reader.name
    return str(place) if place is not None and place.exists() else None


def _from_config(reader: Reader) -> str | None:
    place = configured().get(reader.name)
    return None if place is None else str(place)


def configured() -> Mapping[str, Any]:
    """Return what the user's config file says of where corpora lie."""
    return user_config.configured("data", "data: {iemocap: /path}")


def _nowhere(reader: Reader) -> str:
    task = (reader.default_for or reader.tasks or ("emotion",))[0]
    demo = ""
    if reader.make_demo is not None:
        named = "" if claimants(task) == [reader.name] else f" --corpus {reader.name}"
        demo = f"\nWithout it, this works now: python run_downstream.py -u fbank -d {task}{named} --demo"
    return (
        f"Expected to know where {reader.name} lies, found neither --data, nor $HEADWATER_DATA/{reader.name}, "
        f"nor an entry in {config_file()}.\n"
        f"Get it: {reader.where or reader.description}\n"
        f"Then say where it lies: --data PATH, or HEADWATER_DATA=FOLDER with FOLDER/{reader.name} in it, "
        f"or a line in {config_file()}: data: {{{reader.name}: PATH}}{demo}"
    )
