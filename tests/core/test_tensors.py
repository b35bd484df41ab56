"""Checkpoints: an altered byte is no weight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headwater.core.errors import UserError
from headwater.core.tensors import load_tensors, save_tensors

TENSORS = {
    "weight": torch.randn(64, 8),
    "half": torch.randn(9).bfloat16(),
    "step": torch.tensor(7),
    "mask": torch.tensor([True, False]),
    "none": torch.empty(0, 3),
}


def test_tensors_and_facts_come_back_as_they_were(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", TENSORS, {"step": 3})
    tensors, facts = load_tensors(tmp_path / "a.safetensors")
    assert facts == {"step": 3}
    assert {*tensors} == {*TENSORS}
    assert all(torch.equal(tensors[key], value) for key, value in TENSORS.items())


def test_any_altered_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_tensors(path, TENSORS, {"progress": {"step": 3}})
    whole = path.read_bytes()
    known = load_tensors(path)[1]
    refused = []
    for place in [*range(0, len(whole), 37), len(whole) - 1]:
        altered = bytearray(whole)
        altered[place] ^= 4
        path.write_bytes(bytes(altered))
        try:
            tensors, facts = load_tensors(path)
        except UserError as problem:
            refused.append(str(problem))
        else:  # a blank of the header, or the checksum's own name: all that is used is as it was
            assert facts == known
            assert all(torch.equal(tensors[key], value) for key, value in TENSORS.items())
    assert len(refused) > 20
    for message in refused:
        assert message.startswith(f"Expected a checkpoint in '{path}', found a damaged file (")
        assert message.endswith("Remove it: the command that trained the run makes it again.")
        assert "\n" not in message


def test_a_flipped_weight_says_that_the_checksum_differs(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_tensors(path, TENSORS, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"damaged file \(its checksum is another than the one that was written\)"):
        load_tensors(path)


def test_a_file_of_before_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    save_file({"weight": TENSORS["weight"]}, tmp_path / "old.safetensors", metadata={"facts": '{"step": 3}'})
    tensors, facts = load_tensors(tmp_path / "old.safetensors")
    assert facts == {"step": 3}
    assert torch.equal(tensors["weight"], TENSORS["weight"])


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best.safetensors")
    with pytest.raises(UserError, match=r"found a damaged file \(a pipe, a socket or a device\)"):
        load_tensors(tmp_path / "best.safetensors")
