"""One registry for each kind of name: ours by file, typed by path, offered by packages; a mistake changes none of them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headwater.core.errors import UserError
from headwater.plugins import code, registry
from headwater.plugins.code import name_behind, use, used
from headwater.plugins.registry import BUILT_IN, REGISTRIES, SESSION, Origin, Registry, adding, undone_on_mistake

HOMES = {  # as upstream/base.py, downstream/base.py and their catalogues, in miniature
    "house/upstreams.py": """
        from dataclasses import dataclass
        from headwater.plugins.registry import Registry

        @dataclass(frozen=True)
        class Row:
            name: str

        UPSTREAMS = Registry("upstream", "house.families")

        def register(name):
            return UPSTREAMS.register(Row(name), __name__)
    """,
    "house/families/__init__.py": """
        from headwater.plugins.registry import import_catalogue

        import_catalogue(__name__, __path__)
    """,
    "house/families/spectrogram.py": "from house.upstreams import register\nregister('fbank')\n",
    "house/families/other.py": "from house.upstreams import register\nregister('mfcc')\n",
    "house/tasks.py": """
        from headwater.core.errors import UserError
        from headwater.plugins.registry import Registry
        from house.upstreams import Row

        def task_of(thing, where):
            if not isinstance(getattr(thing, "TASK", None), Row):
                raise UserError(f"no task in {where}")
            return thing.TASK

        TASKS = Registry("task", "house.downstream", find_in=task_of)
    """,
    "house/downstream/__init__.py": "",
    "house/downstream/mood/__init__.py": "",
    "house/downstream/mood/expert.py": "from house.upstreams import Row\nTASK = Row('mood')\n",
    "house/downstream/no_task/__init__.py": "",
}


@pytest.fixture(autouse=True)
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library with a catalogue and two registries that nobody has imported yet."""
    for name, text in {**HOMES, "house/__init__.py": ""}.items():
        write(tmp_path / name, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    none: dict[Any, Any] = {}
    for module in (registry, code):
        monkeypatch.setattr(module, "REGISTRIES", none)
    yield
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("house", "mine") or name.startswith(code.FAMILY):
            del sys.modules[name]


def write(path: Path, text: str) -> None:
    """Write code, its indentation taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


@pytest.fixture
def typed(tmp_path: Path) -> Callable[..., Any]:
    """Type the path of a file with this text."""

    def run(text: str, name: str = "mine.py") -> Any:
        write(tmp_path / name, text)
        return use(str(tmp_path / name))

    return run


BANDS = "from house.upstreams import register\nregister('bands')\n"


@dataclass(frozen=True)
class Item:
    """What is registered here."""

    name: str


def test_ours_are_found_by_file_and_built_in() -> None:
    from house.upstreams import UPSTREAMS

    assert UPSTREAMS.names() == ["fbank", "mfcc"]
    assert UPSTREAMS.names("f*") == ["fbank"]
    assert UPSTREAMS.get("fbank").name == "fbank"
    assert UPSTREAMS.origin("fbank") is BUILT_IN
    assert UPSTREAMS.get("nothing") is UPSTREAMS.origin("nothing") is None


def test_a_task_is_a_folder_and_loaded_when_it_is_needed() -> None:
    from house.tasks import TASKS

    assert TASKS.names() == TASKS.built_in() == ["mood"]
    assert TASKS.origin("mood") is BUILT_IN
    assert "house.downstream.mood.expert" not in sys.modules
    assert TASKS.get("mood").name == "mood"


def test_a_typed_upstream_is_found_though_only_its_own_import_brought_the_registry(typed: Callable[..., Any]) -> None:
    found = typed(BANDS)
    assert (found.kind, found.name) == ("upstream", "bands")
    from house.upstreams import UPSTREAMS

    origin = UPSTREAMS.origin("bands")
    assert (origin.kind, origin.place, origin.code) == ("typed", str(found.path), found.digest)
    assert UPSTREAMS.origin("fbank") is BUILT_IN


@pytest.mark.parametrize("asks", ["from house.upstreams import UPSTREAMS; UPSTREAMS.names()", "import house.families.other"])
def test_ours_are_ours_though_a_typed_file_imports_them_first(typed: Callable[..., Any], asks: str) -> None:
    assert typed(f"{asks}\n{BANDS}").name == "bands"
    from house.upstreams import UPSTREAMS

    assert {name: UPSTREAMS.origin(name).kind for name in UPSTREAMS.names()} == {
        "bands": "typed",
        "fbank": "built in",
        "mfcc": "built in",
    }


def test_a_typed_task_is_found_in_its_module(typed: Callable[..., Any]) -> None:
    found = typed("import house.tasks\nfrom house.upstreams import Row\nTASK = Row('mine')\n", "mine/expert.py")
    assert (found.kind, found.name) == ("task", "mine")
    from house.tasks import TASKS

    assert TASKS.names() == ["mine", "mood"]
    assert TASKS.folder("mine") == found.path


def test_a_module_without_a_task_is_one_line_though_no_registry_is_there(typed: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match=r"^Expected `TASK = Task\(…\)` at the end of expert.py in .*, found none. Add it.$"):
        typed("x = 1\n", "mine/expert.py")


def test_nothing_registered_is_an_error(typed: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="found none"):
        typed("x = 1\n")


def test_the_same_code_is_executed_once_and_edited_code_again(typed: Callable[..., Any], tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')\n"
    assert typed(count + BANDS) == typed(count + BANDS)
    assert (tmp_path / "count").read_text() == "x"
    assert typed(count + BANDS + "# edited\n").name == "bands"
    assert (tmp_path / "count").read_text() == "xx"
    assert len(used()) == 1


def test_a_recipe_may_name_only_a_path_that_was_typed(typed: Callable[..., Any]) -> None:
    with pytest.raises(
        UserError, match=r"^Expected the name of an upstream, found the path 'mine.py': only a path that you type"
    ):
        name_behind("mine.py", "upstream")
    typed(BANDS)
    assert name_behind("mine.py", "upstream") == "bands"
    with pytest.raises(UserError, match=r"^Expected the name of a corpus"):
        name_behind("mine.py", "corpus")


@pytest.mark.parametrize("mistake", ["raise RuntimeError('broken')", "register('fbank')", "register('another')", "1 +"])
def test_a_mistake_leaves_every_registry_as_it_was(typed: Callable[..., Any], mistake: str) -> None:
    with pytest.raises(UserError):
        typed(f"import house.tasks\n{BANDS}{mistake}\n")
    from house.upstreams import UPSTREAMS

    assert UPSTREAMS.names() == ["fbank", "mfcc"]
    assert used() == []
    assert typed(BANDS).name == "bands"


def test_a_mistake_in_edited_code_brings_the_former_back(typed: Callable[..., Any]) -> None:
    before = typed(BANDS)
    with pytest.raises(UserError):
        typed(f"{BANDS}1 / 0\n")
    assert used() == [before]


def test_an_interruption_leaves_no_half() -> None:
    corpora: Registry[Item] = Registry("corpus", "house")

    @undone_on_mistake()
    def interrupted() -> None:
        corpora.register(Item("half"), "here")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert corpora.names() == []


def test_a_name_is_taken_over_by_nobody_but_by_the_module_that_may_replace_it() -> None:
    corpora: Registry[Item] = Registry("corpus", "house")
    first = corpora.register(Item("mine"), "here")
    with pytest.raises(
        UserError, match=r"^Expected another name for a corpus than 'mine', found it in here and in there. Rename"
    ):
        corpora.register(Item("mine"), "there", replaces=True)
    with pytest.raises(UserError, match=r"found it in here and in here"):
        corpora.register(Item("mine"), "here")
    assert corpora.get("mine") is first
    second = corpora.register(Item("mine"), "here", replaces=True)
    assert corpora.get("mine") is second
    assert corpora.origin("mine") is SESSION


def test_a_name_of_ours_is_refused_to_a_session_that_requested_none_of_them_yet() -> None:
    from house.upstreams import register

    with pytest.raises(UserError, match=r"'fbank', found it in house.upstreams and in house.upstreams"):
        register("fbank")


def test_the_origin_is_that_of_the_innermost_and_comes_back() -> None:
    corpora: Registry[Item] = Registry("corpus", "house")
    outer, inner = Origin("typed", "/mine.py", "1"), Origin("installed", "theirs 1.2", "theirs 1.2")
    with adding(outer):
        with adding(inner):
            corpora.register(Item("theirs"), "theirs")
        corpora.register(Item("mine"), "mine")
    assert (corpora.origin("theirs"), corpora.origin("mine")) == (inner, outer)


def test_isolated_begins_with_ours_and_forgets(typed: Callable[..., Any]) -> None:
    typed(BANDS)
    from house.upstreams import UPSTREAMS, register

    with UPSTREAMS.isolated():
        assert UPSTREAMS.names() == ["fbank", "mfcc"]
        register("inside")
        assert "inside" in UPSTREAMS.names()
    assert UPSTREAMS.names() == ["bands", "fbank", "mfcc"]


def test_ours_stay_though_they_were_scanned_inside() -> None:
    from house.upstreams import UPSTREAMS

    with UPSTREAMS.isolated():
        assert UPSTREAMS.names() == ["fbank", "mfcc"]
    assert UPSTREAMS.names() == ["fbank", "mfcc"]


def test_each_registry_is_known_by_its_kind() -> None:
    from house.upstreams import UPSTREAMS

    assert registry.REGISTRIES == {"upstream": UPSTREAMS}
    assert REGISTRIES is not registry.REGISTRIES, "that of the library is left alone"
