"""Mistakes with `headwater audit`, and with another toolkit's predictions: each is one line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("nowhere", "Expected the folder of a run or a plan at 'nowhere', found nothing. Check the path."),
        (
            "tones/tones.csv",
            "Expected -u and -d beside the table 'tones/tones.csv', found neither. Add them: -u fbank -d emotion",
        ),
        ("tones/tones.csv -u fbank", "Expected both -u and -d to probe 'tones/tones.csv', found -u alone. Add the other."),
        ("none.csv -u fbank -d emotion", "Expected a table or a corpus' folder at 'none.csv', found nothing. Check the path."),
        ("run", "Expected a run with solver=exact to audit (its controls are fitted like it), found solver=adam in 'run'."),
        ("run --folds all", "Expected --folds beside a table with -u and -d, found 'run' alone. Leave --folds out."),
        ("run run", "Expected one run or table, or several with --matrix, found 2 without --matrix. Name one, or add --matrix."),
        ("run --matrix", "Expected one run or table, or several with --matrix, found one alone."),
        ("run --split test2", "Expected split 'test2' in all runs, found dev, test (not in 'run')"),
        ("run --metric uaa", "Expected a metric of emotion (wa, ua, macro_f1), found 'uaa'. Did you mean 'ua'?"),
        (
            "run --predictions none.csv",
            "Expected a table that can be read at none.csv, found: No such file or directory. Check the path.",
        ),
    ],
)
def test_what_cannot_be_audited_is_reported(error_of: Callable[..., str], typed: str, expected: str) -> None:
    message = error_of(f"headwater audit {typed}")
    assert expected in message, message


def test_a_task_by_steps_is_refused_before_it_is_trained(error_of: Callable[..., str], desk: Path) -> None:
    message = error_of("headwater audit tones/tones.csv -u fbank_no_cmvn -d emotion -o training.steps=5")
    assert "Expected a run with solver=exact to audit (its controls are fitted like it), found solver=adam" in message
    assert not (desk / "result").exists()


@pytest.fixture
def rows(desk: Path) -> list[dict[str, str]]:
    """The run's own predictions, as another toolkit would give them."""
    with (desk / "run" / "predictions-test.csv").open(newline="") as file:
        return [{"id": row["id"], "prediction": row["prediction"]} for row in csv.DictReader(file)]


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def test_predictions_of_another_toolkit_are_compared(
    desk: Path, type_in: Callable[[str], tuple[int, str, str]], rows: list[dict[str, str]]
) -> None:
    write(desk / "theirs.csv", rows[::-1])
    code, out, _ = type_in("headwater compare run theirs.csv")
    assert code == 0
    assert "finished and theirs.csv cannot be told apart in UA" in out
    with (desk / "run" / "predictions-test.csv").open(newline="") as file:
        files = [{"path": row["file"].rsplit("/", 1)[1], "label": row["prediction"]} for row in csv.DictReader(file)]
    write(desk / "files.csv", files)
    again = type_in("headwater compare run files.csv")[1].replace("files.csv", "theirs.csv")
    assert [line.split() for line in again.splitlines()] == [
        line.split() for line in out.splitlines()
    ]  # columns are as wide as names


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows[1:], "Expected a prediction for all 12 utterances in 'theirs.csv', found 1 missing ("),
        (lambda rows: [*rows, rows[0]], "Expected one row for each utterance in 'theirs.csv', found 1 with several ("),
        (lambda rows: [*rows, {"id": "x", "prediction": "low"}], "that 'run' was tested on in 'theirs.csv', found 1 unknown (x)"),
        (lambda rows: [{**rows[0], "prediction": "lo"}, *rows[1:]], "found 'lo'. Did you mean 'low'? Mend the row."),
        (lambda rows: [{"id": row["id"]} for row in rows], "Expected a column 'prediction' in 'theirs.csv', found id."),
        (
            lambda rows: [{"prediction": "low"} for _ in rows],
            "Expected a column 'id' or 'file' in 'theirs.csv', found prediction.",
        ),
        (
            lambda rows: [{**row, "score_low": "1"} for row in rows],
            "Expected all columns of scores in 'theirs.csv' or none, found no",
        ),
        (
            lambda rows: [{**row, "score_low": "1", "score_middle": "x", "score_high": "0"} for row in rows],
            "Expected numbers as scores in 'theirs.csv', found another word",
        ),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    desk: Path,
    error_of: Callable[..., str],
    rows: list[dict[str, str]],
    change: Callable[[list[dict[str, str]]], list[dict[str, str]]],
    expected: str,
) -> None:
    write(desk / "theirs.csv", change(rows))
    message = error_of("headwater compare run theirs.csv")
    assert expected in message, message


def test_a_table_comes_behind_the_run(desk: Path, error_of: Callable[..., str], rows: list[dict[str, str]]) -> None:
    write(desk / "theirs.csv", rows)
    message = error_of("headwater compare theirs.csv run")
    assert "Expected a run first, which knows the labels, found the table 'theirs.csv'. Name it behind the run." in message
