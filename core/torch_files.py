"""Files of torch.save, read without running any code of theirs."""

from __future__ import annotations

import contextlib
import pickletools
import re
import warnings
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

import torch

from .errors import UserError, first_line
from .files import NO_FILE, obstacle

_BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of what torch.save writes: a zip archive, before torch 1.6 a pickle
_PROTOCOL = 3  # of pickle: torch reads no later one without running code of the file
_PICKLES = 5  # that torch's old form begins with
_LARGEST_PICKLE = 64 * 2**20  # bytes of data.pkl: names and shapes, no numbers; HuBERT's has 30 kB
_MOST_CODES = 4_000_000  # of pickles: a tensor takes 30, and a million is read in a second
_OF_FAIRSEQ = "It is fairseq's own format: convert it where fairseq is installed, `python -m s3prl.upstream.hubert.convert FILE`"


def read_torch_file(path: Path) -> Any:
    """Return what torch.save wrote, on the CPU: tensors, plain values, argparse.Namespace; no code of the file ever runs."""
    if (found := obstacle(path)) == NO_FILE:
        raise UserError(f"Expected a checkpoint file at '{path}', found {found}. Check the path.")
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
    except OSError as error:
        raise UserError(f"Expected a checkpoint file at '{path}', found: {error.strerror}. Check the path.") from None
    if not beginning.startswith(_BEGINNINGS):
        raise UserError(f"Expected a file that torch.save wrote (.pt, .ckpt), found '{path}', which is none. Check the path.")
    refuse_unreadable(path)
    try:
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickle protocol 3 is read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever it likes; each becomes one line
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is not None:
            raise of_a_class(path, named[1]) from None
        # what torch advises then is to run the file's code
        cause = "torch cannot read it" if "weights_only" in str(error) else first_line(error)
        raise UserError(f"Expected a whole file of torch.save, found '{path}' damaged ({cause}). Fetch it again.") from None


class _Nothing(dict):
    """What stands where a file names a class or a function: it takes anything and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()


def read_tensors(path: Path) -> Any:
    """Return what torch.save wrote, where only tensors count: objects of any class become empty, and none of their code runs."""
    try:
        return read_torch_file(path)
    except UserError as problem:
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # a damaged file raises whatever it likes
            raise problem from None
        if not named:
            raise
        with torch.serialization.safe_globals([(_Nothing, name) for name in named]):
            return read_torch_file(path)


def of_a_class(path: Path, name: str) -> UserError:
    """Return the error about a file with an object of a class that is not read."""
    advice = _OF_FAIRSEQ if name.startswith(("omegaconf.", "fairseq.")) else "Save tensors alone: nothing else is read"
    return UserError(f"Expected tensors, plain values and argparse.Namespace in '{path}', found the class {name}. {advice}.")


def refuse_unreadable(path: Path) -> None:
    """Raise a UserError for TorchScript and for a late protocol of pickle, of which torch would not say what is in it."""
    protocol, is_script = 0, False
    names: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            pickled: IO[bytes] = stack.enter_context(path.open("rb"))
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                entries = {name.partition("/")[2]: name for name in archive.namelist()}
                is_script = "constants.pkl" in entries
                refuse_inflated(path, archive, entries)
                pickled = stack.enter_context(archive.open(entries["data.pkl"]))
            protocol, names = scan_pickles(pickled, path)
    except UserError:
        raise
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        pass  # not whole, or not torch's: reported where torch reads it
    if is_script:
        raise UserError(f"Expected weights in '{path}', found TorchScript, which is code. Save its state_dict() with torch.save.")
    if protocol <= _PROTOCOL:
        return
    for name in names:
        if name not in {"argparse.Namespace", "collections.OrderedDict"} and not name.startswith("torch."):
            raise of_a_class(path, name)
    raise UserError(
        f"Expected what torch.save writes by default in '{path}', found pickle protocol {protocol}. Save it again without "
        "pickle_protocol=."
    )


def refuse_inflated(path: Path, archive: zipfile.ZipFile, entries: Mapping[str, str]) -> None:
    """Refuse an archive that takes far more memory than disk: torch.save compresses nothing."""
    inflated, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
    if inflated > 2 * size + _LARGEST_PICKLE or archive.getinfo(entries["data.pkl"]).file_size > _LARGEST_PICKLE:
        raise UserError(
            f"Expected what torch.save writes in '{path}', found {inflated / 1e6:,.0f} MB packed into {size / 1e6:,.1f} MB, "
            f"or more than {_LARGEST_PICKLE / 1e6:,.0f} MB of names. Do not trust that file."
        )


def scan_pickles(pickled: IO[bytes], path: Path) -> tuple[int, list[str]]:
    """Return the latest protocol of a file's pickles and the names that they would import; nothing of them runs."""
    protocols: list[int] = [0]
    names: list[str] = []
    longest = 0
    with contextlib.suppress(ValueError, OverflowError):  # their end, or the tensors behind them, or a text of 2^63 bytes
        while len(protocols) <= _PICKLES and longest <= _MOST_CODES:
            codes = [(code.name, value) for code, value, _ in islice(pickletools.genops(pickled), _MOST_CODES + 1)]
            protocols.append(max((int(value or 0) for name, value in codes if name == "PROTO"), default=0))
            names += imported_names(codes)
            longest = len(codes)
    if longest > _MOST_CODES:
        raise UserError(
            f"Expected what torch.save writes in '{path}', found more than {_MOST_CODES:,} steps to read its names and shapes. "
            "Save tensors alone."
        )
    return max(protocols), names


def imported_names(codes: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the names that one pickle's codes would import."""
    names, memo, texts = [], [], ["", ""]  # texts: what was put on the stack; STACK_GLOBAL takes the last two
    for code, value in codes:
        if code in {"GLOBAL", "INST"}:
            names.append(value.replace(" ", "."))
        elif code == "STACK_GLOBAL":
            names.append(".".join(texts[-2:]))
        elif code == "MEMOIZE":
            memo.append(texts[-1])
        elif code in {"BINGET", "LONG_BINGET"}:
            texts.append(memo[value] if value < len(memo) else "")
        elif isinstance(value, str):
            texts.append(value)
    return names
