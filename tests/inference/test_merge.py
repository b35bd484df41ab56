"""Merging: the parts at 0 and 1 to the digit, means and task vectors by hand, checkpoints, a sweep, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headwater.__main__ import dispatch
from headwater.core.errors import UserError
from headwater.inference.export.hub_format import write_model
from headwater.inference.merge import merged
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream
from headwater.upstream.random_weights import forget_training


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """Three folders of one tiny architecture with different weights."""
    folders = []
    for seed in range(3):
        upstream = load_upstream("test_hubert")
        forget_training(upstream, seed=seed + 5)
        folder = tmp_path_factory.mktemp(f"part{seed}")
        write_model(upstream, folder)
        folders.append(str(folder))
    return tuple(folders)


def test_at_zero_and_one_stand_the_parts_to_the_digit(parts: tuple[str, str, str]) -> None:
    weights = [load_upstream(name).state_dict() for name in parts]
    for shares, expected in (((1.0, 0.0), weights[0]), ((0.0, 1.0), weights[1])):
        found = merged(parts[:2], shares).state_dict()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    back = merged(parts[:1], (1.0,), base=parts[2]).state_dict()
    assert all(torch.equal(back[key], weights[0][key]) for key in back)


def test_means_and_task_vectors_by_hand(parts: tuple[str, str, str]) -> None:
    one, other, base = (load_upstream(name).state_dict() for name in parts)
    mean = merged(parts[:2], (0.3, 0.7)).state_dict()
    assert all(torch.allclose(mean[key], 0.3 * one[key] + 0.7 * other[key], atol=1e-6) for key in one)
    vectors = merged(parts[:2], (0.5, -0.4), base=parts[2]).state_dict()
    expected = {key: base[key] + 0.5 * (one[key] - base[key]) - 0.4 * (other[key] - base[key]) for key in one}
    assert all(torch.allclose(vectors[key], expected[key], atol=1e-6) for key in one)


def test_a_sweep_trains_each_mixture_and_names_the_best(
    parts: tuple[str, str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["merge", *parts[:2], "--sweep", "0,1", "-d", "emotion", "--demo", "--to", str(tmp_path / "to")]
    assert dispatch([*command, "-o", "corpus.demo_scale=0.3"]) == 0
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.strip().splitlines()] == ["coefficient", "0", "1"]
    assert "dev prefers" in printed.err
    assert load_upstream(str(tmp_path / "to" / "1")).weights_hash() == load_upstream(parts[1]).weights_hash()


def test_mistakes_are_one_line(parts: tuple[str, str, str], tmp_path: Path) -> None:
    to = ["--to", str(tmp_path / "to")]
    for arguments, message in (
        ([parts[0]], "Expected at least 2 upstreams"),
        ([*parts[:2], "--weights", "0.5"], "Expected a weight for each of 2"),
        ([*parts[:2], "--weights", "0.5,0.6"], "sum to 1 without --base"),
        ([*parts[:2], "--weights", "0.5,nan"], "Expected finite weights"),
        ([*parts[:2], "--weights", "0.5,half"], "Expected numbers after --weights, found 'half'"),
        ([parts[0], "test_hubert_large"], "Expected upstreams of one architecture"),
        ([*parts[:2], "-d", "emotion"], "Expected --sweep beside -d"),
        ([*parts, "--sweep", "0,1", "-d", "emotion"], "Expected two upstreams"),
        ([*parts[:2], "--sweep", "0,1"], "Expected a task to choose by"),
    ):
        with pytest.raises(UserError, match=message):
            dispatch(["merge", *arguments, *to])
        assert not (tmp_path / "to").exists()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "file").touch()
    with pytest.raises(UserError, match="Expected a new folder after --to"):
        dispatch(["merge", *parts[:2], *to])


def test_an_untrained_part_marks_the_whole(parts: tuple[str, str, str]) -> None:
    frozen = UpstreamConfig(name="test_hubert")
    assert load_upstream(frozen).untrained
    assert merged((parts[0], "test_hubert"), (0.5, 0.5)).untrained
