"""Push a run to the hub and load it from there: a stand-in on loopback answers as the hub does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_stand_in import TOKEN, Hub, connect, serving

import headwater
from headwater.__main__ import dispatch
from headwater.core.errors import UserError
from headwater.core.sharing import fetch as fetching
from headwater.inference.load import load_run
from headwater.inference.sharing.push import Choice, dry_run, push_run
from headwater.runs.config.resolve import resolve
from headwater.runs.run import run
from headwater.runs.runtime import Runtime

NAME = "ann/tones"
HUBERT = {"name": "test_hubert", "trainable": True}


def trained(data: Path, folder: Path, **others: Any) -> Path:
    """A run of one step over the tones."""
    training = {"steps": 1, "batch_size": 8, "eval_every": 1}
    recipe = {"task": "emotion", "corpus": {"data": str(data)}, "training": training, "store": {"mode": "off"}, **others}
    run(resolve([recipe]), folder, Runtime("cpu", quiet=True))
    return folder


@pytest.fixture(scope="module")
def runs(rated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run on a spectrogram, and one that finetunes."""
    folder = tmp_path_factory.mktemp("runs")
    plain = trained(rated, folder / "plain", upstream={"name": "fbank"})
    return {"plain": plain, "finetuned": trained(rated, folder / "finetuned", upstream=HUBERT)}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, with an empty cache of its own."""
    with serving(Hub()) as found:
        connect(found, str(tmp_path / "hub-cache"), monkeypatch)
        yield found


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Forget what this process has fetched, as a new one does."""
    return lambda: monkeypatch.setattr(fetching, "_FETCHED", {})


def fails(*words: str) -> str:
    """The one line of a command that is refused."""
    with pytest.raises(UserError) as problem:
        dispatch([*words])
    assert "\n" not in str(problem.value)
    assert TOKEN not in str(problem.value)
    return str(problem.value)


@pytest.mark.parametrize("kind", ["plain", "finetuned"])
def test_a_run_from_the_hub_scores_to_the_digit_as_before(
    kind: str, runs: dict[str, Path], hub: Hub, rated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(rated.parent / f"{number}.wav") for number in (60, 65, 70)]
    dispatch(["predict", str(runs[kind]), *files])
    before = capsys.readouterr().out
    dispatch(["push", str(runs[kind]), NAME])
    told = capsys.readouterr()
    commit = hub.repositories[NAME].refs["main"]
    assert told.out == f"headwater predict hf:{NAME}@{commit} my.wav\n"
    assert TOKEN not in told.err
    dispatch(["predict", f"hf:{NAME}", *files])
    after = capsys.readouterr()
    assert after.out == before
    assert f"hub       hf:{NAME}@{commit} (named so, it stays the same)" in after.err
    loaded = headwater.load_run(NAME)  # as it is called in Python
    assert loaded.folder.name == commit
    assert [path.suffix for path in loaded.folder.rglob("*") if path.suffix in {".pt", ".bin", ".py", ".pkl"}] == []


def test_a_new_run_above_one_of_the_hub_names_the_commit_in_its_result(
    runs: dict[str, Path], hub: Hub, rated: Path, tmp_path: Path
) -> None:
    commit = push_run(runs["finetuned"], NAME, Choice()).commit
    above = trained(rated, tmp_path / "above", upstream={"name": f"hf:{NAME}@main"})
    result = json.loads((above / "result.json").read_text())
    assert result["source"] == f"hf:{NAME}@{commit} (from test_hubert)"
    ours, theirs = (headwater.load_upstream(name).state_dict() for name in (f"hf:{NAME}", str(runs["finetuned"])))
    assert all(bool((ours[key] == theirs[key]).all()) for key in theirs)
    push_run(above, "ann/above", Choice())  # whose lineage leads through the hub
    content = (load_run("hf:ann/above").folder / "README.md").read_text()
    assert "| test_hubert | below '" in content
    hub.repositories.clear()
    assert load_run(above).predict(rated.parent / "70.wav").scores  # the commit is in the cache, and in the process


def test_a_commit_stays_and_a_branch_moves(runs: dict[str, Path], hub: Hub, again: Any) -> None:
    first = push_run(runs["plain"], NAME, Choice()).commit
    second = push_run(runs["finetuned"], NAME, Choice(), message="Finetune").commit
    again()
    assert load_run(f"hf:{NAME}@{first}").config.upstream.name == "fbank"
    assert load_run(f"hf:{NAME}").config.upstream.name == "test_hubert"
    assert hub.repositories[NAME].messages[1:] == ["Push plain", "Finetune"]
    assert second != first
    held = {*hub.repositories[NAME].commits[second]}
    assert held >= {"upstream.json", "checksums.json", "README.md", ".gitattributes"}
    assert push_run(runs["plain"], NAME, Choice(), revision="small").commit == hub.repositories[NAME].refs["small"]
    gone = held - {*hub.repositories[NAME].commits[hub.repositories[NAME].refs["small"]]}
    assert gone == {"upstream.json"}  # what a run does not have is taken away


def test_without_a_network_the_cache_answers(
    runs: dict[str, Path], hub: Hub, again: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    commit = push_run(runs["plain"], NAME, Choice()).commit
    load_run(f"hf:{NAME}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again(), hub.calls.clear()
    assert load_run(f"hf:{NAME}").folder.name == load_run(f"hf:{NAME}@{commit}").folder.name == commit
    assert hub.calls == []
    line = fails("predict", "hf:ann/other", "my.wav")
    assert line.startswith("Expected 'ann/other' in the hub's cache (")
    assert "since HF_HUB_OFFLINE is set, found it not" in line
    assert fails("push", str(runs["plain"]), NAME).startswith("Expected a network to push, found HF_HUB_OFFLINE=1")
    dry_run(runs["plain"], NAME, tmp_path / "dry", Choice())  # needs none


def test_a_changed_file_is_refused(runs: dict[str, Path], hub: Hub, again: Any) -> None:
    push_run(runs["plain"], NAME, Choice())
    files = dict(hub.repositories[NAME].commits[hub.repositories[NAME].refs["main"]])
    hub.put(NAME, {**files, "vocabulary.json": files["vocabulary.json"].replace(b"low", b"lax")})
    assert "Expected the 'vocabulary.json' that was exported" in fails("predict", f"hf:{NAME}", "my.wav")
    hub.put(NAME, {name: content for name, content in files.items() if name != "vocabulary.json"})
    assert "that it is missing. Remove '" in fails("predict", f"hf:{NAME}", "my.wav")
    hub.put(NAME, {**files, "trained_on.json": b"{}"})
    assert "found none of 'trained_on.json'" in fails("predict", f"hf:{NAME}", "my.wav")
    hub.put(NAME, {**files, "README.md": b"# edited on the hub"})
    again()
    assert load_run(f"hf:{NAME}").config.upstream.name == "fbank"


@pytest.mark.parametrize(
    "name", ["model.pkl", "code/task/__init__.py", "run.sh", "weights.bin", "checkpoints/last.pt", "data.npy"]
)
def test_what_could_hold_code_is_refused_before_it_is_fetched(name: str, runs: dict[str, Path], hub: Hub) -> None:
    push_run(runs["plain"], NAME, Choice())
    files = hub.repositories[NAME].commits[hub.repositories[NAME].refs["main"]]
    hub.put(NAME, {**files, name: b"\x80\x04."})
    hub.calls.clear()
    line = fails("predict", f"hf:{NAME}", "my.wav")
    assert f"found '{name}', which could hold code. Nothing was read" in line
    assert not [call for call in hub.calls if "/resolve/" in call]


def test_a_run_that_takes_its_upstream_from_elsewhere_is_refused(runs: dict[str, Path], hub: Hub, tmp_path: Path) -> None:
    from headwater.core.sharing.checksums import write_checksums

    for name in ("s3prl/hubert", "ann/other", "/etc", "hf:ann/other"):
        folder = tmp_path / name.replace("/", "_")
        dry_run(runs["plain"], NAME, folder, Choice())
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["upstream"]["name"] = name
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        write_checksums(folder)
        hub.put(
            "ann/foreign", {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}, name[-5:]
        )
        typed = f"hf:ann/foreign@{hub.repositories['ann/foreign'].refs[name[-5:]]}"
        assert f"found one that takes '{name}' from elsewhere" in fails("predict", typed, "my.wav")
        with pytest.raises(UserError, match="from elsewhere"):
            headwater.load_upstream(typed)


def test_a_model_of_transformers_is_an_upstream_and_no_run(hub: Hub, tmp_path: Path) -> None:
    from headwater.upstream.hub.models import class_of, new_model
    from headwater.upstream.hub.tiny import SMALL

    new_model(class_of("hubert").config_class(**SMALL)).save_pretrained(tmp_path / "model")
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    commit = hub.put("ann/model", {**files, "pytorch_model.bin": b"\x80\x04.", "modeling.py": b"raise SystemExit"})
    upstream = headwater.load_upstream("hf:ann/model@main")
    assert upstream.source == f"hf:ann/model@{commit}"
    assert not [call for call in hub.calls if call.endswith((".bin", ".py"))]
    assert "found a model of transformers. Train a head on it: headwater downstream -u hf:ann/model" in fails(
        "predict", "hf:ann/model", "my.wav"
    )
    hub.put("ann/pickled", {"config.json": files["config.json"], "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(UserError, match=r"Expected weights as safetensors .* hf: reads no pickle\. .* -u ann/pickled"):
        headwater.load_upstream("hf:ann/pickled")
    hub.put("ann/words", {"README.md": b"hello"})
    with pytest.raises(UserError, match=r"found neither \(README.md\)"):
        headwater.load_upstream("hf:ann/words")


def test_a_run_of_the_hub_is_exported_as_the_run_is(runs: dict[str, Path], hub: Hub, rated: Path, tmp_path: Path) -> None:
    push_run(runs["finetuned"], NAME, Choice())
    dispatch(["export", f"hf:{NAME}", str(tmp_path / "out")])
    assert hub.calls
    exported = load_run(tmp_path / "out").predict(rated.parent / "70.wav")
    assert exported == load_run(runs["finetuned"]).predict(rated.parent / "70.wav")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hf:ann", "Expected OWNER/NAME of a repository on the hub, or OWNER/NAME@REVISION, found 'hf:ann'"),
        ("hf:ann/b/c", "Expected OWNER/NAME of a repository on the hub"),
        ("hf:ann/b@", "Expected OWNER/NAME of a repository on the hub"),
        ("hf:ann/-b", "found 'ann/-b' ('-b')"),
        ("hf:ann/nothing", "Expected a repository 'ann/nothing' on the hub, found none that you may read. Check OWNER/NAME"),
        ("ann/nothing", "Expected a run folder at 'ann/nothing', found none; and on the hub: Expected a repository"),
        (f"hf:{NAME}@v9", f"Expected a branch, tag or commit of '{NAME}', found no 'v9' there"),
    ],
)
def test_wrong_names_are_one_line(typed: str, message: str, hub: Hub) -> None:
    hub.put(NAME, {"README.md": b""})
    assert message in fails("predict", typed, "my.wav")


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (401, {"X-Error-Code": ""}, "a token"),
        (403, {"X-Error-Code": "GatedRepo"}, f"found that '{NAME}' is gated. Accept its terms on"),
        (403, {"X-Error-Code": ""}, f"Expected a token that may read '{NAME}', found one that may not (403)"),
        (429, {}, f"Expected an answer about '{NAME}', found that the hub has none now (429)"),
        (503, {}, f"Expected an answer about '{NAME}', found that the hub has none now (503)"),
        (418, {}, f"Expected '{NAME}' on the hub, found: "),
    ],
)
def test_what_the_hub_refuses_is_one_line_without_the_token(status: int, headers: dict[str, str], message: str, hub: Hub) -> None:
    hub.broken[f"/api/models/{NAME}"] = status, headers
    line = fails("predict", f"hf:{NAME}", "my.wav")
    assert message in line or (status == 401 and "found none that you may read" in line)


@pytest.mark.usefixtures("hub")
def test_no_way_to_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    line = fails("predict", f"hf:{NAME}", "my.wav")
    assert f"Expected '{NAME}' at http://127.0.0.1:9, found no way there" in line
    assert "HF_HUB_OFFLINE=1" in line


def test_a_push_that_the_hub_refuses_is_one_line(
    runs: dict[str, Path], hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_folder = str(runs["plain"])
    assert "Expected a token that may write to 'bob/tones', found one that may not (403)" in fails(
        "push", run_folder, "bob/tones"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "found one that it refuses (401)" in fails("push", run_folder, NAME)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert f"Expected a token that may write to '{NAME}', found none" in fails("push", run_folder, NAME)
    assert hub.repositories == {}


def test_a_push_overwrites_nothing_else_and_makes_nothing_public(runs: dict[str, Path], hub: Hub) -> None:
    hub.put(NAME, {".gitattributes": b"", "pytorch_model.bin": b"somebody's"})
    line = fails("push", str(runs["plain"]), NAME)
    assert (
        f"Expected a new or empty repository, or one that `headwater push` filled, in '{NAME}', found 'pytorch_model.bin'" in line
    )
    hub.repositories.clear()
    push_run(runs["plain"], NAME, Choice())
    held = dict(hub.repositories[NAME].commits)
    assert "found a public one. Nothing was uploaded" in fails("push", str(runs["plain"]), NAME, "--private")
    assert hub.repositories[NAME].commits == held
    push_run(runs["plain"], "ann/hidden", Choice(), private=True)
    assert hub.repositories["ann/hidden"].private


def test_a_run_with_code_of_its_users_own_is_not_pushed(rated: Path, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "my_upstream.py"
    code = headwater.use(str(example))
    folder = trained(rated, tmp_path / "own", upstream={"name": code.name})
    with pytest.raises(UserError, match=r"Expected a run without code of its user's own.*found an own audio upstream in"):
        dry_run(folder, NAME, tmp_path / "dry", Choice())
    assert not (tmp_path / "dry").exists()


def test_push_of_the_command_line_against_the_stand_in(runs: dict[str, Path], hub: Hub, rated: Path, tmp_path: Path) -> None:
    import os

    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "no_proxy": "127.0.0.1"}

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        """Run `headwater` in a process of its own."""
        words = (sys.executable, "-m", "headwater", *words)
        return subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    pushed = command("push", str(runs["plain"]), NAME)
    assert pushed.returncode == 0, pushed.stderr
    typed = pushed.stdout.split()[2]
    answered = command("predict", typed, str(rated.parent / "70.wav"))
    assert answered.returncode == 0, answered.stderr
    expected = load_run(runs["plain"]).predict(rated.parent / "70.wav")
    assert f",{expected.label}," in answered.stdout
    assert TOKEN not in pushed.stdout + pushed.stderr + answered.stderr
