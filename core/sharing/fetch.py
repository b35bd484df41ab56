"""Fetch a run or a model from the hub at one commit: data alone, each file of a run checked."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import expanded
from ..process import is_main
from ..run_folder import RunFolder
from .checksums import SUFFIXES, check_checksums, refuse_strange, refuse_unlisted
from .names import HubName, hub_name, is_hub_name, looks_shared
from .problems import plain_hub_errors

_SECONDS = 10  # that the hub has to answer
_RUN = [f"*{suffix}" for suffix in sorted(SUFFIXES)]
# of a model: its description, its weights as plain tensors, its tokenizer; a pickle beside them is left where it is
_MODEL = ["config.json", "preprocessor_config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_MODEL += [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "README.md",
]


@dataclass(frozen=True)
class Fetched:
    """A repository on this machine, at one commit."""

    name: HubName
    folder: Path
    is_run: bool  # else a model of transformers

    @property
    def commit(self) -> str:
        """The commit in full."""
        return self.folder.name

    @property
    def pinned(self) -> str:
        """The name that means this commit for ever."""
        return str(self.name.at(self.commit))


_FETCHED: dict[tuple[str, HubName], Fetched] = {}  # a process stays at the commit that it found first


def fetch(name: HubName) -> Fetched:
    """Return a repository of the hub at the commit that its revision means now; a run is refused unless every hash is right."""
    from huggingface_hub import constants

    key = constants.HF_HUB_CACHE, name
    if key not in _FETCHED:
        found = offline(name) if constants.HF_HUB_OFFLINE or is_here(name) else online(name)
        if found.is_run:
            advice = f"Remove '{found.folder}', and fetch it again."
            refuse_strange((path.name for path in found.folder.rglob("*") if path.is_file()), f"'{name}'")
            check_checksums(found.folder, advice)
            refuse_unlisted(found.folder, advice)
        _FETCHED[key] = found
        if is_main():
            print(f"hub       {found.pinned}" + " (named so, it stays the same)" * (not name.is_pinned), file=sys.stderr)
    return _FETCHED[key]


def online(name: HubName) -> Fetched:
    """Fetch what this machine lacks of a repository."""
    from huggingface_hub import HfApi, constants, snapshot_download

    with plain_hub_errors(name.repository, name.revision):
        api = HfApi(endpoint=constants.ENDPOINT)
        info = api.model_info(name.repository, revision=name.revision, timeout=_SECONDS)
        files = [file.rfilename for file in info.siblings or ()]
        is_run = RunFolder(Path()).checksums.name in files
        if is_run:
            refuse_strange(files, f"'{name}'")
        else:
            refuse_no_model(files, name)
        where: dict[str, Any] = {"revision": name.revision, "endpoint": constants.ENDPOINT, "etag_timeout": _SECONDS}
        folder = snapshot_download(name.repository, allow_patterns=_RUN if is_run else _MODEL, **where)
    return Fetched(name, Path(folder), is_run)


def refuse_no_model(files: list[str], name: HubName) -> None:
    """Refuse a repository that holds neither a run nor a model as plain tensors."""
    if "config.json" not in files:
        raise UserError(
            f"Expected a run that `headwater push` wrote, or a model of transformers, in '{name}', found neither "
            f"({', '.join(files[:4]) or 'no file'}). Check the name."
        )
    if not any(file.startswith("model") and file.endswith(".safetensors") for file in files):
        raise UserError(
            f"Expected weights as safetensors in '{name}', found none: hf: reads no pickle. Without hf: its pytorch_model.bin is "
            f"read, tensors alone: -u {name.repository}"
        )


def is_here(name: HubName) -> bool:
    """Return whether a commit in full is in the cache: it cannot have changed since."""
    return name.is_pinned and cached(name, RunFolder(Path()).checksums.name) is not None


def cached(name: HubName, file: str) -> str | None:
    """Return a file of a repository as the hub's cache has it."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(name.repository, file, cache_dir=constants.HF_HUB_CACHE, revision=name.revision)
    return found if isinstance(found, str) else None


def offline(name: HubName) -> Fetched:
    """Return what the hub's cache has of a repository, if that is whole."""
    from huggingface_hub import constants, snapshot_download

    is_run = cached(name, RunFolder(Path()).checksums.name) is not None
    with plain_hub_errors(name.repository, name.revision):
        where: dict[str, Any] = {"revision": name.revision, "cache_dir": constants.HF_HUB_CACHE, "local_files_only": True}
        folder = snapshot_download(name.repository, allow_patterns=_RUN if is_run else _MODEL, **where)
    return Fetched(name, Path(folder), is_run)


def run_place(typed: str | os.PathLike[str]) -> Path:
    """Return the folder of a run: as typed, or fetched where it is `hf:OWNER/NAME`, or OWNER/NAME and no folder here."""
    text = os.fspath(typed)
    if is_hub_name(text):
        return fetch_run(hub_name(text))
    path = expanded(text)
    if path.exists() or not looks_shared(text):
        return path
    try:
        return fetch_run(hub_name(text))
    except UserError as problem:
        raise UserError(f"Expected a run folder at '{text}', found none; and on the hub: {problem}") from None


def fetch_run(name: HubName) -> Path:
    """Return the folder of a run of the hub."""
    found = fetch(name)
    if not found.is_run:
        raise UserError(
            f"Expected a run that `headwater push` wrote in '{name}', found a model of transformers. Train a head on it: "
            f"headwater downstream -u {name} -d TASK"
        )
    return found.folder
