"""Pictures: written whole, marked, with their numbers beside them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.figure
import matplotlib.text
import pytest

from headwater.core.errors import UserError
from headwater.runs import pictures as plots
from headwater.runs.pictures import cosines_plot

COUNTS, CLASSES = [[3, 1], [0, 0]], ["neu", "hap"]


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of the pictures that are saved while the test runs."""
    found: list[str] = []
    save = matplotlib.figure.Figure.savefig

    def recorded(figure: matplotlib.figure.Figure, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        found.extend(text.get_text() for text in figure.findobj(matplotlib.text.Text))

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", recorded)
    return found


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_metrics(path: Path, *extra: str) -> Path:
    lines: list[dict[str, Any]] = [
        {"step": step, "split": "train", "task": "emotion", "loss": 1 / step, "lr": 1e-3} for step in (1, 2)
    ]
    lines.insert(0, {"step": 0, "split": "dev", "task": "emotion", "wa": 0.5, "loss": 0.9, "ua": 0.25})
    path.write_text("\n".join([*map(json.dumps, lines), *extra]) + "\n", encoding="utf-8")
    return path


def test_a_confusion_matrix_shows_counts_and_shares_and_keeps_them_as_csv(tmp_path: Path, texts: list[str]) -> None:
    plots.confusion_plot(COUNTS, CLASSES, tmp_path / "plots" / "confusion-test.png", title="Confusion, test")
    assert "3\n75 %" in texts
    assert "0\n0 %" in texts  # a class without references
    rows = table_of(tmp_path / "plots" / "confusion-test.csv")
    assert rows[1] == {"reference": "neu", "prediction": "hap", "count": "1", "share": "0.25"}
    assert len(rows) == 4


def test_a_matrix_of_many_classes_is_not_overwritten_with_numbers(tmp_path: Path, texts: list[str]) -> None:
    size = plots.MAX_WRITTEN_CLASSES + 1
    plots.confusion_plot(
        [[1] * size] * size, [f"c{index}" for index in range(size)], tmp_path / "large.png", title="Confusion, test"
    )
    assert not any("%" in text for text in texts)


def test_curves_show_the_loss_first_and_what_was_evaluated(tmp_path: Path, texts: list[str]) -> None:
    plots.curves_plot(write_metrics(tmp_path / "metrics.jsonl"), tmp_path / "curves.png")
    assert [text for text in texts if text in {"loss", "LR", "WA", "UA"}] == ["loss", "WA", "UA"]
    rows = table_of(tmp_path / "curves.csv")
    assert {"name": "lr", "task": "emotion", "split": "train", "step": "1", "value": "0.001"} in rows
    assert {"name": "ua", "task": "emotion", "split": "dev", "step": "0", "value": "0.25"} in rows


def test_a_single_loss_is_a_point_that_can_be_seen() -> None:
    figure = plots.curves_figure([("loss", "emotion", "train", 20, 0.7), ("loss", "emotion", "dev", 20, 0.8)])
    assert {line.get_label(): line.get_marker() for line in figure.axes[0].lines} == {"train": "o", "dev": "o"}
    longer = plots.curves_figure([("loss", "emotion", "train", step, 0.7) for step in (10, 20)])
    assert longer.axes[0].lines[0].get_marker() == "None"


COSINES = [
    json.dumps({"step": step, "split": "cosine", "task": "+".join(pair), "cosine": cosine})
    for pair, cosine in {("ks", "asr"): 0.5, ("ks", "sid"): -0.25, ("asr", "sid"): 0.0}.items()
    for step in (10, 20)
]


def test_cosines_of_gradients_have_a_picture_of_their_own(tmp_path: Path, texts: list[str]) -> None:
    metrics = write_metrics(tmp_path / "metrics.jsonl", *COSINES)
    assert cosines_plot(metrics, tmp_path / "cosines.png", marks=("DEMO",))
    assert texts.count("+0.50") == texts.count("-0.25") == 2  # both halves of the matrix
    assert {"most alike: ks, asr", "least alike: ks, sid"} < {*texts}
    rows = table_of(tmp_path / "cosines.csv")
    assert rows[0] == {"task": "ks", "other": "asr", "step": "10", "cosine": "0.5", "marks": "DEMO"}
    plots.curves_plot(metrics, tmp_path / "curves.png")
    assert not any("ks" in row["task"] for row in table_of(tmp_path / "curves.csv"))


def test_a_run_without_cosines_has_no_picture_of_them(tmp_path: Path) -> None:
    assert not cosines_plot(write_metrics(tmp_path / "metrics.jsonl"), tmp_path / "cosines.png")
    assert not (tmp_path / "cosines.png").exists()


def test_marks_are_in_the_title_and_in_the_csv(tmp_path: Path, texts: list[str]) -> None:
    plots.confusion_plot(COUNTS, CLASSES, tmp_path / "confusion.png", title="Confusion, test", marks=("DEMO", "UNTRAINED"))
    plots.curves_plot(write_metrics(tmp_path / "metrics.jsonl"), tmp_path / "curves.png", marks=("DEMO", "UNTRAINED"))
    assert sum(text.startswith("DEMO · UNTRAINED · ") for text in texts) == 2
    for name in ("confusion.csv", "curves.csv"):
        assert {row["marks"] for row in table_of(tmp_path / name)} == {"DEMO UNTRAINED"}


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_a_picture_is_whole_and_the_same_each_time(tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / name / f"picture{suffix}" for name in ("one", "two")]
    for file in files:
        plots.confusion_plot(COUNTS, CLASSES, file, title="Confusion, test")
    assert files[0].read_bytes() == files[1].read_bytes()
    assert b"CreationDate" not in files[0].read_bytes()
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["picture.csv", f"picture{suffix}"]


def test_a_picture_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "picture.png"
    path.write_text("old", encoding="utf-8")

    def half_written(figure: matplotlib.figure.Figure, aside: Path, **_: Any) -> None:  # noqa: ARG001
        aside.write_text("half", encoding="utf-8")
        raise RuntimeError("stopped")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", half_written)
    plots.confusion_plot(COUNTS, CLASSES, path, title="Confusion, test")
    assert capsys.readouterr().err == f"note      no picture {path}: stopped\n"
    assert {file.name for file in tmp_path.iterdir()} == {"picture.png", "picture.csv"}
    assert path.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(
    ("line", "message"),
    [('{"step": 3, "sp', "in line 4 of"), ('{"split": "dev"}', "with a 'step' in line 4 of"), ("[1]", "found '[1]'")],
)
def test_a_broken_line_of_metrics_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        plots.curves_plot(write_metrics(tmp_path / "metrics.jsonl", line), tmp_path / "curves.png")


def test_curves_of_no_run_or_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found none\. Is it a run folder"):
        plots.curves_plot(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="Expected losses or metrics"):
        plots.curves_plot(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


def test_curves_mark_the_chosen_step_and_what_guessing_scores(tmp_path: Path, texts: list[str]) -> None:
    result = {"metrics": {"wa": "higher", "ua": "higher"}, "classes": CLASSES}
    levels = plots.chance_levels({"emotion": result})
    assert levels == {("emotion", "ua"): 0.5}  # of WA it depends on how often each class occurs
    plots.curves_plot(write_metrics(tmp_path / "metrics.jsonl"), tmp_path / "curves.png", chosen=1, chance=levels)
    assert texts.count("chosen step 1") == 3
    assert texts.count("chance") == 1


def test_no_picture_holds_a_path_of_this_machine(tmp_path: Path, texts: list[str]) -> None:
    title = plots.run_title("Confusion, test", "emotion", f"{tmp_path}/my_hubert + {tmp_path}/all/seed1", "ravdess", "ua", 0.38)
    plots.confusion_plot(COUNTS, CLASSES, tmp_path / "confusion.svg", title=title)
    assert str(tmp_path.parent) not in (tmp_path / "confusion.svg").read_text(encoding="utf-8")
    assert "Confusion, test: emotion, my_hubert + all/seed1 on ravdess, UA 0.380" in texts
