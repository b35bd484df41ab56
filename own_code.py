"""Code of a user's own: a path that is typed is executed once, and known from then on by its name and the hash of its text."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from .errors import UserError

Kind = Literal["task", "upstream", "corpus"]
ENTRIES = {
    "task": "`TASK = Task(…)` at the end of expert.py",
    "upstream": "one function with @register_upstream",
    "corpus": "one `register_corpus(Reader(…))`",
}
FLAGS = {"task": "-d", "audio": "-u", "text": "--text-upstream", "upstream": "-u", "corpus": "--corpus"}
SECTIONS = {"audio": "upstream", "text": "text_upstream"}  # of a recipe, by role
FAMILY = "headwater_own_"  # what the modules of typed code are called in this process


@dataclass(frozen=True)
class OwnCode:
    """What a typed path is: a task (a folder), an upstream or a corpus (a file)."""

    kind: Kind
    name: str
    path: Path  # absolute
    digest: str  # of all its code


_USED: dict[Path, OwnCode] = {}  # what was typed in this process
_FILES: set[Path] = set()  # checkpoints that were
_SUSPECT: set[Path] = set()  # those that a file names


def is_path(word: str, kind: Kind) -> bool:
    """Tell a typed path from a name; a separator alone is not enough where folders of models have one too."""
    return word.endswith(".py") or (kind == "task" and os.sep in word)


def use(word: str, kind: Kind | None = None) -> OwnCode:
    """Execute the code at a path that the user typed, and make it known by its name; the same code is executed once."""
    from .downstream.base import add_task

    path = located(word, kind)
    digest = digest_of(path)
    known = _USED.get(path) or next((code for code in _USED.values() if code.digest == digest), None)
    if known is not None and known.digest == digest:
        refuse_kind(known, kind, word)
        return known
    with _undone_on_mistake() as tables:
        if known is not None:  # edited since: what it was is forgotten
            tables[known.kind].pop(known.name, None)
        before = {table: {*names} for table, names in tables.items()}
        module = _executed(path, digest)
        if path.is_dir():
            add_task(getattr(module, "TASK", None), f"'{word}'")
        found = [(table, name) for table, names in tables.items() for name in names if name not in before[table]]
        if len(found) != 1:
            words = ", ".join(f"{table} '{name}'" for table, name in found) or "none"
            wanted = ENTRIES[kind] if kind else " or ".join(entry for name, entry in ENTRIES.items() if name != "task")
            raise UserError(f"Expected {wanted} in '{word}', found {words}. CONTRIBUTING.md shows one.")
        code = OwnCode(found[0][0], found[0][1], path, digest)
        refuse_kind(code, kind, word)
        if code.kind == "upstream":
            tables["upstream"][code.name] = replace(tables["upstream"][code.name], source=str(path), code=digest)
    _USED[path] = code
    return code


def used() -> list[OwnCode]:
    """Return all that was typed in this process."""
    return [*_USED.values()]


def find(kind: Kind, name: str) -> OwnCode | None:
    """Return what was typed under a name."""
    return next((code for code in _USED.values() if (code.kind, code.name) == (kind, name)), None)


def flags_for_another_process() -> list[str]:
    """Return what a process that this one starts must be told, for what was typed here to be known there."""
    return [word for code in _USED.values() for word in ("--use", str(code.path))]


def take_file(path: str | Path) -> None:
    """Take note of a checkpoint that the user typed."""
    _FILES.add(Path(path).expanduser().resolve())


def suspect_paths(mapping: Any) -> None:
    """Take note of every `path` that a recipe or config names: s3prl's loaders would execute what such a file holds."""
    for value in mapping if isinstance(mapping, list) else ():
        suspect_paths(value)
    for key, value in mapping.items() if isinstance(mapping, Mapping) else ():
        if key == "path" and isinstance(value, str):
            _SUSPECT.add(Path(value).expanduser().resolve())
        suspect_paths(value)


def is_typed_file(path: str | Path) -> bool:
    """Tell whether a file was named by the user, not by a file alone."""
    place = Path(path).expanduser().resolve()
    return place in _FILES or place not in _SUSPECT


def refuse_edited() -> None:
    """Refuse to start another process with code that was edited since this one read it: a plan would mix the two."""
    for code in _USED.values():
        if digest_of(code.path) != code.digest:
            raise UserError(
                f"Expected the code in '{code.path}' as this command began with it ({code.digest[:8]}), found it edited "
                f"({digest_of(code.path)[:8]}). Bring the former back, or begin again with -n or -p."
            )


def known_as(word: str, kind: Kind, flag: str = "") -> str:
    """Return the name behind a word of a recipe; a path is executed only where the user typed it too."""
    if not is_path(word, kind):
        return word
    code = _USED.get(Path(word).expanduser().resolve())
    if code is None or code.kind != kind:
        raise UserError(
            f"Expected the name of a{'n' * (kind == 'upstream')} {kind}, found the path '{word}': only a path that you type is "
            f"executed, never one from a file. Add {flag or FLAGS[kind]} {word} (or --use {word})"
        )
    return code.name


def identity_of_code(names: Mapping[str, str]) -> dict[str, Any]:
    """Return `code`: by what it is there (task, audio, text), the hash of what was typed, a task's package with its version."""
    from .installed import loaded_from

    typed = {key: find("upstream" if key in SECTIONS else "task", name) for key, name in names.items()}
    digests = {
        key: code.digest if code is not None else "" if key in SECTIONS else loaded_from("task", names[key])
        for key, code in typed.items()
    }
    told = {key: digest for key, digest in digests.items() if digest}
    return {"code": told} if told else {}


def refuse_other_code(
    folder: Path, recipe: Mapping[str, Any], flags: Mapping[str, str] = FLAGS, keys: Collection[str] | None = None
) -> None:
    """Refuse a run of own code that was not typed, or that is not what the run was trained with.

    `flags` says what to type it after, `keys` what is needed of the run (task, audio, text); None: all of it.
    """
    from .training.checkpoint import read_json

    identity = folder / "identity.json"
    digests = read_json(identity).get("code", {}) if identity.is_file() else {}
    for key, digest in digests.items():
        if keys is not None and key.partition(".")[0] not in keys:
            continue
        kind: Kind = "upstream" if key in SECTIONS else "task"
        name = _name_in(recipe, key)
        if not re.fullmatch("[0-9a-f]{64}", str(digest)):
            refuse_other_package(folder, name, str(digest))
            continue
        code, flag = find(kind, name), flags.get(key.partition(".")[0], "--use")
        if code is None:
            raise UserError(
                f"Expected the code of the {kind} '{name}' that '{folder}' was trained with, found no path to it: only a path "
                f"that you type is executed. Add {flag} PATH" + (" (or --use PATH)." if flag != "--use" else ".")
            )
        if code.digest != digest:
            raise UserError(
                f"Expected the code of the {kind} '{name}' that '{folder}' was trained with ({digest[:8]}), found other code in "
                f"'{code.path}' ({code.digest[:8]}). Bring the former back, or train again."
            )


def refuse_other_package(folder: Path, task: str, package: str) -> None:
    """Refuse a run whose task came from a package that is not here, or is here in another version."""
    from .installed import sources

    typed, there = find("task", task), sources("task").get(task, "")
    if typed is not None or there != package:
        found = f"that of '{typed.path}'" if typed else there or "none of that name"
        wanted = package.replace(" ", "==")
        raise UserError(
            f"Expected the task '{task}' of the package {package} that '{folder}' was trained with, found {found}. "
            f"Install it (pip install {wanted})" + (", or train again." if there else ".")
        )


def _name_in(recipe: Mapping[str, Any], key: str) -> str:
    """Return what a run calls its task, one of its tasks (`task.NAME`), or the upstream of a role."""
    if key in SECTIONS:
        return str((recipe.get(SECTIONS[key]) or {}).get("name", ""))
    if key == "task":
        return str(recipe.get("task", ""))
    name = key.partition(".")[2]
    return str(((recipe.get("tasks") or {}).get(name) or {}).get("task", name))


def refuse_kind(code: OwnCode, kind: Kind | None, word: str) -> None:
    """Refuse an upstream where a corpus is asked for, and the like."""
    if kind not in (None, code.kind):
        raise UserError(
            f"Expected {ENTRIES[kind]} in '{word}', found the {code.kind} '{code.name}'. Type it after {FLAGS[code.kind]}."
        )


def located(word: str, kind: Kind | None) -> Path:
    """Return the folder of a task or the file of an upstream or corpus at a typed path."""
    path = Path(word).expanduser().resolve()
    if path.name == "expert.py" and kind in (None, "task"):
        path = path.parent
    if not path.exists():
        ours = {"task": "-d emotion", "upstream": "-u fbank", "corpus": "--corpus iemocap"}
        other = f", or name one of ours: {ours[kind]}." if kind else "."
        raise UserError(f"Expected your own {kind or 'code'} at '{word}', found nothing there. Check the path{other}")
    if path.is_dir() and kind in (None, "task"):
        if not (path / "expert.py").is_file():
            there = ", ".join(sorted(file.name for file in path.glob("*.py"))) or "no Python at all"
            raise UserError(
                f"Expected expert.py in the folder '{word}', found {there}. Add expert.py, ending in `TASK = Task(…)`."
            )
        return path
    if kind == "task":
        raise UserError(
            f"Expected the folder of a task, found the file '{word}'. Put it into a folder as expert.py, and type the folder."
        )
    if path.is_dir() or path.suffix != ".py":
        raise UserError(f"Expected a Python file (.py) with {ENTRIES[kind or 'upstream']}, found '{word}'. Type that file.")
    return path


def digest_of(path: Path) -> str:
    """Return a hash of a file, or of all the Python below a folder and its default.yaml."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = [*path.rglob("*.py"), *path.glob("default.yaml")]
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(path).as_posix(), file) for file in files):
        if not any(part.startswith(".") for part in name.split("/")):
            digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _executed(path: Path, digest: str) -> ModuleType:
    """Return the module at a path, executed under a name of its own, or say in one line where it stopped."""
    short = hashlib.sha256(f"{path}\0{digest}".encode()).hexdigest()[:8]
    name = f"{FAMILY}{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{short}"
    before, prefix = {*sys.modules}, sys.pycache_prefix
    importlib.invalidate_caches()
    # compiled anew, elsewhere: what is executed is what was hashed, and nothing is written beside the user's files
    with tempfile.TemporaryDirectory(prefix="headwater-") as compiled:
        sys.pycache_prefix = compiled
        try:
            if path.is_file():
                return _as_module(name, path)
            start = path / "__init__.py"
            _as_module(name, start if start.is_file() else None, path)
            return importlib.import_module(f"{name}.expert")
        except (Exception, SystemExit) as problem:
            for module in {*sys.modules} - before:
                if module == name or module.startswith(f"{name}."):
                    del sys.modules[module]
            if isinstance(problem, UserError):
                raise
            raise UserError(
                f"Expected code that runs in '{path}', found {told_in_one_line(problem, path)}. Mend it."
            ) from problem
        finally:
            sys.pycache_prefix = prefix


def _as_module(name: str, file: Path | None, folder: Path | None = None) -> ModuleType:
    """Return a file as a module, or a folder as a package, with or without an `__init__.py`."""
    if file is None:
        module = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
        return module
    below = None if folder is None else [str(folder)]
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=below)
    assert spec is not None, f"no way to load {file}"
    assert spec.loader is not None, f"no loader for {file}"
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told_in_one_line(problem: BaseException, path: Path) -> str:
    """Return what went wrong in a user's code: the error, its file and its line."""
    words = " ".join(str(problem).split())
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{type(problem).__name__}: {problem.msg} ({Path(problem.filename).name}, line {problem.lineno})"
    own = [frame for frame in traceback.extract_tb(problem.__traceback__) if Path(frame.filename).is_relative_to(path)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(problem).__name__}: {words}{place}" if words else f"{type(problem).__name__}{place}"


@contextmanager
def _undone_on_mistake() -> Iterator[dict[Kind, dict[str, Any]]]:
    """Give the tables of all that is registered, ours among it; a mistake leaves them as they were."""
    from .corpus.base import registered_corpora
    from .downstream.base import OWN_TASKS
    from .upstream.base import registered_upstreams

    tables: dict[Kind, dict[str, Any]] = {"task": OWN_TASKS, "upstream": registered_upstreams(), "corpus": registered_corpora()}
    before = {kind: dict(table) for kind, table in tables.items()}
    try:
        yield tables
    except UserError:
        for kind, table in tables.items():
            table.clear()
            table.update(before[kind])
        raise
