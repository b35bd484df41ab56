"""The format of a run folder: where each file lies, what is read and written, who holds it, what a plan reports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headwater
from headwater.core.errors import UserError
from headwater.core.run_folder import FolderInUse, RunFolder, counted

CONFIG = {"task": "emotion", "upstream": {"name": "fbank"}}
ROWS = [
    {"name": "seed1", "setting": "lr=1", "seed": 1, "fold": 1},
    {"name": "seed2", "setting": "lr=1", "seed": 2, "fold": 1},
    {"name": "other", "setting": "lr=2", "seed": 1, "fold": 1},
]

ROOT = Path(headwater.__path__[0])
NO_ROOMS = {"tests", "benchmarks", "docs", "examples", "build", "dist"}
SPELL_THEM = ("core/run_folder.py", "upstream/families/emotion2vec.py")  # a folder of FunASR's has a config.yaml, too
JSONS = "identity|vocabulary|trained_on|result|layer_weights|upstream|text_upstream"
FILE_NAMES = re.compile(
    rf"(?<![\w-])(config\.yaml|({JSONS})\.json|metrics\.jsonl|(best|last)\.safetensors)(?!\w)"
    r"|^(predictions|outcome)-|(^|/)(checkpoints|plots|tensorboard|evaluations)(/|$)|^stopped\.txt$"
)


def strings(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the strings of a file with their lines, those of an f-string piece by piece; no docstrings, no comments."""
    nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    report = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in report:
            yield node.lineno, node.value


def spelled_names(root: Path) -> list[str]:
    """Return where a file of the library spells the name of a run folder's file; a command's help, a sentence, may."""
    files = sorted(path for path in root.rglob("*.py") if not NO_ROOMS & {*path.relative_to(root).parts[:1]})
    found = []
    for file in files:
        place = file.relative_to(root).as_posix()
        for line, text in strings(file) if place not in SPELL_THEM else ():
            is_help = place.startswith("commands/") and " " in text.strip()
            if FILE_NAMES.search(text) and not is_help:
                found.append(f"{place}:{line}: {text!r}")
    return found


def whole(folder: Path) -> RunFolder:
    """A run folder that is finished."""
    run = RunFolder(folder)
    run.write(config=CONFIG, vocabulary={"emotion": {}}, identity={"marks": ["DEMO"]}, layer_weights={"layers": {}})
    run.best.parent.mkdir()
    run.best.touch()
    run.write(result={"scores": {}, "marks": []})
    return run


def test_a_run_folder_of_before_has_its_files_where_they_were(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    paths = {
        "config.yaml": run.config,
        "identity.json": run.identity,
        "vocabulary.json": run.vocabulary,
        "trained_on.json": run.trained_on,
        "result.json": run.result,
        "layer_weights.json": run.layer_weights,
        "metrics.jsonl": run.metrics,
        "upstream.json": run.architecture("audio"),
        "text_upstream.json": run.architecture("text"),
        "checkpoints/best.safetensors": run.best,
        "checkpoints/last.safetensors": run.last,
        "predictions-test.csv": run.predictions("test"),
        "outcome-test.safetensors": run.outcome("test"),
        "plots": run.plots,
        "tensorboard": run.tensorboard,
        ".lock": run.lock,
        "tasks/last/ks/result.json": run.task("last", "ks").result,
        "evaluations/emodb-dev/predictions-dev.csv": run.evaluation("emodb-dev").predictions("dev"),
    }
    assert {name: str(path.relative_to(tmp_path)) for name, path in paths.items()} == {name: name for name in paths}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    run, text = RunFolder(tmp_path / "run"), {"ids": ["ä"]}
    run.write(config=CONFIG, trained_on=text, vocabulary={"emotion": {}}, architectures={"text": {"model": {}}})
    stored = run.read()
    assert (stored.config(), stored.trained_on("ids"), stored.vocabulary(), stored.architecture("text")) == (
        CONFIG,
        text,
        {"emotion": {}},
        {"model": {}},
    )
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.yaml",
        "text_upstream.json",
        "trained_on.json",
        "vocabulary.json",
    ]
    assert [*stored.config()] == ["task", "upstream"], "in the order given"


def test_the_result_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr("headwater.core.run_folder.write_json", lambda path, _: written.append(path.name))
    RunFolder(tmp_path).write(result={}, identity={}, layer_weights={}, vocabulary={}, trained_on={}, architectures={"audio": {}})
    assert written == [
        "trained_on.json",
        "vocabulary.json",
        "upstream.json",
        "identity.json",
        "layer_weights.json",
        "result.json",
    ]


def test_each_file_is_read_once_and_only_when_it_is_needed(tmp_path: Path) -> None:
    run = whole(tmp_path)
    run.identity.write_text("{", encoding="utf-8")
    stored = run.read()
    before = stored.result("scores")
    run.result.unlink()
    assert stored.result("marks") is before


@pytest.mark.parametrize(
    ("content", "needed", "message"),
    [
        (None, (), "Expected a run's 'result.json' in '{}', found none. Is it a run folder?"),
        ("{", (), "Expected a run's json in '{}/result.json', found: Expecting property name"),
        (
            "[1]",
            ("scores",),
            "Expected a run's json in '{}/result.json', found: list in place of a mapping. Remove the file: the",
        ),
        ('{"scores": 1}', ("scores", "marks"), "found: not all of scores, marks. Remove the file: the command that trained the"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named(tmp_path: Path, content: str | None, needed: Any, message: str) -> None:
    run = RunFolder(tmp_path)
    if content is not None:
        run.result.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        run.read().result(*needed)
    assert message.format(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["config", "vocabulary", "identity", "layer_weights", "result", "best"])
def test_a_run_is_finished_when_all_its_files_are_there(tmp_path: Path, name: str) -> None:
    run = whole(tmp_path)
    assert run.is_finished
    getattr(run, name).unlink()
    assert not run.is_finished


def test_what_is_no_run_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^Expected a run folder at '.*/none', found no config.yaml: check the path.$"):
        RunFolder.open(tmp_path / "none")
    for seed in "213456":
        RunFolder(tmp_path / f"seed{seed}").write(config=CONFIG)
    names = ", ".join(str(tmp_path / f"seed{seed}") for seed in "1234")
    with pytest.raises(UserError, match=f"found a plan with the runs {names}: name one of them.$"):
        RunFolder.open(str(tmp_path))
    assert RunFolder.open(tmp_path / "seed1").path == tmp_path / "seed1"


def test_the_parts_of_a_run_know_their_home(tmp_path: Path) -> None:
    run = whole(tmp_path / "tasks" / "last" / "mine")  # its name alone makes it no part of another
    for place in (run, run.task("own", "ks"), run.evaluation("emodb-test")):
        assert place.home == run


def test_the_splits_with_predictions_are_listed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for split in ("test", "dev", "test-other"):
        run.predictions(split).touch()
    assert {*run.splits()} == {"dev", "test", "test-other"}


def test_a_held_folder_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep" / "run")
    with run.locked():
        with pytest.raises(
            FolderInUse, match=rf"'{run.path}' to be free, found that process \d+ on .* holds it. Wait for it to end, or"
        ):
            run.refuse_in_use()
        script = "from pathlib import Path; from headwater.core.run_folder import RunFolder\nRunFolder(Path('.')).refuse_in_use()"
        done = subprocess.run([sys.executable, "-c", script], cwd=run.path, capture_output=True, text=True, check=False)
        assert "holds it" in done.stderr
    assert not run.path.parent.exists(), "nothing was begun"
    run.refuse_in_use()


def test_a_plan_reports_its_runs_of_a_sweep_the_chosen_ones(tmp_path: Path) -> None:
    plan = RunFolder(tmp_path)
    assert plan.runs() is None
    plan.write(result={"runs": ROWS})
    assert plan.runs() == ROWS
    plan.write(result={"runs": ROWS, "chosen": "lr=1"})
    assert [row["name"] for row in plan.runs() or ()] == ["seed1", "seed2"]
    with pytest.raises(UserError, match="Expected a folder for one run, found a plan of several in"):
        plan.refuse_plan()
    plan.write(identity={"marks": []})
    plan.refuse_plan()
    plan.write(config=CONFIG)
    assert plan.runs() is None, "a run reports itself"


def test_the_runs_of_a_plan_are_counted_in_words() -> None:
    rows = [{"fold": fold, "seed": seed} for fold in (1, 2, 3) for seed in (1, 2)]
    assert [counted(rows), counted(rows[::2]), counted(rows[:1])] == ["3 folds x 2 seeds", "3 folds", "1 runs"]


def test_what_was_written_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write(identity={"marks": ["ä"]})
    assert run.identity.read_text(encoding="utf-8") == json.dumps({"marks": ["ä"]}, indent=2, ensure_ascii=False) + "\n"


def test_no_other_file_of_the_library_spells_the_name_of_a_run_folders_file() -> None:
    assert len([*strings(ROOT / "core" / "run_folder.py")]) > 20, "the strings were not found"
    assert not spelled_names(ROOT), "take the path from RunFolder"


SPELLED = [
    'folder / "result.json"',
    'place / f"predictions-{split}.csv"',
    'glob("predictions-*.csv")',
    'folder.rglob("config.yaml")',
    'folder / "plots" / "curves.png"',
    'BEST = "checkpoints/best.safetensors"',
    'UserError(f"Expected a run at {folder}, found no result.json in it.")',
    'folder / "tensorboard"',
]


@pytest.mark.parametrize("code", SPELLED)
def test_a_name_that_is_spelled_elsewhere_is_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "runs").mkdir()
    text = f'"""What result.json says."""\n\nfound = {code}  # config.yaml\n'
    (tmp_path / "runs" / "new.py").write_text(text, encoding="utf-8")
    found = spelled_names(tmp_path)
    assert found
    assert all(row.startswith("runs/new.py:3: ") for row in found)
