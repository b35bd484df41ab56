"""The package as a stranger gets it."""

from __future__ import annotations

import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import distributed

import headwater as library
from headwater.commands.common.shell import run_command

ROOT = Path(library.__file__).parent
Command = Callable[..., subprocess.CompletedProcess[str]]


def python(code: str) -> str:
    """Run code in a fresh process outside the clone and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing() -> None:
    assert python("import sys, headwater; print([name for name in ('torch', 'numpy', 'yaml') if name in sys.modules])") == "[]"


def test_every_public_name_can_be_had() -> None:
    for name in library.__all__:
        assert getattr(library, name) is not None


def test_an_unknown_public_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no name 'load_model'. It has: .*load_run"):
        _ = library.load_model


def cpu_seconds() -> float:
    """Return the processor time of all commands that this process has run, which a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_takes_under_a_second_and_has_an_example_for_each_verb(headwater: Command) -> None:
    began = cpu_seconds()
    done = headwater("--help")
    assert cpu_seconds() - began < 1.0
    from headwater.__main__ import GROUPS, VERBS

    assert all(f"headwater {verb} " in done.stdout for verb in VERBS)
    assert [verb for verbs in GROUPS.values() for verb in verbs] == [*VERBS]
    assert [line[:-1] for line in done.stdout.splitlines() if line.endswith(":")] == [*GROUPS]


@pytest.mark.parametrize("verb", ["downstream", "list upstreams", "corpus", "predict", "plot layers", "store"])
def test_the_help_of_a_verb_is_quick_and_has_an_example(headwater: Command, verb: str) -> None:
    began = cpu_seconds()
    done = headwater(*verb.split(), "--help")
    assert cpu_seconds() - began < 1.0
    assert done.returncode == 0
    assert "example:" in done.stdout


def test_no_module_but_the_packages_own_is_loaded_from_the_repository() -> None:
    code = (
        "import sys, pathlib\n"
        f"root = pathlib.Path({str(ROOT)!r})\n"
        "from headwater.corpus.load import list_corpora; from headwater.upstream.load import list_upstreams\n"
        "import headwater.plans.grid, headwater.inference.evaluate, headwater.commands.downstream\n"
        "list_corpora(), list_upstreams()\n"
        "files = {name: getattr(module, '__file__', None) for name, module in sys.modules.items()}\n"
        "mine = [name for name, file in files.items() if file and root in pathlib.Path(file).parents]\n"
        "print(len(mine), [name for name in mine if name.split('.')[0] != 'headwater'])"
    )
    count, others = python(code).split(" ", 1)
    assert int(count) > 30
    assert others == "[]"


def test_a_wheel_holds_every_folder_and_its_data(tmp_path: Path) -> None:
    if not (ROOT / "setup.py").is_file():
        pytest.skip("not a clone")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    ignored = {"tests", "benchmarks", "docs", "build", "dist"}
    expected = {
        f"headwater/{path.relative_to(ROOT)}"
        for pattern in ("*.py", "*/**/*.py", "recipes/**/*.yaml", "downstream/*/*.md", "downstream/*/*.yaml", "py.typed")
        for path in ROOT.glob(pattern)
        if path.name != "setup.py"
        and not (ignored | {"result"}) & {*path.relative_to(ROOT).parts}
        and not any(part.startswith(".") or "venv" in part for part in path.relative_to(ROOT).parts)
    }
    assert len(expected) > 50
    assert expected - names == set()
    assert not [name for name in names if name.startswith("headwater/tests")]


def test_a_command_leaves_the_group_of_its_launch(tmp_path: Path) -> None:
    # gloo's threads, left running, abort the interpreter now and then, when all the work is done
    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        assert run_command(lambda _: 0, []) == 0
        assert not distributed.is_initialized()
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
