"""The one error that a user can cause: a line that says what was expected, what was found, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that a user can fix; commands print it without a traceback and exit with code 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known word, or an empty string.

    >>> nearest("lr_rate", ["lr", "learning_rate"])
    " Did you mean 'learning_rate'?"
    >>> nearest("RAVDESS", ["iemocap", "ravdess"])
    " Did you mean 'ravdess'?"
    """
    plain = {name.casefold().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(word.casefold().replace("-", "_"), list(plain), n=1, cutoff=0.5)
    return f" Did you mean '{plain[close[0]]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(". ")
