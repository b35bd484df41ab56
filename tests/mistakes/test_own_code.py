"""Mistakes with one's own code: each is one line, and nothing that was not typed is executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import headwater as library
from headwater.corpus.base import CORPORA
from headwater.downstream.base import TASKS
from headwater.plugins import code as own_code
from headwater.upstream.base import UPSTREAMS

pytestmark = pytest.mark.usefixtures("forget")
Answer = Callable[..., str]
EXAMPLES = Path(library.__file__).parent / "examples"
COMMAND = "headwater downstream -u fbank --data tones/tones.csv QUICK"


@pytest.fixture
def mine(desk: Path) -> Path:
    """The examples on the user's desk."""
    shutil.copytree(EXAMPLES, desk, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return desk


def changed(path: Path, before: str, after: str) -> None:
    """Replace some of a file's text, which must be there."""
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def booby_trap(path: Path) -> None:
    """Have a file leave a trace where it is executed."""
    path.write_text(f"from pathlib import Path\nPath('executed').write_text('')\n{path.read_text()}")


def test_a_task_that_is_not_there(answer: Answer) -> None:
    assert "Expected your own task at './nothing', found nothing there. Check the path" in answer(f"{COMMAND} -d ./nothing")


def test_a_folder_without_expert(answer: Answer, mine: Path) -> None:
    (mine / "my_task" / "expert.py").rename(mine / "my_task" / "model.py")
    assert "Expected expert.py in the folder './my_task', found model.py. Add" in answer(f"{COMMAND} -d ./my_task")


@pytest.mark.usefixtures("mine")
def test_a_task_in_a_single_file(answer: Answer) -> None:
    message = answer(f"{COMMAND} -d ./my_upstream.py")
    assert "Expected the folder of a task, found the file './my_upstream.py'. Put it into a folder as expert.py" in message


@pytest.mark.usefixtures("mine")
def test_an_upstream_in_a_folder_of_no_model(answer: Answer) -> None:
    message = answer("headwater downstream -u ./my_task -d emotion --data tones/tones.csv QUICK")
    assert message.startswith("error: Expected")


def test_no_task_at_the_end_of_expert(answer: Answer, mine: Path) -> None:
    changed(mine / "my_task" / "expert.py", "TASK = ", "TASKS = ")
    message = answer(f"{COMMAND} -d ./my_task")
    assert "Expected `TASK = Task(…)` at the end of expert.py in './my_task', found none. Add it." in message


def test_options_that_are_no_dataclass(answer: Answer, mine: Path) -> None:
    changed(mine / "my_task" / "expert.py", "@dataclass(frozen=True)\n", "")
    assert "Expected a dataclass as Task(options=…) in './my_task', found <class" in answer(f"{COMMAND} -d ./my_task")


@pytest.mark.parametrize("name", ["emotion", "corpus", "tasks", "all", "my-task", "keys"])
def test_a_name_that_is_taken_or_cannot_be_one(answer: Answer, mine: Path, name: str) -> None:
    changed(mine / "my_task" / "expert.py", 'Task(name="my_task"', f'Task(name="{name}"')
    message = answer(f"{COMMAND} -d ./my_task")
    assert f"found '{name}'" in message
    assert message.endswith("Rename it: Task(name=…).")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind' (expert.py, line 1)"),
        ("def f(:", "SyntaxError: invalid syntax (expert.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3 (expert.py, line 1)"),
        ("1 / 0", "ZeroDivisionError: division by zero (expert.py, line 1)"),
    ],
)
def test_code_that_does_not_run_is_told_with_its_line(answer: Answer, mine: Path, line: str, told: str) -> None:
    path = mine / "my_task" / "expert.py"
    path.write_text(f"{line}\n{path.read_text()}")
    message = answer(f"{COMMAND} -d ./my_task")
    assert f"found {told}. Mend it." in message
    assert not TASKS.loaded()


def test_a_file_without_an_upstream_and_one_with_two(answer: Answer, mine: Path) -> None:
    command = "headwater downstream -d emotion --data tones/tones.csv QUICK"
    path = mine / "my_upstream.py"
    path.write_text(path.read_text() + "\n\nregister_upstream(my_upstream, name='second')\n")
    message = answer(f"{command} -u ./my_upstream.py")
    assert "found upstream 'my_upstream', upstream 'second'" in message
    assert "second" not in UPSTREAMS.loaded()
    path.write_text("x = 1\n")
    assert "Expected one function with @register_upstream in './my_upstream.py', found none." in answer(
        f"{command} -u ./my_upstream.py"
    )


def test_an_upstream_of_a_name_that_is_taken(answer: Answer, mine: Path) -> None:
    changed(mine / "my_upstream.py", "def my_upstream", "def fbank")
    message = answer("headwater downstream -d emotion --data tones/tones.csv QUICK -u ./my_upstream.py")
    assert (
        "Expected another name for an upstream than 'fbank', found it in headwater.upstream.families.spectrogram and in"
        in message
    )
    assert UPSTREAMS.loaded()["fbank"].source == "built in"


@pytest.mark.usefixtures("mine")
def test_a_corpus_after_the_flag_of_an_upstream(answer: Answer) -> None:
    message = answer("headwater downstream -d emotion --data tones/tones.csv QUICK -u ./my_corpus.py")
    assert "found the corpus 'my_corpus'. Type it after --corpus." in message
    assert "my_corpus" not in CORPORA.loaded()


@pytest.mark.usefixtures("mine")
def test_weights_for_an_upstream_that_takes_none(answer: Answer) -> None:
    message = answer("headwater downstream -d emotion --data tones/tones.csv QUICK -u ./my_upstream.py -k tones")
    assert "takes no weights: leave out -k" in message


@pytest.mark.parametrize(
    ("recipe", "flag"),
    [
        ("task: ./my_task\nupstream: {name: fbank}\n", "-d ./my_task"),
        ("task: emotion\nupstream: {name: ./my_upstream.py}\n", "-u ./my_upstream.py"),
        ("task: emotion\nupstream: {name: fbank}\ntext_upstream: {name: ./my_upstream.py}\n", "--text-upstream ./my_upstream.py"),
        ("task: emotion\nupstream: {name: fbank}\ncorpus: {name: ./my_corpus.py}\n", "--corpus ./my_corpus.py"),
    ],
)
def test_a_path_in_a_recipe_is_never_executed(answer: Answer, mine: Path, recipe: str, flag: str) -> None:
    for name in ("my_task/expert.py", "my_upstream.py", "my_corpus.py"):
        booby_trap(mine / name)
    (mine / "mine.yaml").write_text(recipe)
    message = answer("headwater downstream -c mine.yaml --data tones/tones.csv QUICK")
    assert "only a path that you type is executed, never one from a file" in message
    assert f"Add {flag} (or --use " in message
    assert not (mine / "executed").exists()


def test_a_path_in_a_recipe_that_is_typed_too_is_its_name(type_in: Callable[[str], tuple[int, str, str]], mine: Path) -> None:
    (mine / "mine.yaml").write_text("task: ./my_task\nupstream: {name: ./my_upstream.py}\n")
    typed = "headwater downstream -c mine.yaml --data tones/tones.csv QUICK --quiet -p own"
    assert type_in(f"{typed} -d ./my_task --use ./my_upstream.py")[0] == 0
    assert json.loads((mine / "own" / "result.json").read_text())["upstream"] == "my_upstream"


def test_a_path_in_the_recipe_of_several_tasks(answer: Answer, mine: Path) -> None:
    booby_trap(mine / "my_task" / "expert.py")
    (mine / "mine.yaml").write_text("tasks: {a: {task: ./my_task}, emotion: {}}\nupstream: {name: fbank}\n")
    message = answer("headwater mtl -c mine.yaml --data emotion=tones/tones.csv")
    assert "Add --tasks ./my_task (or --use ./my_task)" in message
    assert not (mine / "executed").exists()


@pytest.fixture
def own_run(type_in: Callable[[str], tuple[int, str, str]], mine: Path, forget: Callable[[], None]) -> Path:
    """A finished run of one's own task and upstream."""
    typed = "headwater downstream -u ./my_upstream.py -d ./my_task --data tones/tones.csv QUICK --quiet -p own"
    assert type_in(typed)[0] == 0
    forget()
    return mine / "own"


@pytest.mark.parametrize(
    ("typed", "flag"),
    [
        ("headwater predict own tones/70.wav", "-d PATH"),
        ("headwater predict own tones/70.wav -d ./my_task", "-u PATH"),
        ("headwater downstream -m evaluate -e own", "-d PATH"),
        ("headwater downstream -m evaluate -e own -d ./my_task", "-u PATH"),
        ("headwater downstream -e own", "-d PATH"),
        ("headwater downstream -u own -d emotion --data tones/tones.csv QUICK", "--use PATH"),
    ],
)
@pytest.mark.usefixtures("own_run")
def test_a_run_of_own_code_asks_for_its_path(answer: Answer, typed: str, flag: str) -> None:
    message = answer(typed)
    assert "found no path to it: only a path that you type is executed." in message
    assert f"Add {flag}" in message


@pytest.mark.parametrize("typed", ["headwater predict own tones/70.wav", "headwater downstream -m evaluate -e own"])
@pytest.mark.parametrize("changes", ["my_task/expert.py", "my_upstream.py"])
def test_other_code_is_refused_with_both_hashes(answer: Answer, own_run: Path, typed: str, changes: str) -> None:
    code = json.loads((own_run / "identity.json").read_text())["code"]
    path = own_run.parent / changes
    path.write_text(path.read_text() + "# another line\n")
    message = answer(f"{typed} -d ./my_task -u ./my_upstream.py")
    before = code["audio" if changes == "my_upstream.py" else "task"][:8]
    now = own_code.digest_of(path if changes == "my_upstream.py" else path.parent)[:8]
    assert f"was trained with ({before}), found other code in" in message
    assert f"({now}). Bring the former back, or train again." in message


def test_the_same_folder_with_other_code(answer: Answer, own_run: Path) -> None:
    changed(own_run.parent / "my_task" / "expert.py", "hidden_dim: int = 64", "hidden_dim: int = 64  # units")
    typed = "headwater downstream -u ./my_upstream.py -d ./my_task --data tones/tones.csv QUICK --quiet -p own"
    message = answer(typed, lines=3)
    assert "code.task: " in message
    assert len(message.splitlines()[1]) < 50
    assert "bring that back, or choose another folder with -n or -p" in message


def test_a_name_where_predict_wants_a_path(answer: Answer) -> None:
    message = answer("headwater predict run tones/70.wav -d emotion")
    assert "Expected the path of your own task after -d, found 'emotion'. Leave -d out: a run knows ours." in message


@pytest.mark.usefixtures("mine")
def test_own_task_without_a_corpus(answer: Answer) -> None:
    message = answer("headwater downstream -u fbank -d ./my_task --demo QUICK")
    assert "Task 'my_task' has no usual corpus: choose one with --corpus" in message


def test_two_folders_with_one_name(answer: Answer, mine: Path) -> None:
    shutil.copytree(mine / "my_task", mine / "other")
    changed(mine / "other" / "expert.py", "Which class", "What class")
    message = answer(f"{COMMAND} -d ./my_task --use ./other")
    assert "Expected a new name for the task of './other', found 'my_task', which is one of" in message


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("headwater check ./nothing", "Expected your own code at './nothing', found nothing there. Check the path."),
        ("headwater check my_task", "found the word 'my_task', which is none. The folder there is ./my_task."),
        ("headwater check my_task/ --demo", "Expected --corpus NAME beside --demo, the miniature of that corpus, found none."),
        ("headwater check my_upstream.py --demo", "Expected no --demo for the check of one upstream, found it."),
        ("headwater check my_corpus.py --demo --data tones", "Expected one of --data and --demo, found both. Leave one out."),
        ("headwater check nothing", "Expected a path (./my_task, ./my_upstream.py) or the name of a task"),
        ("headwater check my_corpus.py", "Expected data for the corpus 'my_corpus', found none. Add --data FOLDER."),
        ("headwater check my_upstream.py --data tones", "Expected no --data for the check of one upstream, found it."),
        (
            "headwater check my_task/ -o emotion.dropout=1",
            "Expected options of the task in -o my_task.KEY=VALUE, found 'emotion'.",
        ),
        ("headwater check my_task/ -o my_task.hiden_dim=1", "Unknown option 'my_task.hiden_dim'. Did you mean 'hidden_dim'?"),
    ],
)
@pytest.mark.usefixtures("mine")
def test_mistakes_of_a_check(answer: Answer, typed: str, told: str) -> None:
    assert told in answer(typed)


def test_a_bare_word_is_a_name_whatever_folder_is_there(mine: Path, type_in: Callable[[str], tuple[int, str, str]]) -> None:
    shutil.copytree(mine / "my_task", mine / "emotion")
    booby_trap(mine / "emotion" / "expert.py")
    code, out, _ = type_in("headwater check emotion")
    assert code == 0
    assert "task 'emotion': all" in out
    assert not (mine / "executed").exists()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ('{"ua": "higher"}', '{"ua": "up"}', "better of the metric 'ua' of the question 'my_task', found 'up'. Say which."),
        (
            'metrics={"ua": "higher"}',
            "metrics={}",
            "Expected one of its metrics (none) as primary_metric of the question 'my_task'",
        ),
        (
            "hidden_dim: int = 64",
            "hidden_dim: int",
            "a default for the option 'my_task.hidden_dim', found none. Give one to Options",
        ),
    ],
)
def test_a_task_that_says_too_little(answer: Answer, mine: Path, before: str, after: str, told: str) -> None:
    changed(mine / "my_task" / "expert.py", before, after)
    assert told in answer(f"{COMMAND} -d ./my_task")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            '{"ua": "higher"}',
            '{"ua": "higher", "wa": "higher"}',
            "Expected a number for 'wa' from Question.score, found None. It gives ua.",
        ),
        (
            ".softmax(dim=-1).cpu()",
            ".argmax(dim=-1).cpu()",
            "class 3) from Expert.decode, a column for each of high, low, middle, found shape (",
        ),
    ],
)
def test_what_could_not_be_written_down_is_refused_on_dev(
    type_in: Callable[[str], tuple[int, str, str]], mine: Path, before: str, after: str, told: str
) -> None:
    changed(mine / "my_task" / "expert.py", before, after)
    code, _, err = type_in(f"{COMMAND} -d ./my_task --quiet -p own")
    assert code == 2
    assert err.startswith("error: Task 'my_task': ")
    assert told in err
    assert len(err.splitlines()) == 1
    assert len((mine / "own" / "metrics.jsonl").read_text().splitlines()) <= 2  # the first of two looks at dev


def test_a_number_where_ratings_are_tuples(type_in: Callable[[str], tuple[int, str, str]], mine: Path) -> None:
    changed(mine / "my_regression" / "expert.py", "(target,),  #", "target,  #")
    header, *rows = (mine / "tones" / "tones.csv").read_text().splitlines()
    table = mine / "aged.csv"
    table.write_text("\n".join([f"{header},age", *(f"tones/{row},{number}" for number, row in enumerate(rows))]) + "\n")
    told = "Expected a tuple of 1 numbers (vocabulary['dimensions']: age) of each utterance from Question.reference, found "
    code, out, _ = type_in("headwater check ./my_regression --data aged.csv")
    assert code == 1
    assert told in out
    code, _, err = type_in("headwater downstream -u fbank -d ./my_regression --data aged.csv QUICK --quiet -p own")
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1


def test_made_up_labels_that_are_no_numbers(type_in: Callable[[str], tuple[int, str, str]], mine: Path) -> None:
    changed(mine / "my_regression" / "expert.py", '"age"', '"label"')
    code, out, err = type_in("headwater check ./my_regression")
    assert (code, err) == (1, "")
    assert "found ValueError: could not convert string to float: 'one' (expert.py, line" in out
    assert "with made-up labels: add --data my.csv for yours" in out
