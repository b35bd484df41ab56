"""Code of a user's own: a path that is typed is executed once, and known from then on by its name and the hash of its text."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..core.errors import UserError
from ..core.files import temporary_folder
from .registry import ENTRIES, FLAGS, REGISTRIES, Kind, Origin, adding, undone_on_mistake

FAMILY = "headwater_own_"  # what the modules of typed code are called in this process


@dataclass(frozen=True)
class UserCode:
    """What a typed path is: a task (a folder), an upstream or a corpus (a file)."""

    kind: Kind
    name: str
    path: Path  # absolute
    digest: str  # of all its code


def is_path(word: str, kind: Kind) -> bool:
    """Tell a typed path from a name; a separator alone is not enough where folders of models have one too."""
    return word.endswith(".py") or (kind == "task" and os.sep in word)


def use(word: str, kind: Kind | None = None) -> UserCode:
    """Execute the code at a path that the user typed, and make it known by its name; the same code is executed once.

    The code's own imports bring in the registry that it registers with: no kind is known here.
    """
    path = located(word, kind)
    digest = digest_of(path)
    at_path = next((code for code in used() if code.path == path), None)
    known = at_path or next((code for code in used() if code.digest == digest), None)
    if known is not None and known.digest == digest:
        refuse_kind(known, kind, word)
        return known
    origin = Origin("typed", str(path), digest)
    with undone_on_mistake(), adding(origin):
        if known is not None:  # edited since: what it was is forgotten
            REGISTRIES[known.kind].forget(known.name)
        module = _executed(path, digest)
        for registry in [*REGISTRIES.values()] if path.is_dir() else []:
            registry.register_found(module, f"'{word}'", module.__name__)
        found = [code for code in used() if (code.path, code.digest) == (path, digest)]
        if len(found) != 1:
            names_found = ", ".join(f"{code.kind} '{code.name}'" for code in found) or "none"
            kinds: list[Kind] = ["task"] if path.is_dir() else ["upstream", "corpus"] if kind is None else [kind]
            wanted = " or ".join(ENTRIES[kind] for kind in kinds)
            advice = "Add it." if path.is_dir() else "CONTRIBUTING.md shows one."
            raise UserError(f"Expected {wanted} in '{word}', found {names_found}. {advice}")
        refuse_kind(found[0], kind, word)
    return found[0]


def used() -> list[UserCode]:
    """Return all that was typed in this process."""
    rows = ((kind, name, registry.origin(name)) for kind, registry in REGISTRIES.items() for name in registry.loaded())
    return [UserCode(kind, name, Path(row.place), row.code) for kind, name, row in rows if row and row.kind == "typed"]


def find(kind: Kind, name: str) -> UserCode | None:
    """Return what was typed under a name."""
    return next((code for code in used() if (code.kind, code.name) == (kind, name)), None)


def flags_for_another_process() -> list[str]:
    """Return the environment of a process that this one starts, in which what was typed here is known."""
    return [word for code in used() for word in ("--use", str(code.path))]


def refuse_edited() -> None:
    """Refuse to start another process with code that was edited since this one read it: a plan would mix the two."""
    for code in used():
        if digest_of(code.path) != code.digest:
            raise UserError(
                f"Expected the code in '{code.path}' as this command began with it ({code.digest[:8]}), found it edited "
                f"({digest_of(code.path)[:8]}). Bring the former back, or begin again with -n or -p."
            )


def name_behind(word: str, kind: Kind, flag: str = "") -> str:
    """Return the name behind a word of a recipe; a path is executed only where the user typed it too."""
    if not is_path(word, kind):
        return word
    path = Path(word).expanduser().resolve()
    code = next((code for code in used() if (code.kind, code.path) == (kind, path)), None)
    if code is None:
        raise UserError(
            f"Expected the name of a{'n' * (kind == 'upstream')} {kind}, found the path '{word}': only a path that you type is "
            f"executed, never one from a file. Add {flag or FLAGS[kind]} {word} (or --use {word})"
        )
    return code.name


def refuse_kind(code: UserCode, kind: Kind | None, word: str) -> None:
    """Refuse an upstream in place of a corpus, and the like."""
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
    with temporary_folder() as compiled:
        sys.pycache_prefix = str(compiled)
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
            raise UserError(f"Expected code that runs in '{path}', found {one_line_error(problem, path)}. Mend it.") from problem
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


def one_line_error(problem: BaseException, path: Path) -> str:
    """Return what went wrong in a user's code: the error, its file and its line."""
    message = " ".join(str(problem).split())
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{type(problem).__name__}: {problem.msg} ({Path(problem.filename).name}, line {problem.lineno})"
    own = [frame for frame in traceback.extract_tb(problem.__traceback__) if Path(frame.filename).is_relative_to(path)]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(problem).__name__}: {message}{place}" if message else f"{type(problem).__name__}{place}"
