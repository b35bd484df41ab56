"""Where a corpus is looked for, and what is said when it is nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from headwater.core.errors import UserError
from headwater.core.files import cache_folder
from headwater.corpus.base import Reader
from headwater.corpus.load import get_reader, list_corpora
from headwater.corpus.locate import find_root


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "headwater.yaml"))


@pytest.fixture
def reader() -> Reader:
    return get_reader("emodb")


def place(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_the_path_that_is_typed_comes_first(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(tmp_path / "all" / "emodb")
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path / "all"))
    typed = place(tmp_path / "typed")
    assert find_root(reader, str(typed)) == typed


def test_the_environment_comes_before_the_config_file(reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = place(tmp_path / "named")
    (tmp_path / "headwater.yaml").write_text(f"data: {{emodb: {named}}}")
    assert find_root(reader, None) == named
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path / "all"))
    assert find_root(reader, None) == named  # no folder emodb there yet
    inside = place(tmp_path / "all" / "emodb")
    assert find_root(reader, None) == inside


@pytest.mark.parametrize("name", list(list_corpora()))
def test_a_corpus_that_is_nowhere_says_how_to_get_it_where_to_put_it_and_what_works_now(name: str) -> None:
    reader = get_reader(name)
    with pytest.raises(UserError) as problem:
        find_root(reader, None)
    message = str(problem.value)
    assert reader.where
    for words in (reader.where, "--data", "HEADWATER_DATA", f"{name}: PATH"):
        assert words in message
    assert ("--demo" in message) == (reader.make_demo is not None)


def test_a_typed_path_with_nothing_there_is_named(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the folder of emodb at .*typo \(from --data\), found nothing there"):
        find_root(reader, str(tmp_path / "typo"))


def test_a_table_in_place_of_a_folder_is_refused(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "data.csv").touch()
    with pytest.raises(UserError, match="--corpus manifest"):
        find_root(reader, str(tmp_path / "data.csv"))
    with pytest.raises(UserError, match="Name the table in it"):
        find_root(get_reader("manifest"), str(tmp_path))


@pytest.mark.parametrize("content", ["data: [a, b]", "just words", "data: {emodb: ["])
def test_a_config_file_that_says_something_else_is_named(reader: Reader, tmp_path: Path, content: str) -> None:
    (tmp_path / "headwater.yaml").write_text(content)
    with pytest.raises(UserError, match=r"Expected yaml such as 'data: \{iemocap: /path\}' in .*headwater.yaml"):
        find_root(reader, None)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user that nobody has told the system of."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "HEADWATER_CONFIG", "HEADWATER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_gets_a_hint_what_to_set(reader: Reader, tmp_path: Path) -> None:
    typed = place(tmp_path / "typed")
    assert find_root(reader, str(typed)) == typed
    with pytest.raises(UserError, match=r"nor an entry in ~/.config/headwater.yaml"):
        find_root(reader, None)
    with pytest.raises(UserError, match=r"Expected a home for '~/x' \(from --data\), found none. Write the path out."):
        find_root(reader, "~/x")
    with pytest.raises(UserError, match=r"Expected a home for the cache .* Set HEADWATER_CACHE=FOLDER, or HOME."):
        cache_folder()
