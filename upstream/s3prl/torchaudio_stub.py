"""A stand-in for torchaudio while s3prl is imported: most families name it and never use it."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class TorchaudioNeeded(ImportError):
    """Raised where code calls what only the real torchaudio has."""


class _Absent(type):
    """The class of every name in the stand-in: importable, inheritable, not usable."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent(f"{cls.__qualname__}.{name}")

    def __call__(cls, *_: object, **__: object) -> Any:
        raise TorchaudioNeeded(f"it uses {cls.__qualname__}, and torchaudio is missing or cannot load")


def _absent(name: str) -> Any:
    return _Absent(name, (), {"__qualname__": name})


class _StandIn(ModuleType):
    """A module whose every attribute is absent."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _absent(f"{self.__name__}.{name}")


class _Finder(MetaPathFinder, Loader):
    """Answers every import of torchaudio or a part of it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] == "torchaudio" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module empty: its attributes are made when they are used."""


def _loads() -> bool:
    try:
        importlib.import_module("torchaudio")
    except (OSError, ImportError, RuntimeError, AttributeError):
        return False
    return True


def _forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]


@contextlib.contextmanager
def stand_in_for_torchaudio() -> Iterator[None]:
    """Put a stand-in where torchaudio is missing or cannot load, and take it out again."""
    if _loads():
        yield
        return
    # transformers remembers whether torchaudio is there: let it look before it sees the stand-in
    from transformers.utils import is_torchaudio_available

    is_torchaudio_available()
    _forget()
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget()
