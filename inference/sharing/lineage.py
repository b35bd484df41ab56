"""What a run is made of, and under which licences: its models, and the corpora that trained something in it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...core.errors import UserError
from ...core.hub import is_hub_id
from ...core.run_folder import RunFolder
from ...runs.config.resolve import config_of
from ...runs.config.schema import RunConfig, TaskConfig, roles_of
from ...upstream.base import TEACHER, Role, UpstreamConfig
from ...upstream.load import find_upstream
from ...upstream.run_folder import folder_of
from ..export.names import plain_name

UNKNOWN = "not known"
OWN = {"manifest": "a table of its user's own", "folder": "audio of its user's own", "rttm": "recordings of its user's own"}


@dataclass(frozen=True)
class Part:
    """A model or a corpus, with its licence as far as it is known."""

    kind: str  # model, corpus
    name: str  # as a card names it
    how: str  # what it has to do with the run
    licence: str = UNKNOWN
    id: str = ""  # the hub's short name of the licence
    use: str = "unknown"  # open, research
    on_hub: bool = False  # the name is a hub id


@dataclass(frozen=True)
class Terms:
    """The licence of a card: the hub's short name, a name of its own where that is `other`, and why."""

    id: str
    name: str
    why: str

    @property
    def head(self) -> dict[str, str]:
        """The lines of the card's yaml."""
        own = {"license_name": self.name, "license_link": "README.md"} if self.id == "other" else {}
        return {"license": self.id, **own}


@functools.cache
def known_licences() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Return what is known of models and corpora, by kind and name."""
    return yaml.safe_load(Path(__file__).with_name("licences.yaml").read_text(encoding="utf-8"))


def lineage(folder: Path, task: str | None = None) -> list[Part]:
    """Return the parts of a finished run, each once: of a run above another one those of both."""
    config, name, _ = config_of(folder, task)
    whole = RunFolder(folder).read().config()
    return [*dict.fromkeys([*models_of(config), *corpora_of(config, name, whole)])]


def licence_line(folder: Path, task: str | None = None) -> str:
    """Return the licences of a run's parts in one line."""
    return "; ".join(dict.fromkeys(f"{part.name}: {part.licence}" for part in lineage(folder, task)))


def models_of(config: RunConfig) -> Iterator[Part]:
    """Yield the models of a run's roles, and what runs below it are made of."""
    for role, section in roles_of(config).items():
        place = folder_of(section)
        if RunFolder(place).config.is_file():
            yield from below(place, role)
        else:
            yield model_part(section, f"{role} upstream, {'finetuned' if section.trainable else 'frozen'}")


def below(folder: Path, role: str) -> Iterator[Part]:
    """Yield the parts of an upstream that is a run's: its model, and its corpora where they trained it."""
    mapping = RunFolder(folder).read().config()
    names = [*(mapping.get("tasks") or [None])]
    config, _, _ = config_of(folder, names[0])
    sections = roles_of(config)
    if role not in sections:
        return
    section = sections[role]
    if RunFolder(folder_of(section)).config.is_file():
        yield from below(folder_of(section), role)
    else:
        yield model_part(section, f"below '{plain_name(folder.name)}'")
    if section.trainable:
        for other in (other for other in sections if other != role):  # what it was trained with is in its weights: a teacher
            yield from trained_with(sections[other], other, folder)
        for name in names:
            yield corpus_part(config_of(folder, name)[0].only, f"finetuned '{plain_name(folder.name)}'")


def trained_with(section: UpstreamConfig, role: Role, folder: Path) -> Iterator[Part]:
    """Yield the parts of an upstream that another one was trained with, in a run below."""
    place = folder_of(section)
    if RunFolder(place).config.is_file():
        yield from below(place, "audio" if role == TEACHER else role)
    else:
        yield model_part(section, f"{role} upstream of '{plain_name(folder.name)}'")


def corpora_of(config: RunConfig, name: str, whole: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the corpora that trained something in a run: its task's, and those of all tasks that trained a shared model."""
    yield corpus_part(config.only, "trained on")
    if any(section.trainable for section in roles_of(config).values()):
        for other, section in (whole.get("tasks") or {}).items():
            corpus = section.get("corpus") or {}
            if other != name and isinstance(corpus.get("name"), str):
                yield corpus_named(corpus["name"], bool(corpus.get("demo")), "trained on, for another task")


def model_part(section: UpstreamConfig, how: str) -> Part:
    """Return a model with its licence: by its name, its hub id, or the card in its folder."""
    known = known_licences()["models"]
    source = find_upstream(section).source
    inside = section.name.startswith(("new/", "s3prl/"))  # which look like hub ids, and are none
    ids = (name for name in (section.name, source) if is_hub_id(name) and not Path(name).expanduser().is_dir())
    hub_id = "" if inside else next(ids, "")
    if section.path is None and source == "built in":
        return Part("model", section.name, how, **facts(known.get(section.name)))
    if section.path is None and hub_id:
        return Part("model", hub_id, how, **facts(known.get(hub_id)), on_hub=True)
    return Part("model", plain_name(section.path or section.name), how, **facts(licence_of_card(folder_of(section))))


def corpus_part(task: TaskConfig, how: str) -> Part:
    """Return the corpus of a task with its licence."""
    return corpus_named(task.corpus.name, task.corpus.demo, how)


def corpus_named(name: str, demo: bool, how: str) -> Part:
    """Return a corpus with its licence."""
    if demo:
        return Part("corpus", f"a demo in the layout of {name}", how, "spoken by espeak-ng: free", use="open")
    return Part("corpus", OWN.get(name, name), how, **facts(known_licences()["corpora"].get(name)))


def facts(row: Mapping[str, str] | None) -> dict[str, Any]:
    """Return what is known as arguments of a part."""
    return {key: row[key] for key in ("licence", "id", "use") if key in row} if row else {}


def licence_of_card(folder: Path) -> dict[str, str] | None:
    """Return the licence that the README of a model's folder names in its yaml head."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---\n") or "\n---" not in text[4:]:
        return None
    try:
        head = yaml.safe_load(text[4:].split("\n---")[0])
    except yaml.YAMLError:
        return None
    found = head.get("license") if isinstance(head, dict) else None
    return {"licence": f"{found}, as its own card says", "id": found, "use": use_of(found)} if isinstance(found, str) else None


def use_of(licence: str) -> str:
    """Return what a licence of the hub's list allows, as far as its name tells."""
    if "-nc" in licence:
        return "research"
    known = {row["id"] for rows in known_licences().values() for row in rows.values() if row["use"] == "open" and "id" in row}
    return "open" if licence in known | {"mit", "bsd-3-clause", "bsd-2-clause", "cc-by-sa-4.0"} else "unknown"


def terms_of(parts: Sequence[Part], chosen: str | None) -> Terms:
    """Return the licence of a card: that of the strictest part; what the user chose settles what is not known, and only that."""
    strict = [part for part in parts if part.use == "research"]
    open_questions = [part for part in parts if part.use == "unknown"]
    if strict:
        names = ", ".join(dict.fromkeys(f"{part.name} ({part.licence})" for part in strict))
        if chosen is not None and use_of(chosen) != "research" and chosen != "other":
            raise UserError(
                f"Expected a non-commercial licence for a run made of {names}, found --license {chosen}. Leave it out, or name "
                "one such as cc-by-nc-4.0."
            )
        ids = {part.id for part in strict}
        only = ids.pop() if len(ids) == 1 else ""
        return Terms(chosen or only or "other", "non-commercial", f"Non-commercial, since it is made of {names}.")
    if chosen is not None:
        rest = "; not settled here: " + ", ".join(part.name for part in open_questions) if open_questions else ""
        return Terms(chosen, chosen, f"As its user chose{rest}.")
    if open_questions:
        names = ", ".join(dict.fromkeys(part.name for part in open_questions))
        return Terms("unknown", "unknown", f"Not known, since that of {names} is not settled. Ask its owners before you use it.")
    inherited = [part.id for part in parts if part.kind == "model" and part.id]
    return Terms(
        inherited[0] if len({*inherited}) == 1 else "other", "see-parts", "That of the model below it; each part keeps its own."
    )
