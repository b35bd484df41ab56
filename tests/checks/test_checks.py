"""The contract tests: everything of ours holds them, and each of them finds what it is there to find."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import headwater as library
from headwater.checks import corpus as of_corpus
from headwater.checks import task as of_task
from headwater.checks import upstream as of_upstream
from headwater.checks.base import findings
from headwater.checks.trial import on_trial
from headwater.commands.check import main as check
from headwater.corpus.load import get_reader
from headwater.downstream.load import built_in_tasks, load_task
from headwater.plugins import code as own_code
from headwater.upstream.load import list_upstreams

pytestmark = pytest.mark.usefixtures("forget")
EXAMPLES = Path(library.__file__).parent / "examples"
CTC = {"projector_dim": 16, "hidden_dim": 16}
SMALL: dict[str, dict[str, Any]] = {
    "asr": CTC,
    "sf": CTC,
    "asv": {"dim": 32, "pooled_dim": 32, "s_norm": 2},
    "turbo": {"joint_dim": 32},
}
CHEAP = [row.name for row in list_upstreams() if row.source == "built in" and row.name != "test_whisper"]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, and a corpus for one of them; nothing was typed yet."""
    folder = tmp_path / "desk"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for label in ("calm", "angry"):
        (folder / "data" / label).mkdir(parents=True)
        for speaker in ("anna", "bert", "carl", "dora", "emil", "fred"):
            soundfile.write(folder / "data" / label / f"{speaker}_1.wav", np.full(800, 0.1), 16_000)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def failed(desk: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Change one of the examples, check it, and return the lines of what does not hold."""

    def run(name: str, before: str, after: str, *flags: str) -> str:
        path = desk / (f"{name}/expert.py" if name == "my_task" else name)
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
        assert check([f"./{name}", *flags]) == 1
        return "\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("failed  "))

    return run


def test_there_are_tasks_and_upstreams_to_check() -> None:
    assert len(built_in_tasks()) >= 7
    assert len(CHEAP) >= 10


@pytest.mark.parametrize("name", built_in_tasks())
def test_every_task_of_ours_holds_its_contract(name: str) -> None:
    task = load_task(name)
    found = findings(of_task.CHECKS, on_trial(task, options=task.options(**SMALL.get(name, {}))), Path("/"))
    assert [finding.line for finding in found if finding.problem] == []
    assert len(found) == 14


@pytest.mark.parametrize("name", CHEAP)
def test_every_upstream_without_a_download_holds_its_contract(name: str) -> None:
    found = findings(of_upstream.CHECKS, of_upstream.upstream_subject(name), Path("/"))
    assert [finding.line for finding in found if finding.problem] == []


@pytest.mark.usefixtures("desk")
def test_the_examples_hold_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(["./my_task"]) == check(["my_upstream.py"]) == check(["./my_corpus.py", "--data", "data"]) == 0
    assert check(["./my_task", "--corpus", "my_corpus.py", "--data", "data"]) == 0
    out = capsys.readouterr().out
    assert "task 'my_task': all 14 contract tests hold" in out
    assert "upstream 'my_upstream': all 7 contract tests hold" in out
    assert "corpus 'my_corpus': all 8 contract tests hold" in out


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("audio.valid)))", "audio.valid | True)))", "Mask what is behind an utterance's end (frames.valid)"),
        ("self.classifier = nn", "self.idle, self.classifier = nn.Linear(2, 2), nn", "found none at idle.weight, idle.bias"),
        ("tensor(batch.targets", "tensor(batch.targets[:1] * len(batch)", "Expected one loss, found"),
        ('return {"ua":', 'return {"wa":', "Expected a number for 'ua' from Question.score, found None. It gives wa."),
        (".detach().softmax", ".softmax", "End decode() with .detach().cpu()"),
        (
            "softmax(dim=-1).cpu()",
            "softmax(dim=-1).cpu()[:, :1]",
            "Expected scores of shape (batch 6, class 3) from",
        ),
        (".tanh()", ".tanh() + nn.functional.dropout(self.hidden(audio.values))", "Expected one output in eval mode, found two"),
        ("cross_entropy(output", "cross_entropy(-output.values.detach() + 0 * output", "Expected a loss that falls"),
        ('    return {"ua":', '    1 / 0\n    return {"ua":', "ZeroDivisionError: division by zero (expert.py, line"),
        ('    """One hidden', '    pools = {"audio": "mean"}\n    """One hidden', "Leave `pools` out"),
        ("dict(vocabulary)\n", "dict(vocabulary, seen={1: 2})\n", "found that json changes it"),
        (".device))", ".device), reduction='sum')", "Average instead of adding up."),
        ("masked_mean(self.hidden", "0 * masked_mean(self.hidden", "found one for all utterances. Use `frames` in forward()"),
    ],
)
def test_a_broken_task_is_found(failed: Callable[..., str], before: str, after: str, expected: str) -> None:
    assert expected in failed("my_task", before, after)


OWN_ANSWER = """from dataclasses import replace
from headwater.downstream.answer import OneClass
class Mine(OneClass):
    def {}
QUESTION = replace(QUESTION, answer=lambda vocabulary: Mine(tuple(vocabulary["classes"])))
TASK = Task("""


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("average(self, windows): return windows[0][1] * len(windows)", "one window from Answer.average of two equal ones"),
        ("average(self, windows): return windows[0][1].flip(0)", "from Answer.average of that one window, found"),
        ("average(self, windows): return windows[0][1]", "from Answer.average of two windows in either order, found others."),
        ("read(self, row, kind): return 'lost'", "back from Answer.read of {'reference': '"),
        ("write(self, value): return ['no class']", "back from Answer.read of {'reference': 'no class'}, found 'no class'"),
        ("fits(self, value): return value == 'two'", "of each utterance from Question.reference, found '"),
    ],
)
def test_a_broken_answer_is_found(failed: Callable[..., str], method: str, expected: str) -> None:
    assert expected in failed("my_task", "TASK = Task(", OWN_ANSWER.format(method))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("num_layers=2", "num_layers=3", "Expected 3 layers (spec.num_layers) in eval mode, found 2"),
        ("dim=BANDS", "dim=BANDS + 1", "Expected (batch 4, frame, dim 21) from layer 0"),
        ("return max(num_samples // WINDOW, 1)", "return max(round(num_samples / WINDOW), 1)", "Expected at least 150 frames"),
        (
            "both = [loudness",
            "loudness = loudness - loudness.mean(dim=1, keepdim=True)\n        both = [loudness",
            "Mask what is behind",
        ),
        (
            "both = [loudness",
            "loudness = loudness + torch.rand(())\n        both = [loudness",
            "Expected the same layers twice in eval mode",
        ),
        ("+ 1e-6", "- 1e9", "Is a logarithm of zero taken?"),
        ("if self.training else 1", "", "Expected 4 rows (two views in train mode only), found 8"),
        ("wanted = range(2) if layers is None else layers", "wanted = range(2)", "found 2 others"),
        (
            "waveforms = nn.functional.pad(batch.waveforms, (0, max(WINDOW - batch.waveforms.shape[1], 0)))",
            "waveforms = batch.waveforms",
            "RuntimeError",
        ),
        (
            "super().__init__()\n",
            "super().__init__()\n        self.register_buffer('drawn', torch.rand(3))\n",
            "Draw them from a seed",
        ),
        (".repeat(copies, 1, 1)", ".repeat_interleave(copies, 0)", "then all of them again for views=2, found each beside its"),
        ('modality="audio"', 'modality="sound"', "Expected modality 'audio' or 'text' in the spec, found 'sound'"),
        ("// WINDOW, 1)", "// WINDOW, 1) + (num_samples == 20_000)", "found 63 frames of 20000 and 62 of 20100"),
        (
            "batch = as_batch(batch)",
            "self.spec = __import__('dataclasses').replace(self.spec, maskable=True); batch = as_batch(batch)",
            "where frames are masked (spec.maskable), found the same",
        ),
    ],
)
def test_a_broken_upstream_is_found(failed: Callable[..., str], before: str, after: str, expected: str) -> None:
    assert expected in failed("my_upstream.py", before, after)


@pytest.mark.parametrize(
    ("name", "before", "after", "expected"),
    [
        ("my_task", "def decode(", "def decodee(", "TypeError: Can't instantiate abstract class MyExpert"),
        ("my_task", "super().__init__()", "super().__init__()\n        {}['x']", "KeyError: 'x' (expert.py, line"),
        ("my_task", "lambda _: QUESTION", "lambda _: 1 / 0", "ZeroDivisionError: division by zero (expert.py, line"),
        ("my_task", "lambda _: QUESTION", "lambda _: None", "Expected a Question from Task.question(options), found NoneType."),
        ("my_task", "build=MyExpert", "build=lambda *_: None", "Expected an Expert from Task.build(options, vocabulary, specs)"),
        ("my_task", "hidden_dim: int = 64", "hidden_dim: int", "Expected a default for every field of Options, found none for"),
        ("my_task", "(frozen=True)", "", "Expected a frozen dataclass, found that Options is not."),
        (
            "my_upstream.py",
            "return Bands()",
            "return Bands(1)",
            "takes 1 positional argument but 2 were given (my_upstream.py, line",
        ),
        ("my_upstream.py", "return Bands()", "Bands()", "Expected an Upstream with its spec from the builder of 'my_upstream'"),
        ("my_upstream.py", "self.spec =", "self.specs =", "Expected an Upstream with its spec from the builder of 'my_upstream'"),
        ("my_corpus.py", "return Corpus(", "{}['x']\n    return Corpus(", "KeyError: 'x' (my_corpus.py, line"),
    ],
)
def test_what_cannot_be_built_is_the_one_finding(
    failed: Callable[..., str], name: str, before: str, after: str, expected: str
) -> None:
    lines = failed(name, before, after, *(["--data", "data"] if name == "my_corpus.py" else []))
    assert lines.startswith("failed  It can be built: Expected ")
    assert expected in lines
    assert "\n" not in lines


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('f"{label}/{file.stem}"', "file.stem", "found 6 used twice ('"),
        ("str(file), speaker", 'str(file) + "x", speaker', "found 12 without"),
        ("return Corpus(", 'splits["dev"] += splits["train"][:1]\n    return Corpus(', "in one split, found '"),
        ('"emotion": label}', '"mood": label}', "Expected a label 'emotion' in my_corpus, found none"),
        ("number or 1)", "1)", "Expected other test utterances in fold 4"),
        ('Corpus("my_corpus"', 'Corpus("mine"', "Expected name and protocol ('my_corpus', 'speaker4')"),
        ("return Corpus(", 'splits["test"] = ()\n    return Corpus(', "Expected utterances in train, dev and test"),
    ],
)
def test_a_broken_corpus_is_found(failed: Callable[..., str], before: str, after: str, expected: str) -> None:
    assert expected in failed("my_corpus.py", before, after, "--data", "data")


@pytest.mark.usefixtures("desk")
def test_a_corpus_that_is_read_in_another_order_is_found() -> None:
    own_code.use("./my_corpus.py")
    subject = of_corpus.reading(get_reader("my_corpus"), "data")
    rows = {name: rows[::-1] for name, rows in subject.corpus.splits.items()}
    turned = of_corpus.Reading(subject.reader, lambda **_: type(subject.corpus)("my_corpus", "speaker4", 1, rows), subject.corpus)
    found = findings([of_corpus.read_twice_it_is_the_same], turned, Path("/"))
    assert "Sort the files" in found[0].problem
