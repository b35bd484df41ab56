"""The table that `headwater status` prints."""

from __future__ import annotations

from pathlib import Path

from headwater.commands.status import lines_of
from headwater.plans.status import PlanStatus, RunStatus


def test_a_run_alone_has_its_name_and_a_solved_head_no_pace(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    alone = lines_of(PlanStatus(folder, [RunStatus(".", "done", 20, 20, 0.894, 0.0, "test ua 0.726")], None, []))
    assert alone[0] == f"plan      {folder}: 1 done"
    assert alone[1].splitlines()[1].split()[:6] == ["mine", "done", "20", "of", "20", "0.89"]
    solved = lines_of(PlanStatus(folder, [RunStatus("fold1", "done", 1, 1, 0.32, 0.0, "test ua 0.878")], None, []))
    assert solved[1].splitlines()[1].split() == ["fold1", "done", "1", "of", "1", "test", "ua", "0.878"]
