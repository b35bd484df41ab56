"""What is written of every answer, and read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headwater.core.errors import UserError
from headwater.corpus.base import Utterance
from headwater.corpus.batch import Example
from headwater.downstream.answer import MOST_CLASSES, OneClass
from headwater.downstream.base import Outcome
from headwater.runs.results import read_predictions, write_predictions


def written(path: Path, classes: int, scored: bool = True) -> tuple[Outcome, list[str]]:
    """Write three answers among so many classes; return them with the columns of the file."""
    names = [f"c{number}" for number in range(classes)]
    scores = torch.rand(3, classes, generator=torch.Generator().manual_seed(0)) if scored else None
    outcome = Outcome(("u0", "u1", "u2"), tuple(names[:3]), tuple(names[1:4]), scores)
    examples = [Example(Utterance(name, "x.wav", speaker="ada"), 1.0) for name in outcome.ids]
    write_predictions(path, outcome, examples, OneClass(tuple(names)))
    return outcome, path.read_text().splitlines()[0].split(",")


@pytest.mark.parametrize(("classes", "scored"), [(MOST_CLASSES, True), (MOST_CLASSES, False), (MOST_CLASSES + 1, True)])
def test_no_column_is_written_without_values(tmp_path: Path, classes: int, scored: bool) -> None:
    outcome, header = written(tmp_path / "p.csv", classes, scored)
    found, speakers = read_predictions(tmp_path / "p.csv", OneClass(()))
    assert (found.ids, found.predictions, found.references) == (outcome.ids, outcome.predictions, outcome.references)
    assert speakers == ["ada"] * 3
    has_scores = scored and classes <= MOST_CLASSES
    assert any(name.startswith("score_") for name in header) == has_scores == (found.scores is not None)


def test_columns_of_an_earlier_version_that_hold_nothing_are_passed_over(tmp_path: Path) -> None:
    lines = ["id,file,start,duration,speaker,reference,prediction,score_a,score_b", "u0,x.wav,0,1,ada,a,b"]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    assert read_predictions(tmp_path / "p.csv", OneClass(()))[0].scores is None


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\0binary", b"id,file\na,b\n", b"id,prediction,reference,speaker,score_a\nx,a,b,s,high\n"]
)
def test_predictions_that_a_run_did_not_write_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "predictions-test.csv").write_bytes(content)
    with pytest.raises(
        UserError, match=r"^Expected a run's predictions in '.*', found a damaged file \(.*\)\. Remove"
    ) as problem:
        read_predictions(tmp_path / "predictions-test.csv", OneClass(("a", "b")))
    assert "\n" not in str(problem.value)
