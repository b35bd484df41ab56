"""Push a finished run to the hub: exported, with a card and a hash of each file, in one commit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UserError
from ...core.files import folder_aside, plain_disk_errors, temporary_folder, write_text
from ...core.run_folder import RunFolder
from ...core.sharing.checksums import FREE, refuse_strange
from ...core.sharing.fetch import run_place
from ...core.sharing.names import repository_name
from ...core.sharing.problems import SIGN_IN, plain_hub_errors
from ...plugins.registry import SECTIONS
from ..export.export import export_run, one_of, refuse_place
from ..load import load_run
from ..trained_run import TrainedRun
from .card import Facts, card
from .estimate import earlier_run, estimates_of
from .lineage import Terms, lineage, terms_of

CARD = "README.md"


@dataclass(frozen=True)
class Choice:
    """What of a run is shared, and under which licence."""

    task: str | None = None
    fold: int | None = None
    weights: str | None = None
    text_weights: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Pushed:
    """What was uploaded."""

    repository: str
    commit: str
    url: str
    files: int
    terms: Terms


def write_shared(run: str | Path, repository: str, folder: Path, choice: Choice) -> Terms:
    """Write what a repository is to hold into a folder that is new or empty, and return its licence."""
    repository_name(repository)
    source = run_place(run)
    chosen, _ = one_of(source, choice.fold)
    terms = terms_of(parts := lineage(RunFolder.open(chosen).path, choice.task), choice.licence)
    refuse_own_code(chosen, choice.task)
    exported = export_run(
        source, folder, weights=choice.weights, text_weights=choice.text_weights, task=choice.task, fold=choice.fold
    )
    refuse_strange((path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()), f"'{source}'")
    trained = load_run(folder)
    assert isinstance(trained, TrainedRun), "an exported folder holds one run"
    # an exported result names no folder of this machine: where the earlier run lies, the run itself knows
    result = {**RunFolder(folder).read().result(), "steps_from": RunFolder(chosen).read().result().get("steps_from", {})}
    facts = Facts(
        repository=repository,
        run=trained,
        result=result,
        estimates=estimates_of(result),
        parts=parts,
        terms=terms,
        needed=exported.needed,
        audit=audit_of(chosen, source, earlier_run(result)),
        trained_on=count_trained_on(chosen, trained.name),
    )
    write_text(folder / CARD, card(facts))
    return terms


def refuse_own_code(folder: Path, task: str | None) -> None:
    """Refuse a run that somebody's own code computes: what is fetched never brings code."""
    digests = RunFolder(folder).read().identity().get("code", {})
    needed = {"task", *SECTIONS, f"task.{task}"}
    own = [key for key, digest in digests.items() if key in needed and re.fullmatch("[0-9a-f]{64}", str(digest))]
    if own:
        what = "task" if own[0].startswith("task") else f"{own[0]} upstream"
        raise UserError(
            f"Expected a run without code of its user's own, since what is fetched never brings code, found an own {what} in "
            f"'{folder}'. Publish the code as a package (see CONTRIBUTING.md), or pass on what `headwater export` writes."
        )


def audit_of(*places: Path | None) -> Mapping[str, Any] | None:
    """Return the audit of a run, of the plan that it is a fold of, or of the one that it repeats."""
    found = [place for place in places if place is not None and RunFolder(place).audit.is_file()]
    return RunFolder(found[0]).read().audit() if found else None


def count_trained_on(folder: Path, task: str) -> int:
    """Return how many utterances a run was trained on for a task; 0: its folder does not say."""
    if not RunFolder(folder).trained_on.is_file():
        return 0
    known = RunFolder(folder).read().trained_on()
    part = known if "heard" in known else known.get(task, {})
    return len(part.get("heard", ()))


def dry_run(run: str | Path, repository: str, folder: str | Path, choice: Choice) -> Terms:
    """Write what would be uploaded to a folder, and upload nothing."""
    place = Path(os.path.realpath(Path(folder).expanduser()))
    refuse_place(run_place(run), place)
    with folder_aside(place, fills_empty=True) as aside:
        return write_shared(run, repository, aside, choice)


def push_run(
    run: str | Path,
    repository: str,
    choice: Choice,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> Pushed:
    """Upload a finished run in one commit; what the repository held before and the run does not have is taken away."""
    from huggingface_hub import constants, get_token

    repository = repository_name(repository)
    if constants.HF_HUB_OFFLINE:
        raise UserError("Expected a network to push, found HF_HUB_OFFLINE=1. Unset it, or add --dry-run, which uploads nothing.")
    if get_token() is None:
        raise UserError(f"Expected a token that may write to '{repository}', found none. First {SIGN_IN}.")
    with temporary_folder() as place:
        terms = write_shared(run, repository, place / "run", choice)
        with plain_hub_errors(repository, revision, writes=True):
            commit, url, count = upload(place / "run", repository, private, revision, message or f"Push {Path(run).name}")
    return Pushed(repository, commit, url, count, terms)


def upload(folder: Path, repository: str, private: bool, revision: str | None, message: str) -> tuple[str, str, int]:
    """Make the repository and the branch where they are not there, and commit a folder; return commit, address and files."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    api.create_repo(repository, private=private or None, exist_ok=True)
    info = api.model_info(repository)
    if private and not info.private:
        raise UserError(
            f"Expected a private repository '{repository}' for --private, found a public one. Nothing was uploaded: make it "
            f"private on {constants.ENDPOINT}/{repository}/settings, choose another name, or leave --private out."
        )
    if revision is not None:
        api.create_branch(repository, branch=revision, exist_ok=True)
        info = api.model_info(repository, revision=revision)
    there = {file.rfilename for file in info.siblings or ()}
    refuse_other_content(there, repository)
    with plain_disk_errors(folder):
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    changes: list[Any] = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    changes += [CommitOperationDelete(name) for name in sorted(there - {*files} - FREE)]
    done = api.create_commit(
        repository, changes, commit_message=message, revision=revision, parent_commit=info.sha, repo_type="model"
    )
    return str(done.oid), str(done.commit_url), len(files)


def refuse_other_content(there: set[str], repository: str) -> None:
    """Refuse a repository that holds something else: a push takes away what the run does not have."""
    if there - FREE and RunFolder(Path()).checksums.name not in there:
        raise UserError(
            f"Expected a new or empty repository, or one that `headwater push` filled, in '{repository}', found "
            f"'{sorted(there - FREE)[0]}'. Nothing was uploaded: choose another name."
        )
