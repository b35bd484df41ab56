"""`headwater check`: it tells what is here and what to do, on a broken installation too, and never who asks."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from headwater.checks import machine as doctor
from headwater.checks.machine import Finding, anonymous, examine
from headwater.commands import check as command
from headwater.corpus.load import list_corpora
from headwater.upstream.load import list_upstreams


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with a home, caches and nothing in them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HEADWATER_DATA", raising=False)
    monkeypatch.delenv("HEADWATER_CONFIG", raising=False)
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / ".cache" / "headwater"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user that nobody has told the system of."""

    def unknown(number: int) -> NoReturn:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


def named(findings: list[Finding], name: str) -> Finding:
    """Return the finding of that name."""
    return next(finding for finding in findings if finding.name == name)


def test_it_lists_everything_without_a_network(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("the doctor went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert command.main([]) == 0
    message = capsys.readouterr().out
    lines = {line.split()[0]: line for line in message.splitlines() if line.strip()}
    assert {"versions", "extras", "device", "folders", "weights", "corpora"} <= {*lines}
    assert {"headwater", "python", "torch", "transformers", "soundfile", "cpu", "hub", "cache", "iemocap"} <= {*lines}
    assert "cannot be told" not in message
    assert "ask for it at https://sail.usc.edu/iemocap/" in message


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [*content] == ["versions", "extras", "device", "folders", "weights", "corpora"]
    assert {*content["versions"][0]} == {"name", "found", "advice"}
    assert command.main(["--json", str(tmp_path / "bug.json")]) == 0
    assert [*json.loads((tmp_path / "bug.json").read_text())] == [*content]


def test_a_package_that_is_missing_old_or_broken_is_a_line_with_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"soxr": "", "jiwer": "1.0"}
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: versions.get(name, real(name)))
    importing = importlib.import_module

    def import_module(name: str, package: str | None = None) -> Any:
        if name == "soundfile":
            raise OSError("sndfile library not found")
        return importing(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    found = examine(list_upstreams)["versions"]
    assert named(found, "soxr") == Finding("soxr", "missing", "pip install 'soxr>=0.4'")
    assert named(found, "jiwer").found == "1.0, which is not >=3.0"
    assert "cannot be imported: OSError: sndfile library not found" in named(found, "soundfile").found
    assert named(found, "soundfile").advice == "pip install 'soundfile>=0.12.1' --force-reinstall"
    assert named(found, "torch").advice == ""


def test_a_torch_that_cannot_load_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text('raise OSError("libcudart.so.12: cannot open shared object file")\n')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "headwater", "check"], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "which cannot be imported: OSError: libcudart.so.12: cannot open shared object file" in done.stdout
    assert "  iemocap " in done.stdout


def test_a_section_that_breaks_becomes_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> NoReturn:
        raise RuntimeError("the driver\nis on fire")

    monkeypatch.setattr("torch.cuda.is_available", broken)
    assert command.main([]) == 0
    assert re.search(r"device +cannot be read: RuntimeError: the driver\n", capsys.readouterr().out)


def test_weights_in_the_cache_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--facebook--hubert-base-ls960"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / "snapshots" / "abc" / name).write_bytes(b"12345")
    found = examine(list_upstreams)
    assert found["weights"][0] == Finding("hubert, hubert_base", "facebook/hubert-base-ls960")
    assert "hf download ID --local-dir DIR" in found["weights"][-1].advice
    assert named(found["folders"], "hub").found.startswith("~/hub: 13 B, ")


def test_a_corpus_is_found_where_the_environment_or_the_config_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "iemocap").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "headwater.yaml").write_text("data: {ravdess: ~/here, emodb: ~/gone}\n")
    monkeypatch.setenv("HEADWATER_DATA", str(tmp_path / "data"))
    found = examine(list_upstreams)["corpora"]
    assert named(found, "iemocap").found == "~/data/iemocap"
    assert named(found, "ravdess").found == "~/here"
    assert "not found: Expected the folder of emodb at ~/gone" in named(found, "emodb").found
    assert named(found, "cremad").found == "not here"
    report = {finding.name for finding in found}
    assert {name for name, reader in list_corpora().items() if not reader.is_file} <= report


def test_a_config_file_that_cannot_be_read_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "headwater.yaml").write_text("data: [\n")
    found = examine(list_upstreams)["corpora"]
    assert "Expected yaml such as" in named(found, "config").found
    assert named(found, "config").advice.startswith("Mend that file, or remove it")
    assert sum("Expected yaml" in finding.found for finding in found) == 1


def test_a_cache_of_no_use_comes_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "Choose a folder that you can write to, for what is not there yet: HEADWATER_CACHE=FOLDER"
    for place, message in (("file", "~/file: a file, no folder"), ("file/x", "~/file/x: ~/file is a file, no folder")):
        (tmp_path / "file").write_text("x")
        monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / place))
        assert named(examine(list_upstreams)["folders"], "cache") == Finding("cache", message, advice)
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "kept"))
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        found = named(examine(list_upstreams)["folders"], "cache")
        assert (found.found, found.advice) == ("~/kept: nothing there, not to be written to", advice)
    real = Path.exists

    def closed(path: Path) -> bool:
        if path.name == "kept":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "exists", closed)
    found = examine(list_upstreams)["folders"]
    assert named(found, "cache") == Finding("cache", "~/kept: cannot be looked into (Permission denied)", advice)
    assert {"hub", "config"} <= {finding.name for finding in found}


def test_whatever_lies_in_the_cache_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "headwater" / "later").mkdir(parents=True)
    names = [finding.name for finding in examine(list_upstreams)["folders"]]
    assert names == ["hub", "cache", "  store", "  demo", "  transcripts", "  converted-1", "  later", "config"]


@pytest.mark.usefixtures("homeless")
def test_a_user_without_a_home_and_a_name_has_a_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADWATER_CACHE")
    assert command.main([]) == 0
    message = capsys.readouterr().out
    assert "Expected a home for the cache '~/.cache/headwater', found none\n" in message
    assert "-> Set HEADWATER_CACHE=FOLDER, or HOME\n" in message
    assert "~/.config/headwater.yaml (none: it is optional)" in message
    assert "cannot be told" not in message


def test_addresses_stay_as_they_are_but_for_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "data")
    monkeypatch.setenv("HOME", "/root")
    assert anonymous("http://x.org/data/ (x), tf.org/data/y") == "http://x.org/data/ (x), tf.org/data/y"
    assert (
        anonymous("git+https://me:p@ss@x.org/data/y.git and /scratch/data/z")
        == "git+https://x.org/data/y.git and /scratch/USER/z"
    )
    assert anonymous("file:///root/x, file:///scratch/data/z, /mnt/root/x") == "file://~/x, file:///scratch/USER/z, /mnt/root/x"


def test_extras_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: "" if name in {"espeakng-loader", "s3prl"} else real(name))
    found = examine(list_upstreams)["extras"]
    assert named(found, "demo") == Finding("demo", "not installed (espeakng-loader)", "pip install -e '.[demo]'")
    assert named(found, "s3prl").advice == "pip install --no-deps s3prl"
    assert "test" not in {finding.name for finding in found}


def test_nothing_names_the_user_or_shows_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    monkeypatch.setenv("HOME", "/home/ada")
    assert anonymous("/home/ada/x, /home/adamant/x, /scratch/ada/y, (/home/ada)") == "~/x, /home/adamant/x, /scratch/USER/y, (~)"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "homes" / "ada" / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/scratch/ada/hf")
    for flags in ([], ["--json", "-"]):
        command.main(flags)
        message = capsys.readouterr().out
        assert "hf_secret" not in message
        assert "/ada" not in message
        assert "/scratch/USER/hf" in message
        assert "/homes/USER/cache" in message
