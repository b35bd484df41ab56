"""Alignment and uniformity: their values, and `headwater plot geometry` over the embeddings that runs saved."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from headwater.analysis.geometry import Space, directions, points_of
from headwater.commands import plot
from headwater.core.errors import UserError
from headwater.core.files import write_json
from headwater.core.tensors import save_tensors
from headwater.downstream.turbo import geometry

AXES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])


def rows(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_the_mean_squared_distance_of_pairs_by_hand() -> None:
    others = torch.tensor([[2.0, 0.0], [0.0, -3.0], [0.0, 5.0]])  # distances squared: 0, 4, 2
    assert geometry.alignment(AXES, others) == pytest.approx(2.0)


def test_uniformity_is_the_log_mean_over_pairs_by_hand() -> None:
    # squared distances of the three pairs: 2, 4, 2
    expected = math.log((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert geometry.uniformity(7 * AXES) == pytest.approx(expected)
    assert geometry.uniformity(AXES, t=1.0) == pytest.approx(math.log((2 * math.exp(-2) + math.exp(-4)) / 3))


def test_uniformity_over_blocks_is_that_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    values = rows(50)
    unit = geometry.on_sphere(values)
    expected = torch.pdist(unit).square().mul(-2).exp().mean().log()
    assert geometry.uniformity(values) == pytest.approx(float(expected))
    monkeypatch.setattr(geometry, "_BLOCK", 7)
    assert geometry.uniformity(values) == pytest.approx(float(expected))


def test_a_collapsed_space_has_uniformity_zero_and_an_even_one_less() -> None:
    assert geometry.uniformity(torch.ones(20, 6)) == pytest.approx(0.0)
    assert geometry.uniformity(rows(500, dim=64)) < -3.5


def test_of_too_many_rows_as_many_as_are_looked_at_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    values = rows(400)
    whole = geometry.uniformity(values)
    monkeypatch.setattr(geometry, "MOST_ROWS", 200)
    part = geometry.uniformity(values)
    assert part == geometry.uniformity(values)
    assert part != whole
    assert part == pytest.approx(whole, abs=0.1)


def test_one_row_has_no_uniformity() -> None:
    assert math.isnan(geometry.uniformity(torch.ones(1, 4)))


def test_spaces_of_two_sizes_have_uniformity_alone() -> None:
    found = geometry.geometry_of(rows(5), rows(5, dim=4))
    assert {*found} == {"uniformity", "uniformity_audio", "uniformity_text"}
    assert found["uniformity"] == pytest.approx((found["uniformity_audio"] + found["uniformity_text"]) / 2)


def test_directions_are_the_points_along_their_two_largest_axes() -> None:
    values = torch.tensor([[9.0, 0.0, 0.1], [-9.0, 0.0, 0.1], [0.0, 4.0, 0.1], [8.0, 0.0, 0.1]])
    found = torch.from_numpy(directions(values))
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert float(found[0] @ found[1]) < -0.99
    assert float(found[0] @ found[3]) > 0.99
    assert abs(float(found[0] @ found[2])) < 0.1


def test_a_collapsed_space_points_one_way_and_an_even_one_everywhere() -> None:
    collapsed, even = (directions(rows(300, 16) + shift) for shift in (6, 0))
    assert collapsed.mean(axis=0) == pytest.approx([1, 0], abs=0.05)
    assert abs(even.mean(axis=0)).max() < 0.2


# the command, on run folders made by hand


def make_run(folder: Path, method: str, audio: Tensor, text: Tensor, marks: tuple[str, ...] = ("DEMO",)) -> Path:
    """A folder with what the command reads of a finished run."""
    write_json(folder / "identity.json", {"marks": list(marks)})
    write_json(folder / "vocabulary.json", {"turbo": {"classes": ["a", "b"], "audio_dim": audio.shape[1]}})
    (folder / "config.yaml").write_text(yaml.safe_dump({"task": "turbo", "turbo": {"method": method}}))
    together = torch.cat([audio, text], dim=1)
    save_tensors(folder / "outcome-test.safetensors", {"embeddings": together}, {"ids": [], "marks": list(marks)})
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A plan of two methods with two seeds each: one whose space collapses, one that is even and aligned."""
    for seed in (1, 2):
        narrow, even = rows(120, 16, seed) + 6, rows(120, 16, seed)
        make_run(tmp_path / "plan" / f"vanilla-{seed}", "vanilla", narrow, rows(120, 16, seed + 10))
        make_run(tmp_path / "plan" / f"turbo-{seed}", "turbo", even, even + 0.3 * rows(120, 16, seed + 20))
    return tmp_path / "plan"


def test_the_table_has_a_line_for_each_method_with_the_spread_of_its_seeds(
    plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot.plot_geometry([str(plan), "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "DEMO"
    assert lines[1] == "alignment and uniformity on test: lower is better"
    cells = {line.split()[0]: re.split(r"\s{2,}", line) for line in lines if "±" in line}
    assert {name: row[1] for name, row in cells.items()} == {"turbo": "2", "vanilla": "2"}
    alignment = {name: float(row[2].split("±")[0]) for name, row in cells.items()}
    assert alignment["turbo"] < alignment["vanilla"]
    assert lines[-1] == f"written to {tmp_path / 'out'}"


def test_pictures_and_the_numbers_behind_them_are_written(plan: Path, tmp_path: Path) -> None:
    plot.plot_geometry([str(plan), "--out", str(tmp_path / "out")])
    pictures = {f"{stem}{suffix}" for stem in ("align-uniform", "audio-density") for suffix in (".png", ".pdf")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == pictures | {"geometry.csv", "audio-density.csv"}
    table = list(csv.DictReader((tmp_path / "out" / "geometry.csv").open()))
    assert sorted(row["group"] for row in table) == ["turbo", "turbo", "vanilla", "vanilla"]
    assert {row["marks"] for row in table} == {"DEMO"}
    first = rows(120, 16, 1)
    expected = geometry.geometry_of(first, first + 0.3 * rows(120, 16, 21))
    turbo = next(row for row in table if row["run"].endswith("turbo-1"))
    assert {name: float(turbo[name]) for name in expected} == pytest.approx(expected, rel=1e-4)
    density = list(csv.DictReader((tmp_path / "out" / "audio-density.csv").open()))
    for name in ("turbo", "vanilla"):
        shares = [float(row["density"]) for row in density if row["group"] == name]
        assert sum(shares) * 2 * math.pi / len(shares) == pytest.approx(1, abs=1e-3)


def test_names_label_the_folders_instead_of_their_methods(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(plan / "turbo-1"), str(plan / "turbo-2")]
    plot.plot_geometry([*folders, "--names", "first,second", "--out", str(tmp_path / "out")])
    message = capsys.readouterr().out
    assert "first" in message
    assert "second" in message
    assert "±" not in message


@pytest.mark.parametrize("audio", [torch.ones(30, 16), torch.ones(2, 16), rows(1, 16), torch.eye(16)[[0, 1] * 15]])
def test_a_collapsed_or_tiny_space_is_drawn_all_the_same(audio: Tensor, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", "vanilla", audio, rows(len(audio), 16))
    assert plot.plot_geometry([str(folder), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "audio-density.png").stat().st_size > 1000


def test_runs_with_and_without_a_common_space_stand_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "a", "vanilla", rows(20, 8), rows(20, 8, 1))
    make_run(tmp_path / "b", "vanilla", rows(20, 8), rows(20, 6, 1))
    assert plot.plot_geometry([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "out")]) == 0
    assert "uniformity_text" in capsys.readouterr().out


WRONG: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "no folder": (
        lambda plan: [str(plan / "gone")],
        r"a run folder \(or a plan of runs\) at '.*gone', found none\. Check the path",
    ),
    "another split": (
        lambda plan: [str(plan), "--split", "test3"],
        r"Expected 'outcome-test3\.safetensors' in .*Is it a finished run",
    ),
    "too few names": (lambda plan: [str(plan), str(plan), "--names", "a"], r"a label for each of 2 folders, found 1"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_what_cannot_be_drawn_is_reported_in_one_line(mistake: str, plan: Path, tmp_path: Path) -> None:
    arguments, message = WRONG[mistake]
    with pytest.raises(UserError, match=message):
        plot.plot_geometry([*arguments(plan), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_joint_space_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a run with a joint space \(-d turbo\) in '.*finished', found one without embeddings"):
        plot.plot_geometry([str(finished), "--out", str(tmp_path / "out")])


def test_a_point_of_a_seed_is_the_mean_of_its_folds(tmp_path: Path) -> None:
    spaces = [Space(tmp_path, "turbo", rows(50, 8, seed), rows(50, 8, seed + 9), (), seed % 2) for seed in range(4)]
    points = points_of(spaces)
    assert len(points) == 2
    for seed, point in enumerate(points):
        expected = sum(spaces[fold].measures["alignment"] for fold in (seed, seed + 2)) / 2
        assert point["alignment"] == pytest.approx(expected)
