"""What the hub refuses, in one line; a token is never in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import UserError, first_line

SIGN_IN = "run `hf auth login`, or set HF_TOKEN"


@contextmanager
def plain_hub_errors(what: str, revision: str | None = None, *, writes: bool = False) -> Iterator[None]:
    """Turn what the hub, its library or the network refuse into one line about the repository `what`."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError:
        raise UserError(
            f"Expected a repository that you may read, found that '{what}' is gated. Accept its terms on "
            f"{constants.ENDPOINT}/{what}, then {SIGN_IN}."
        ) from None
    except errors.RepositoryNotFoundError as problem:
        raise UserError(missing(what, status_of(problem), writes=writes)) from None
    except errors.RevisionNotFoundError:
        raise UserError(
            f"Expected a branch, tag or commit of '{what}', found no '{revision}' there. See {constants.ENDPOINT}/{what}/commits"
        ) from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as problem:
        if not constants.HF_HUB_OFFLINE:
            raise UserError(unreachable(what, problem)) from None
        raise UserError(
            f"Expected '{what}' in the hub's cache ({constants.HF_HUB_CACHE}) since HF_HUB_OFFLINE is set, found it not, or not "
            "whole. Unset HF_HUB_OFFLINE where there is a network, or bring that cache here."
        ) from None
    except errors.LocalTokenNotFoundError:
        raise UserError(f"Expected a token for '{what}', found none. First {SIGN_IN}.") from None
    except errors.HfHubHTTPError as problem:
        raise UserError(refused(what, problem, writes=writes)) from None
    except (errors.FileMetadataError, errors.HFValidationError) as problem:
        raise UserError(f"Expected '{what}' on the hub, found: {clean(problem)}. Check the name.") from None
    except Exception as problem:
        if type(problem).__module__.partition(".")[0] not in {"httpx", "httpx2", "httpcore", "httpcore2", "requests"}:
            raise
        raise UserError(unreachable(what, problem)) from None


def missing(what: str, status: int | None, *, writes: bool) -> str:
    """Return the line about a repository that is not there, or not for this user: the hub does not tell them apart."""
    if writes and status in (401, 403):
        return f"Expected a token that may write to '{what}', found none or another one. First {SIGN_IN}."
    return (
        f"Expected a repository '{what}' on the hub, found none that you may read. Check OWNER/NAME; if it is private, {SIGN_IN}."
    )


def refused(what: str, problem: BaseException, *, writes: bool) -> str:
    """Return the line about another refusal of the hub."""
    status = status_of(problem)
    if status == 401:
        return (
            f"Expected a token that the hub accepts for '{what}', found one that it refuses (401). Make another, then {SIGN_IN}."
        )
    if status == 403:
        right = "write to" if writes else "read"
        return f"Expected a token that may {right} '{what}', found one that may not (403). Take another, then {SIGN_IN}."
    if status == 409 or status == 412:
        return f"Expected '{what}' as it was a moment ago, found it changed by somebody else ({status}). Run the command again."
    if status == 429 or (status or 0) >= 500:
        return f"Expected an answer about '{what}', found that the hub has none now ({status}). Try again later."
    return f"Expected '{what}' on the hub, found: {clean(problem)}. Check the name and your rights."


def unreachable(what: str, problem: BaseException) -> str:
    """Return the line about a hub that cannot be reached."""
    from huggingface_hub import constants

    cause = problem.__cause__ or problem
    return (
        f"Expected '{what}' at {constants.ENDPOINT}, found no way there ({type(cause).__name__}). Check the network, or set "
        "HF_HUB_OFFLINE=1 to use what the hub's cache has."
    )


def status_of(problem: BaseException) -> int | None:
    """Return the status that the hub answered with."""
    return getattr(getattr(problem, "response", None), "status_code", None)


def clean(problem: BaseException) -> str:
    """Return the first line of an error without the user's token."""
    from huggingface_hub import get_token

    token, line = get_token(), first_line(problem)
    return line.replace(token, "…") if token else line
