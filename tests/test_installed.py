"""What installed packages offer is found by its entry points, loaded when it is asked for, and kills nothing that it is not."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import headwater as library
from headwater import installed, own_code
from headwater.commands import corpus as corpus_command
from headwater.commands import upstreams as upstreams_command
from headwater.corpus import base as corpora
from headwater.downstream import base as tasks
from headwater.errors import UserError
from headwater.training.config import task_default
from headwater.upstream import base as upstreams

EXAMPLES = Path(library.__file__).parent / "examples"
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package: its name, its entry points (`group name = module:attribute`), and the examples in it."""
    monkeypatch.setattr(own_code, "_USED", {})
    monkeypatch.setattr(tasks, "OWN_TASKS", {})
    monkeypatch.setattr(installed, "_LOADED", {})
    monkeypatch.setattr(upstreams, "_REGISTERED", dict(upstreams.registered_upstreams()))
    monkeypatch.setattr(corpora, "_READERS", dict(corpora.registered_corpora()))
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
    assert tasks.load_task("my_task").name == "my_task"
    upstream = upstreams.load_upstream("my_upstream")
    assert (upstream.spec.num_layers, upstream.source, upstream.code) == (2, "theirs 1.2", "theirs 1.2")
    assert corpora.get_reader("my_corpus").protocols == {"speaker4": 4}


def test_a_module_with_a_task_and_its_defaults_serve_too(install: Install) -> None:
    folder = install("theirs", "tasks my_task = theirs.my_task.expert")
    (folder / "my_task" / "default.yaml").write_text("my_task: {hidden_dim: 5}\n")
    assert tasks.load_task("my_task").options().hidden_dim == 64
    assert task_default("my_task") == {"my_task": {"hidden_dim": 5}}


def test_nothing_is_loaded_before_it_is_asked_for(install: Install) -> None:
    install("theirs", "tasks my_task = theirs.my_task.expert:TASK", "upstreams my_upstream = theirs.my_upstream")
    assert "my_task" in tasks.list_tasks()
    tasks.load_task("emotion")
    upstreams.load_upstream("fbank")
    assert not [name for name in sys.modules if name.startswith("theirs")]


def test_a_broken_package_is_one_line_that_names_it_and_kills_no_other_name(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = install("theirs", "upstreams my_upstream = theirs.my_upstream", "tasks my_task = theirs.no_such_module")
    path = folder / "my_upstream.py"
    path.write_text("import nothing_of_the_kind\n" + path.read_text())
    upstreams.load_upstream("fbank")
    with pytest.raises(UserError) as problem:
        upstreams.load_upstream("my_upstream")
    assert "the upstream 'my_upstream' of the package theirs 1.2, found that it cannot be loaded" in str(problem.value)
    assert "No module named 'nothing_of_the_kind'" in str(problem.value)
    assert "\n" not in str(problem.value)
    assert upstreams_command.main(["*bank*"]) == 0
    assert "theirs" not in capsys.readouterr().err
    assert upstreams_command.main([]) == 0
    listed = capsys.readouterr()
    assert "fbank_no_cmvn" in listed.out
    assert listed.err.count("passed over: ") == 1
    assert corpus_command.main(["list"]) == 0
    assert "passed over: Expected the task 'my_task' of the package theirs 1.2" in capsys.readouterr().out


def test_what_is_installed_is_listed_with_where_it_comes_from(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    points = ["tasks my_task = theirs.my_task.expert:TASK", "corpora my_corpus = theirs.my_corpus"]
    install("theirs", "upstreams my_upstream = theirs.my_upstream", *points)
    upstreams_command.main(["my_*"])
    assert capsys.readouterr().out.startswith("my_upstream  audio  theirs 1.2  Loudness of 20 bands")
    corpus_command.main(["list"])
    out = capsys.readouterr().out
    assert "from packages: my_task (task of theirs 1.2), my_corpus (corpus of theirs 1.2)" in out
    assert "\nmy_corpus: a folder for each class" in out


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ("upstreams fbank = theirs.my_upstream", "Expected another name than 'fbank' for the upstream of the package theirs 1.2"),
        ("tasks emotion = theirs.my_task.expert:TASK", "Expected the task 'emotion' of the package theirs 1.2"),
        ("corpora iemocap = theirs.my_corpus", "Expected another name than 'iemocap' for the corpus of the package theirs 1.2"),
    ],
)
def test_a_name_of_ours_stays_ours(install: Install, point: str, told: str) -> None:
    install("theirs", point)
    assert upstreams.load_upstream("fbank").source == "built in"
    assert tasks.load_task("emotion").question(None).name == "emotion"
    assert corpora.get_reader("iemocap").read.__module__ == "headwater.corpus.iemocap"
    found = [*upstreams.broken_upstreams(), *tasks.broken_tasks(), *corpora.broken_corpora()]
    assert len(found) == 1
    assert told in found[0]


def test_two_packages_with_one_name_are_both_named(install: Install) -> None:
    install("theirs", "upstreams my_upstream = theirs.my_upstream")
    install("others", "upstreams my_upstream = others.my_upstream")
    with pytest.raises(UserError, match=r"found it in (theirs 1.2 and others|others 1.2 and theirs) 1.2. Uninstall one"):
        upstreams.load_upstream("my_upstream")


def test_a_typed_task_may_not_have_the_name_of_an_installed_one(install: Install) -> None:
    folder = install("theirs", "tasks my_task = theirs.my_task.expert:TASK")
    with pytest.raises(UserError, match=r"found 'my_task', which is one of theirs 1.2 already"):
        own_code.use(str(folder / "my_task"))


def test_an_entry_point_must_be_called_as_its_task(install: Install) -> None:
    install("theirs", "tasks mood = theirs.my_task.expert:TASK")
    with pytest.raises(UserError, match=r"Expected a task called 'mood' in .*, found Task\(name='my_task'\)"):
        tasks.load_task("mood")
