"""Where weights come from: cache, folder, task models' files; and what is said when they are not whole."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.core.errors import UserError
from headwater.core.hub import check_torchaudio
from headwater.core.torch_files import read_torch_file
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.hub.tiny import tiny_model
from headwater.upstream.load import load_upstream


def save(folder: Path, name: str = "test_hubert", **settings: Any) -> Path:
    """Save a tiny model and return its folder."""
    tiny_model(name, **settings).save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change entries of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_without_network_and_cache_the_message_says_what_to_fetch_and_what_works() -> None:
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_upstream("hubert")
    assert time.monotonic() - began < 5
    message = str(caught.value)
    assert "facebook/hubert-base-ls960" in message
    assert "`hf download facebook/hubert-base-ls960 --local-dir DIR`" in message
    assert "`-k DIR`" in message
    assert "`--demo -u fbank`" in message
    assert "\n" not in message


def test_an_unreachable_mirror_is_given_up_within_seconds() -> None:
    script = (
        "from headwater.upstream.load import load_upstream\nfrom headwater.core.errors import UserError\n"
        "try: load_upstream('some/model')\nexcept UserError as error: print(error)"
    )
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "PATH": "", "HF_HOME": "/nonexistent"}
    began = time.monotonic()
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 15, "the interpreter's own start included"
    assert "at http://127.0.0.1:9" in run.stdout
    assert "hf download some/model" in run.stdout


def test_weights_in_the_hubs_cache_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--facebook--hubert-base-ls960"
    save(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    upstream = load_upstream("hubert")
    assert upstream.source == "facebook/hubert-base-ls960"
    assert upstream.weights_hash() == load_upstream("test_hubert").weights_hash()


def test_a_cache_with_half_a_checkpoint_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--facebook--hubert-base-ls960" / "snapshots" / "abc"
    save(snapshot)
    (snapshot / "model.safetensors").unlink()
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="hf download facebook/hubert-base-ls960"):
        load_upstream("hubert")


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(("name", "task_model"), [("test_hubert", "HubertForCTC"), ("test_wav2vec2", "Wav2Vec2ForPreTraining")])
def test_a_task_models_checkpoint_loads(name: str, task_model: str, pickled: bool, tmp_path: Path, speechlike: Any) -> None:
    import transformers

    encoder = tiny_model(name)
    whole = getattr(transformers, task_model)(encoder.config)
    whole.base_model.load_state_dict(encoder.state_dict())
    whole.save_pretrained(tmp_path)
    if pickled:  # as older checkpoints are: with the weight norm's former names
        names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        weights = whole.state_dict()
        for new, old in names.items():
            weights = {key.replace(new, old): value for key, value in weights.items()}
        torch.save(weights, tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    loaded = load_upstream(str(tmp_path))
    assert torch.equal(loaded(speechlike(4000)).values[-1], load_upstream(name)(speechlike(4000)).values[-1])


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    tiny_model("test_hubert").half().save_pretrained(tmp_path)
    assert {value.dtype for value in load_upstream(str(tmp_path)).parameters()} == {torch.float32}


def test_a_config_of_more_layers_than_the_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path, num_hidden_layers=2)
    edit_config(tmp_path, num_hidden_layers=12)
    with pytest.raises(UserError, match=r"Expected weights for every layer .* found 160 missing .*encoder\.layers\.10"):
        load_upstream(str(tmp_path))


def test_a_config_of_fewer_layers_than_the_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    edit_config(tmp_path, num_hidden_layers=2)
    with pytest.raises(UserError, match=r"Expected 2 blocks as config.json says, found weights of 4 .*keep_layers=N"):
        load_upstream(str(tmp_path))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    edit_config(tmp_path, hidden_size=32)
    with pytest.raises(UserError, match=r"config.json"):
        load_upstream(str(tmp_path))


@pytest.mark.parametrize("kept", [0, 100, 20000])
def test_a_partial_weight_file_is_refused(kept: int, tmp_path: Path) -> None:
    weights = save(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"Expected whole weights .* Fetch the folder again"):
        load_upstream(str(tmp_path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    (save(tmp_path) / "model.safetensors").unlink()
    proof = tmp_path / "ran"

    class Stranger:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (proof,)

    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Stranger(), protocol=2))
    with pytest.raises(UserError, match="Expected whole weights"):
        load_upstream(str(tmp_path))
    assert not proof.exists()


def test_a_folder_without_weights_or_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no config\.json"):
        load_upstream(str(tmp_path))
    (save(tmp_path) / "model.safetensors").unlink()
    with pytest.raises(UserError, match="Expected whole weights"):
        load_upstream(str(tmp_path))


@pytest.mark.parametrize("path", ["/nowhere/at/all", "models/looks_like_a_hub_id"])
def test_a_path_of_nothing_is_named(path: str) -> None:
    with pytest.raises(UserError, match=f"at '{path}', found nothing there"):
        load_upstream(UpstreamConfig(name="hubert", path=path))


def test_a_config_that_is_no_json_is_named(tmp_path: Path) -> None:
    (save(tmp_path) / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="Expected json in"):
        load_upstream(str(tmp_path))


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path)
    capfd.readouterr()
    load_upstream(str(folder))
    assert capfd.readouterr() == ("", "")


def test_a_torchaudio_that_cannot_load_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('undefined symbol: _ZNK5torch8autograd4Node4nameEv')\n")
    (tmp_path / "torchaudio-2.1.0.dist-info").mkdir()
    (tmp_path / "torchaudio-2.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torchaudio\nVersion: 2.1.0\n")
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError) as caught:
        load_upstream("test_hubert")
    message = str(caught.value)
    assert "torchaudio 2.1.0" in message
    assert f"torch {torch.__version__}" in message
    assert "undefined symbol" in message
    assert "`pip uninstall torchaudio`" in message


def test_a_missing_torchaudio_is_no_error_and_costs_nothing() -> None:
    began = time.monotonic()
    check_torchaudio()
    assert time.monotonic() - began < 0.1


class Mirror(BaseHTTPRequestHandler):
    """A hub of one folder, enough of it for the hub's library to fetch the files by name."""

    folder: Path
    requested: list[str]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        commit, name = "0" * 40, self.path.split("?")[0].rsplit("/", 1)[-1]
        if self.path.startswith("/api/models/some/model/revision/"):
            siblings = [{"rfilename": path.name} for path in self.folder.iterdir()]
            body = json.dumps({"id": "some/model", "sha": commit, "siblings": siblings}).encode()
        elif self.path.startswith("/api/models/some/model/tree/"):
            files = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0"} for path in self.folder.iterdir()
            ]
            body = json.dumps(files).encode()
        elif self.path.startswith("/some/model/resolve/") and (self.folder / name).is_file():
            body = (self.folder / name).read_bytes()
            self.asked.append(name)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_mirror_gets_requests_for_the_files_needed_and_no_others(weights: str, tmp_path: Path) -> None:
    Mirror.folder, Mirror.asked = save(tmp_path / "model"), []
    expected = load_upstream("test_hubert").weights_hash()
    torch.save(tiny_model("test_hubert").state_dict(), Mirror.folder / "pytorch_model.bin")
    (Mirror.folder / "tf_model.h5").write_text("large", encoding="utf-8")
    if weights == "pytorch_model.bin":
        (Mirror.folder / "model.safetensors").unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    script = (
        "from headwater.core.hub import model_folder\nfrom headwater.core.errors import UserError\n"
        "print(model_folder('some/model'))\n"
        "try: model_folder('some/other')\nexcept UserError as error: print(error)"
    )
    mirror = f"http://127.0.0.1:{server.server_port}"
    environment = {"HF_ENDPOINT": mirror, "HF_HUB_OFFLINE": "0", "PATH": "", "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    server.shutdown()
    assert run.returncode == 0, run.stderr
    found, refusal = run.stdout.strip().splitlines()
    assert load_upstream(found).weights_hash() == expected
    assert set(Mirror.asked) == {"config.json", weights}
    assert "Expected a public model 'some/other' on the hub" in refusal


class Odd:
    """A class that no file may bring."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Call a function where the file is unpickled by a careless reader."""
        return (json.loads, ("1",))


def save_script(path: Path) -> None:
    """Save a module as TorchScript."""
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


UNREADABLE: dict[str, tuple[Any, str]] = {
    "a class, protocol 2": (lambda path: torch.save({"a": Odd()}, path), r"found the class json\.loads\. Save tensors alone"),
    "a class, protocol 4": (
        lambda path: torch.save({"a": Odd()}, path, pickle_protocol=4),
        r"found the class json\.loads\. Save tensors alone",
    ),
    "a class twice, protocol 5": (
        lambda path: torch.save({"loads": [Odd(), Odd()]}, path, pickle_protocol=5),
        r"found the class json\.loads\. Save tensors alone",
    ),
    "a class, torch's old form": (
        lambda path: torch.save({"a": Odd()}, path, pickle_protocol=4, _use_new_zipfile_serialization=False),
        r"found the class json\.loads\. Save tensors alone",
    ),
    "a late protocol": (
        lambda path: torch.save({"a": torch.ones(2)}, path, pickle_protocol=4),
        r"found pickle protocol 4\. Save it again without pickle_protocol=",
    ),
    "a late protocol, torch's old form": (
        lambda path: torch.save({"a": torch.ones(2)}, path, pickle_protocol=4, _use_new_zipfile_serialization=False),
        r"found pickle protocol 4\.",
    ),
    "TorchScript": (save_script, r"found TorchScript, which is code\. Save its state_dict"),
    "half a file": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(300)), "damaged"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_a_file_that_is_not_read_is_known_by_its_content(what: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    make, fragments = UNREADABLE[what]
    make(tmp_path / "odd.pt")
    recwarn.clear()
    with pytest.raises(UserError, match=fragments) as refused:
        read_torch_file(tmp_path / "odd.pt")
    assert "weights_only" not in str(refused.value), "torch's advice is to run the file's code"
    assert not recwarn.list


def test_protocol_3_is_read_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "three.pt", pickle_protocol=3)
    assert read_torch_file(tmp_path / "three.pt")["a"].tolist() == [1, 1]
    assert not recwarn.list


def test_torchs_old_form_is_read_whatever_its_tensors_look_like(tmp_path: Path) -> None:
    # 1152 numbers: their count is written as a pickle of protocol 4 begins
    torch.save({"a": torch.ones(1152)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_torch_file(tmp_path / "old.pt")["a"].sum() == 1152


def packed(path: Path, inside: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive such as torch.save writes, with a pickle of one's own."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", inside)
        archive.writestr("archive/version", "3\n")
    return path


def test_an_archive_that_takes_far_more_memory_than_disk_is_refused_at_once(tmp_path: Path) -> None:
    path = packed(tmp_path / "bomb.pt", b"\x80\x02" + b"]" * 300_000_000)
    assert path.stat().st_size < 1_000_000
    began = time.process_time()
    with pytest.raises(UserError, match=r"found 300 MB packed into 0\.3 MB, or more than 67 MB of names\. Do not trust"):
        read_torch_file(path)
    assert time.process_time() - began < 5


def test_a_pickle_of_millions_of_steps_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path / "long.pt", b"\x80\x02" + b"]0" * 2_500_000 + b"N.", zipfile.ZIP_STORED)
    with pytest.raises(UserError, match="found more than 4,000,000 steps to read its names and shapes"):
        read_torch_file(path)


def test_a_pickle_with_a_text_of_astronomic_length_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f" + b"a.")
    with pytest.raises(UserError, match="Expected"):
        read_torch_file(tmp_path / "a.pt")


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"Expected a checkpoint file at .* found a pipe, a socket or a device"):
        read_torch_file(tmp_path / "a.pt")
