"""Names of repositories on the hub: `hf:OWNER/NAME`, with `@REVISION` behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError

PREFIX = "hf:"
_REPOSITORY = re.compile(r"(?P<repository>[^/@\s]+/[^/@\s]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9]([\w.-]{0,94}[\w])?")  # what the hub allows on each side of the stroke


@dataclass(frozen=True)
class HubName:
    """A repository of the hub, and a branch, tag or commit of it where one is named."""

    repository: str
    revision: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the name means the same for ever: it has a commit in full."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def at(self, commit: str) -> HubName:
        """Return the name of one commit."""
        return HubName(self.repository, commit)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + f"@{self.revision}" * (self.revision is not None)


def is_hub_name(text: str) -> bool:
    """Return whether a word begins as a name on the hub does."""
    return text.startswith(PREFIX)


def looks_shared(text: str) -> bool:
    """Return whether a word without `hf:` may be a repository: OWNER/NAME, and no path."""
    found = _REPOSITORY.fullmatch(text)
    return found is not None and all(_PART.fullmatch(part) for part in found["repository"].split("/"))


def hub_name(text: str) -> HubName:
    """Return the repository that a word names, or say how one is written."""
    bare = text.removeprefix(PREFIX)
    found = _REPOSITORY.fullmatch(bare)
    if found is None:
        raise UserError(
            f"Expected OWNER/NAME of a repository on the hub, or OWNER/NAME@REVISION, found '{text}'. "
            "For instance: hf:ann/emotion, hf:ann/emotion@main"
        )
    repository_name(found["repository"])
    return HubName(found["repository"], found["revision"])


def repository_name(text: str) -> str:
    """Return OWNER/NAME, or say what the hub does not allow in it."""
    parts = text.removeprefix(PREFIX).split("/")
    wrong = [part for part in parts if not _PART.fullmatch(part) or part.endswith(".git")]
    if len(parts) != 2 or wrong:
        found = f"'{text}' ('{wrong[0]}')" if len(parts) == 2 else f"'{text}'"
        raise UserError(
            f"Expected OWNER/NAME, each of letters, digits, '-', '_' and '.', up to 96, found {found}. For instance: ann/emotion"
        )
    return "/".join(parts)
