"""Tensors with json facts as one safetensors file, never a pickle."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import UserError
from .files import NO_FILE, obstacle, written_aside


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and json facts as one safetensors file, whole or not at all."""
    values = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with written_aside(path) as aside:
        try:
            described = json.dumps(facts)
            save_file(values, aside, metadata={"facts": described, "checksum": _checksum(values, described)})
        except SafetensorError as problem:  # it wraps what the disk said
            _raise_as_disk_error(problem)


def _raise_as_disk_error(problem: SafetensorError) -> None:
    for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if f"os error {code}" in str(problem) or f"code: {code}," in str(problem):
            raise OSError(code, os.strerror(code)) from None
    raise problem


def _checksum(tensors: Mapping[str, Tensor], described: str) -> str:
    """Return a checksum of every name, type, shape and byte: safetensors itself notices only what is missing."""
    found = zlib.crc32(described.encode())
    for key, value in sorted(tensors.items()):
        found = zlib.crc32(f"{key} {value.dtype} {tuple(value.shape)}".encode(), found)
        found = zlib.crc32(value.contiguous().reshape(-1).view(torch.uint8).numpy().data, found)
    return f"{found:08x}"


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of a file that `save_tensors` wrote."""
    try:
        if obstacle(path) == NO_FILE:
            raise ValueError(NO_FILE)
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            described = file.metadata() or {}
        facts = described.get("facts", "{}")
        # files of earlier versions have none
        if "checksum" in described and described["checksum"] != _checksum(tensors, facts):
            raise ValueError("its checksum is another than the one that was written")
        return tensors, json.loads(facts)
    except FileNotFoundError:
        raise UserError(f"Expected a checkpoint at '{path}', found none. Train the run first.") from None
    except (SafetensorError, ValueError, RecursionError, OSError) as problem:
        raise UserError(
            f"Expected a checkpoint in '{path}', found a damaged file ({problem}). "
            "Remove it: the command that trained the run makes it again."
        ) from None
