"""Recipes from strangers: what a yaml file may stand for, and how little of it is believed."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest

from headwater.core.errors import UserError
from headwater.core.options import PATHS, bind, parse_override, read_yaml, without_folders
from headwater.core.trust import Trust

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, "more than 100,000 values"),
        ("a: &a\n  b: *a\n", "an alias that stands for itself"),
        ("a: " + "[" * 5000 + "]" * 5000, "lists or mappings nested too deeply"),
        ("a: " + "1" * 5000, "Exceeds the limit"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("# " + "x" * 2**20, "more than 1,048,576 bytes"),
    ],
    ids=["bomb", "self", "deep", "digits", "date", "large"],
)
def test_yaml_that_stands_for_too_much_is_refused_at_once(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    began = time.process_time()
    with pytest.raises(UserError, match=r"^Expected yaml in '.*recipe\.yaml', found ") as problem:
        read_yaml(tmp_path / "recipe.yaml")
    assert words in str(problem.value)
    assert "\n" not in str(problem.value)
    assert time.process_time() - began < 20


def test_a_pipe_is_no_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")
    with pytest.raises(UserError, match="found a pipe, a socket or a device"):
        read_yaml(tmp_path / "recipe.yaml")


def test_an_alias_used_twice_is_as_good_as_two_copies(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: &a {lr: 1}\nb: *a\n")
    assert read_yaml(tmp_path / "recipe.yaml") == {"a": {"lr": 1}, "b": {"lr": 1}}


@pytest.mark.parametrize("value", ["[" * 5000, "1" * 5000, "&a [*a]"])
def test_an_override_that_stands_for_too_much_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"^Expected a yaml value after 'seed=', found '") as problem:
        parse_override(f"seed={value}")
    assert len(str(problem.value)) < 250


def test_paths_are_suspected_wherever_they_stand(tmp_path: Path) -> None:
    held: dict = {"deep": [{"path": str(tmp_path / "a.pt")}]}
    held["itself"] = held
    trust = Trust()
    trust.suspect(held)
    assert not trust.allows(tmp_path / "a.pt")
    assert trust.allows("a\0b.pt")  # nobody named it, and nothing lies there


@dataclasses.dataclass(frozen=True)
class Section:
    """Two options."""

    mode: str = "auto"
    seed: int = 0


def test_a_word_that_yaml_takes_for_true_or_false_is_reported_how_to_be_one() -> None:
    errors: list[str] = []
    bind(Section, parse_override("mode=off"), "store", errors)
    assert errors == ["Expected 'store.mode' to be a word, found False: yaml reads on, off, yes and no so. Quote it: '\"off\"'."]


def test_a_date_is_no_number() -> None:
    errors: list[str] = []
    bind(Section, parse_override("seed=2020-01-01"), "", errors)
    assert errors == ["Expected 'seed' to be a whole number, found datetime.date(2020, 1, 1)."]


@dataclasses.dataclass(frozen=True)
class Files:
    """An option of one path or several."""

    files: str | list[str] | None = dataclasses.field(default=None, metadata=PATHS)
    steps: int = 3


@pytest.mark.parametrize(
    ("given", "bound", "named"),
    [
        ("a/b.txt", "a/b.txt", "b.txt"),
        (["a/b.txt", "c.txt"], ["a/b.txt", "c.txt"], ["b.txt", "c.txt"]),
        (None, None, None),
    ],
)
def test_an_option_may_be_a_word_or_a_list_of_words_and_paths_count_by_their_names(given: Any, bound: Any, named: Any) -> None:
    errors: list[str] = []
    config = bind(Files, {"files": given}, "mine", errors)
    assert (config.files, errors) == (bound, [])
    assert without_folders(config) == {"files": named}


def test_a_word_or_a_list_of_words_is_no_mapping() -> None:
    errors: list[str] = []
    bind(Files, {"files": {"a": "b"}}, "mine", errors)
    assert errors == ["Expected 'mine.files' to be a word, found {'a': 'b'}."]
