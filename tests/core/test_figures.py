"""Pictures: what a class is called never breaks one, and one that breaks costs nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from headwater.core.errors import UserError
from headwater.core.figures import new_figure, save_figure
from headwater.runs.pictures import confusion_plot, curves_plot

CLASSES = [r"$\frac{$", "$5", "a$b$c"]
COUNTS = [[2, 0, 1], [0, 3, 0], [1, 0, 1]]


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_a_class_with_dollars_in_its_name_is_drawn_as_it_is(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"confusion.{ending}"
    confusion_plot(COUNTS, CLASSES, path, title=r"$\frac{$ of $x$")
    assert path.stat().st_size > 1000
    assert path.with_suffix(".csv").is_file()
    assert capsys.readouterr().err == ""


def test_a_class_of_thousands_of_letters_is_drawn_in_seconds(tmp_path: Path) -> None:
    began = time.process_time()
    confusion_plot(COUNTS, [letter * 60_000 for letter in "abc"], tmp_path / "confusion.png", title="Confusion, test")
    assert time.process_time() - began < 10
    assert (tmp_path / "confusion.png").is_file()


def test_a_picture_that_fails_is_reported_and_its_numbers_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("the font has\nno such sign.")

    monkeypatch.setattr(Figure, "savefig", fail)
    confusion_plot(COUNTS, CLASSES, tmp_path / "confusion.png", title="Confusion, test")
    assert capsys.readouterr().err == f"note      no picture {tmp_path / 'confusion.png'}: the font has\n"
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.csv"}


def test_a_picture_that_cannot_be_begun_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    confusion_plot([], [], tmp_path / "confusion.png", title="Confusion, test")
    assert f"note      no picture {tmp_path / 'confusion.png'}: " in capsys.readouterr().err


def test_a_users_mistake_is_still_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected a run's 'metrics\.jsonl'"):
        curves_plot(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


def test_what_a_killed_run_left_beside_a_picture_goes(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f".x.png.{ended.pid}.tmp").touch()
    (tmp_path / f".x.png.{os.getpid()}9.x.tmp").touch()
    save_figure(new_figure(2, 2, "empty"), tmp_path / "x.png")
    assert {path.name for path in tmp_path.iterdir()} == {"x.png", f".x.png.{os.getpid()}9.x.tmp"}
