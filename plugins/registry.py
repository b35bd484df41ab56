"""Names of tasks, upstreams and corpora: ours by file, the user's by typed path, installed packages' by entry point."""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from ..core.errors import UserError

Kind = Literal["task", "upstream", "corpus"]
ENTRIES: Mapping[Kind, str] = {
    "task": "`TASK = Task(…)` at the end of expert.py",
    "upstream": "one function with @register_upstream",
    "corpus": "one `register_corpus(Reader(…))`",
}
FLAGS = {"task": "-d", "audio": "-u", "text": "--text-upstream", "teacher": "--teacher", "upstream": "-u", "corpus": "--corpus"}
SECTIONS = {"audio": "upstream", "text": "text_upstream", "teacher": "teacher"}  # of a recipe, by role
GROUPS: Mapping[Kind, str] = {"task": "headwater.tasks", "upstream": "headwater.upstreams", "corpus": "headwater.corpora"}


@dataclass(frozen=True)
class Origin:
    """Where a name comes from: what a run records, and refuses another one of."""

    kind: Literal["built in", "session", "typed", "installed"]
    place: str = ""  # of typed code its path, of a package's its distribution and version
    code: str = ""  # of typed code the hash of its text, of a package's its distribution and version


BUILT_IN = Origin("built in")
SESSION = Origin("session")  # registered by a script or a notebook, neither typed nor installed
# of what is registered now, whatever its kind: a registry may come to be while the code that registers with it is executed
ADDING: ContextVar[Origin] = ContextVar("adding", default=SESSION)


class Named(Protocol):
    """What a registry holds."""

    @property
    def name(self) -> str:
        """What it is found by."""
        ...


T = TypeVar("T", bound=Named)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One line of a registry."""

    item: T
    origin: Origin
    module: str  # that registered it


class Registry(Generic[T]):
    """One kind of thing that has a name.

    Ours lie in a package, the catalogue: each of its modules registers what it holds. With `find_in` each folder of the catalogue
    that has an expert.py is a name, loaded when it is needed, and `find_in(module, where)` returns the thing that a module holds.
    """

    def __init__(self, kind: Kind, catalogue: str, find_in: Callable[[Any, str], T] | None = None) -> None:
        self.kind, self.catalogue, self.find_in = kind, catalogue, find_in
        self._entries: dict[str, Entry[T]] = {}
        REGISTRIES[kind] = self

    def register(self, item: T, module: str, *, replaces: bool = False) -> T:
        """Add an item under a name that is free; with `replaces` what the same module registered before gives way."""
        origin = ADDING.get()
        if origin is not BUILT_IN:
            self._scan()
        known = self._entries.get(item.name)
        if known is not None and not (replaces and known.module == module):
            raise UserError(
                f"Expected another name for a{'n' * (self.kind == 'upstream')} {self.kind} than '{item.name}', found it in "
                f"{known.module} and in {module}. Rename one."
            )
        self._entries[item.name] = Entry(item, origin, module)
        return item

    def register_found(self, thing: Any, where: str, module: str, name: str | None = None) -> None:
        """Add what a module of a task's kind holds; `name` is what it has to be called."""
        if self.find_in is None:
            return
        item = self.find_in(thing, where)
        if name not in (None, item.name):
            raise UserError(
                f"Expected a {self.kind} called '{name}' in {where}, found {type(item).__name__}(name='{item.name}'). "
                "Give both one name."
            )
        self.register(item, module)

    def get(self, name: str) -> T | None:
        """Return what has the name: ours, typed, or a package's, which is loaded now; None: nothing has."""
        if self.find_in is not None and name in self.built_in():
            module = f"{self.catalogue}.{name}.expert"
            with adding(BUILT_IN):
                return self.find_in(importlib.import_module(module), module)
        self._scan()
        if name not in self._entries:
            self._load(name)
        entry = self._entries.get(name)
        return None if entry is None else entry.item

    def names(self, pattern: str = "*") -> list[str]:
        """Return all names that match, those among them that packages offer and nothing has loaded yet."""
        return sorted(fnmatch.filter({*self.built_in(), *self.loaded(), *self.offered()}, pattern))

    def built_in(self) -> list[str]:
        """Return the names of ours."""
        if self.find_in is None:
            return sorted(name for name in self.loaded() if self._entries[name].origin is BUILT_IN)
        places = importlib.import_module(self.catalogue).__path__
        return sorted(path.parent.name for place in places for path in Path(place).glob("*/expert.py"))

    def loaded(self) -> dict[str, T]:
        """Return all that is registered by name: ours, unless each of them is loaded alone, typed, and loaded from packages."""
        self._scan()
        return {name: entry.item for name, entry in self._entries.items()}

    def origin(self, name: str) -> Origin | None:
        """Return where a name comes from; None: there is no such name."""
        self._scan()
        if name in self._entries:
            return self._entries[name].origin
        if name in self.built_in():
            return BUILT_IN
        source = self.offered().get(name)
        return None if source is None else Origin("installed", source, source)

    def forget(self, name: str) -> None:
        """Take a name away: its code was edited, and is to be executed again."""
        del self._entries[name]

    def folder(self, name: str) -> Path | None:
        """Return the folder of the module that registered a name, which is loaded first: an error says what is broken."""
        self.get(name)
        entry = self._entries.get(name)
        file = None if entry is None else getattr(sys.modules.get(entry.module), "__file__", None)
        return None if file is None else Path(file).parent

    def offered(self) -> dict[str, str]:
        """Return which distributions offer each name; nothing of it is loaded."""
        return {name: " and ".join(sources_of(points)) for name, points in sorted(points_of(self.kind).items())}

    def broken(self, pattern: str = "*") -> list[str]:
        """Load all that packages offer under names that match; return a line for each that cannot be loaded."""
        lines = []
        for name in fnmatch.filter(self.offered(), pattern):
            try:
                self._load(name)
            except UserError as problem:
                lines.append(str(problem))
        return lines

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """For tests: inside only ours are known, and what is added there is forgotten."""
        before = dict(self._entries)
        self._restore({})
        try:
            yield
        finally:
            self._restore(before)

    def _restore(self, entries: Mapping[str, Entry[T]]) -> None:
        """Bring former entries back; ours, whose modules are imported only once, all stay."""
        ours = {name: entry for name, entry in self._entries.items() if entry.origin is BUILT_IN}
        self._entries = {**ours, **entries}

    def _scan(self) -> None:
        if self.find_in is None:
            importlib.import_module(self.catalogue)

    def _load(self, name: str) -> None:
        """Load what a package offers under a name, if one does; its other names come along."""
        points, entry = points_of(self.kind).get(name, []), self._entries.get(name)
        sources = sources_of(points)
        source = " and ".join(sources)
        if not points or (entry is not None and entry.origin.place == source):
            return
        if len(sources) > 1:
            raise UserError(f"Expected one {self.kind} called '{name}', found it in {source}. Uninstall one of them.")
        if entry is not None or name in self.built_in():
            raise UserError(
                f"Expected another name than '{name}' for the {self.kind} of the package {source}: there is one of that name "
                "already. Uninstall the package, or have it renamed."
            )
        try:
            with adding(Origin("installed", source, source)), undone_on_mistake():
                thing = points[0].load()  # which registers it; of a task's kind it is the task, or its module
                self.register_found(thing, points[0].value, points[0].module, name)
                if name not in self._entries:
                    raise UserError(f"{points[0].value} has no {ENTRIES[self.kind]} of that name")
        except (Exception, SystemExit) as problem:
            words = " ".join(str(problem).split())
            words = words if isinstance(problem, UserError) else f"{type(problem).__name__}: {words}"
            raise UserError(
                f"Expected the {self.kind} '{name}' of the package {source}, found that it cannot be loaded "
                f"({words.rstrip('.')}). Mend the package, or uninstall it."
            ) from problem


REGISTRIES: dict[Kind, Registry] = {}  # each kind's base.py makes its own: nothing here knows what they hold


@contextmanager
def adding(origin: Origin) -> Iterator[None]:
    """What is registered inside comes from there."""
    token = ADDING.set(origin)
    try:
        yield
    finally:
        ADDING.reset(token)


@contextmanager
def undone_on_mistake() -> Iterator[None]:
    """Leave every registry as it was where something inside goes wrong."""
    before = {kind: dict(registry._entries) for kind, registry in REGISTRIES.items()}
    try:
        yield
    except BaseException:
        for kind, registry in REGISTRIES.items():
            registry._restore(before.get(kind, {}))
        raise


def import_catalogue(package: str, places: Iterable[str]) -> None:
    """Import all modules of a catalogue; its `__init__` calls this, so that they are built in whoever imports one first."""
    with adding(BUILT_IN):
        for module in pkgutil.iter_modules(places):
            importlib.import_module(f"{package}.{module.name}")


def points_of(kind: Kind) -> dict[str, list[EntryPoint]]:
    """Return the entry points of a kind by name; nothing is loaded."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUPS[kind]):
        found.setdefault(point.name, []).append(point)
    return found


def sources_of(points: Iterable[EntryPoint]) -> list[str]:
    """Return which distributions entry points belong to."""
    names = (f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value for point in points)
    return list(dict.fromkeys(names))
