"""What installed packages offer is found by its entry points, loaded when it is asked for, and kills nothing that it is not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import headwater as library
from headwater.commands import check as check_command
from headwater.commands import list_ as list_command
from headwater.core.errors import UserError
from headwater.corpus.base import CORPORA
from headwater.corpus.describe import table_of_corpora
from headwater.corpus.load import default_corpus, get_reader
from headwater.downstream.base import TASKS
from headwater.downstream.load import list_tasks, load_task
from headwater.plugins import code as own_code
from headwater.plugins.provenance import identity_of_code, refuse_other_code
from headwater.plugins.registry import GROUPS, Kind
from headwater.runs.config.recipes import task_default
from headwater.upstream.base import UPSTREAMS
from headwater.upstream.load import load_upstream

EXAMPLES = Path(library.__file__).parent / "examples"
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> Iterator[Install]:
    """Install a package: its name, its entry points (`group name = module:attribute`), and the examples in it."""
    forget()
    before = {*sys.modules}

    def make(name: str, *points: str) -> Path:
        site = tmp_path / name
        shutil.copytree(EXAMPLES, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        info = site / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = [line for point in points for line in (f"[headwater.{point.split()[0]}]", point.split(maxsplit=1)[1])]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(site))
        return site / name

    yield make
    for module in {*sys.modules} - before:
        if not module.startswith("headwater"):
            sys.modules.pop(module)


def test_all_three_kinds_are_found_by_name(install: Install) -> None:
    install(
        "theirs",
        "tasks my_task = theirs.my_task.expert:TASK",
        "upstreams my_upstream = theirs.my_upstream",
        "corpora my_corpus = theirs.my_corpus",
    )
    assert load_task("my_task").name == "my_task"
    upstream = load_upstream("my_upstream")
    assert (upstream.spec.num_layers, upstream.source, upstream.code) == (2, "theirs 1.2", "theirs 1.2")
    assert get_reader("my_corpus").protocols == {"speaker4": 4}


def test_a_module_with_a_task_and_its_defaults_serve_too(install: Install) -> None:
    folder = install("theirs", "tasks my_task = theirs.my_task.expert")
    (folder / "my_task" / "default.yaml").write_text("my_task: {hidden_dim: 5}\n")
    assert load_task("my_task").options().hidden_dim == 64
    assert task_default("my_task") == {"my_task": {"hidden_dim": 5}}


def test_nothing_is_loaded_before_it_is_requested(install: Install) -> None:
    install("theirs", "tasks my_task = theirs.my_task.expert:TASK", "upstreams my_upstream = theirs.my_upstream")
    assert "my_task" in list_tasks()
    load_task("emotion")
    load_upstream("fbank")
    assert not [name for name in sys.modules if name.startswith("theirs")]


def test_a_broken_package_is_one_line_that_names_it_and_kills_no_other_name(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = install("theirs", "upstreams my_upstream = theirs.my_upstream", "tasks my_task = theirs.no_such_module")
    path = folder / "my_upstream.py"
    path.write_text("import nothing_of_the_kind\n" + path.read_text())
    load_upstream("fbank")
    with pytest.raises(UserError) as problem:
        load_upstream("my_upstream")
    assert "the upstream 'my_upstream' of the package theirs 1.2, found that it cannot be loaded" in str(problem.value)
    assert "No module named 'nothing_of_the_kind'" in str(problem.value)
    assert "\n" not in str(problem.value)
    assert list_command.main(["upstreams", "*bank*"]) == 0
    assert "theirs" not in capsys.readouterr().err
    assert list_command.main(["upstreams"]) == 0
    listed = capsys.readouterr()
    assert "fbank_no_cmvn" in listed.out
    assert listed.err.count("passed over: ") == 1
    assert list_command.main(["corpora"]) == 0
    assert "passed over: Expected the task 'my_task' of the package theirs 1.2" in capsys.readouterr().out


def test_what_is_installed_is_listed_with_where_it_comes_from(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    points = ["tasks my_task = theirs.my_task.expert:TASK", "corpora my_corpus = theirs.my_corpus"]
    install("theirs", "upstreams my_upstream = theirs.my_upstream", *points)
    list_command.main(["upstreams", "my_*"])
    assert capsys.readouterr().out.startswith("my_upstream  audio  theirs 1.2  Loudness of 20 bands")
    list_command.main(["corpora"])
    out = capsys.readouterr().out
    assert "from packages: my_task (task of theirs 1.2), my_corpus (corpus of theirs 1.2)" in out
    assert "\nmy_corpus: a folder for each class" in out


@pytest.mark.parametrize(
    ("point", "report"),
    [
        ("upstreams fbank = theirs.my_upstream", "Expected another name than 'fbank' for the upstream of the package theirs 1.2"),
        (
            "tasks emotion = theirs.my_task.expert:TASK",
            "Expected another name than 'emotion' for the task of the package theirs",
        ),
        ("corpora iemocap = theirs.my_corpus", "Expected another name than 'iemocap' for the corpus of the package theirs 1.2"),
    ],
)
def test_a_name_of_ours_stays_ours(install: Install, point: str, report: str) -> None:
    install("theirs", point)
    assert load_upstream("fbank").source == "built in"
    assert load_task("emotion").question(None).name == "emotion"
    assert get_reader("iemocap").read.__module__ == "headwater.corpus.readers.iemocap"
    found = [*UPSTREAMS.broken(), *TASKS.broken(), *CORPORA.broken()]
    assert len(found) == 1
    assert report in found[0]


def test_two_packages_with_one_name_are_both_named(install: Install) -> None:
    install("theirs", "upstreams my_upstream = theirs.my_upstream")
    install("others", "upstreams my_upstream = others.my_upstream")
    with pytest.raises(UserError, match=r"found it in (theirs 1.2 and others|others 1.2 and theirs) 1.2. Uninstall one"):
        load_upstream("my_upstream")


def test_a_typed_task_may_not_have_the_name_of_an_installed_one(install: Install) -> None:
    folder = install("theirs", "tasks my_task = theirs.my_task.expert:TASK")
    with pytest.raises(UserError, match=r"found 'my_task', which is one of theirs 1.2 already"):
        own_code.use(str(folder / "my_task"))


def test_an_entry_point_must_be_called_as_its_task(install: Install) -> None:
    install("theirs", "tasks mood = theirs.my_task.expert:TASK")
    with pytest.raises(UserError, match=r"Expected a task called 'mood' in .*, found Task\(name='my_task'\)"):
        load_task("mood")


def claim(folder: Path, *tasks_: str) -> None:
    """Have the example corpus of a package claim to be the usual one of tasks."""
    path = folder / "my_corpus.py"
    path.write_text(path.read_text().replace("protocols=PROTOCOLS,", f"protocols=PROTOCOLS,\n        default_for={tasks_},"))


def test_a_package_does_not_take_over_the_bare_command(install: Install) -> None:
    folder = install("theirs", "corpora aaa = theirs.my_corpus")
    path = folder / "my_corpus.py"
    path.write_text(path.read_text().replace('name="my_corpus"', 'name="aaa"'))
    claim(folder, "emotion", "my_task")
    assert default_corpus("emotion") == "iemocap"
    assert "theirs.my_corpus" not in sys.modules
    assert default_corpus("my_task") == "aaa"
    assert default_corpus("emotion") == "iemocap"  # now that it is loaded
    row = next(line for line in table_of_corpora().splitlines() if line.startswith("aaa "))
    assert row.count("X") == 1  # of my_task


def test_two_usual_corpora_of_packages_are_both_named(install: Install) -> None:
    claim(install("theirs", "corpora my_corpus = theirs.my_corpus"), "my_task")
    folder = install("others", "corpora other = others.my_corpus")
    claim(folder, "my_task")
    path = folder / "my_corpus.py"
    path.write_text(path.read_text().replace('name="my_corpus"', 'name="other"'))
    with pytest.raises(UserError, match=r"found 'my_corpus' \(theirs 1.2\) and 'other' \(others 1.2\). Choose one with --corpus"):
        default_corpus("my_task")


def test_the_defaults_of_a_broken_task_are_one_line(install: Install) -> None:
    folder = install("theirs", "tasks my_task = theirs.my_task.expert:TASK")
    (folder / "my_task" / "expert.py").write_text("raise RuntimeError('broken at import')\n")
    with pytest.raises(UserError, match=r"^Expected the task 'my_task' of the package theirs 1.2, found .*broken at import"):
        task_default("my_task")


@pytest.mark.parametrize(("kind", "file"), [("upstream", "my_upstream"), ("corpus", "my_corpus")])
def test_a_check_says_that_the_package_is_broken(install: Install, kind: Kind, file: str) -> None:
    folder = install("theirs", f"{GROUPS[kind].partition('.')[2]} {file} = theirs.{file}")
    (folder / f"{file}.py").write_text("raise RuntimeError('broken at import')\n")
    with pytest.raises(UserError, match=rf"^Expected the {kind} '{file}' of the package theirs 1.2, found .*broken at import"):
        check_command.main([file])


def test_a_run_keeps_the_package_of_its_task(install: Install, tmp_path: Path) -> None:
    folder = install("theirs", "tasks my_task = theirs.my_task.expert:TASK")
    load_task("my_task")
    identity = identity_of_code({"task": "my_task", "audio": "fbank"})
    assert identity == {"code": {"task": "theirs 1.2"}}
    (tmp_path / "identity.json").write_text(json.dumps(identity))
    recipe = {"task": "my_task", "upstream": {"name": "fbank"}}
    refuse_other_code(tmp_path, recipe)
    info = folder.parent / "theirs-1.2.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.3\n")
    with pytest.raises(UserError, match=r"found theirs 1.3. Install it \(pip install theirs==1.2\), or train again"):
        refuse_other_code(tmp_path, recipe)
    shutil.rmtree(info)
    with pytest.raises(UserError, match=r"'my_task' of the package theirs 1.2 .*, found none of that name. Install it"):
        refuse_other_code(tmp_path, recipe)
