"""What a task may be called."""

from __future__ import annotations

from headwater.downstream.base import RESERVED
from headwater.runs.config.schema import RECIPE_WORDS


def test_no_task_is_called_as_a_section_of_a_recipe() -> None:
    assert RECIPE_WORDS | {"all"} == RESERVED
