"""The reference pages, made from the registries, the parsers and the dataclasses at build time: nothing is kept twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from . import api, leaderboard, names, notebooks, options, verbs

PAGES: dict[str, Callable[[], str]] = {
    "verbs": verbs.page,
    "options": options.page,
    "tasks": names.tasks_page,
    "corpora": names.corpora_page,
    "upstreams": names.upstreams_page,
    "recipes": names.recipes_page,
    "api": api.page,
    "leaderboard": leaderboard.page,
    **{name: partial(notebooks.page, name) for name in notebooks.names()},
}


def write_reference(folder: Path) -> None:
    """Write every reference page that is new or has changed, so that an unchanged one is not read again."""
    folder.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        path, text = folder / f"{name}.md", make()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.stem not in PAGES:
            path.unlink()
