"""What can be wrong with a file of s3prl's: one line each, nothing run, nothing left behind."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

ErrorOf = Callable[..., str]
HEAD = {
    "projector.weight": torch.zeros(8, 240),
    "projector.bias": torch.zeros(8),
    "model.post_net.linear.weight": torch.zeros(4, 8),
    "model.post_net.linear.bias": torch.zeros(4),
    "best_score": torch.zeros(1),
}
EMOTION: dict[str, Any] = {
    "Downstream": HEAD,
    "Featurizer": {},
    "Args": Namespace(downstream="emotion", upstream="fbank"),
    "Config": {"downstream_expert": {"modelrc": {"select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}}},
    "Step": 10,
}


class Runs:
    """What runs a command when a careless reader loads it."""

    def __reduce__(self) -> Any:
        return os.system, ("touch it-ran",)


@pytest.fixture
def files(desk: Path) -> Path:
    """Files of all kinds at the user's desk."""
    torch.save({"weight": torch.zeros(2)}, desk / "state.pt")
    torch.save({"x": Runs()}, desk / "runs.pt")
    torch.save({"x": Runs()}, desk / "runs-old.pt", _use_new_zipfile_serialization=False)
    torch.save(nn.Linear(2, 2), desk / "module.pt")
    torch.save({"Config": {}, "Distiller": {}}, desk / "distilled.pt")
    torch.save({"args": Namespace(arch="hubert"), "model": {}, "task_state": {}, "extra_state": {}}, desk / "fairseq.pt")
    torch.save({"config": 1, "step": 2}, desk / "other.pt")
    torch.save([1, 2], desk / "list.pt")
    torch.save(EMOTION, desk / "emotion.ckpt")
    torch.save(EMOTION | {"Args": Namespace(downstream="asr", upstream="fbank")}, desk / "asr.ckpt")
    torch.save(EMOTION | {"Args": Namespace(downstream="emotion", upstream="hubert_local")}, desk / "local.ckpt")
    torch.save(EMOTION | {"Config": [1]}, desk / "strange.ckpt")
    torch.save(EMOTION | {"Downstream": [1]}, desk / "stranger.ckpt")
    torch.save({"task_cfg": {}, "model_cfg": {}, "model_weight": None}, desk / "odd.pt")
    torch.save({"task_cfg": {}, "model_cfg": {"encoder_layers": "many"}, "model_weight": {}}, desk / "odd-size.pt")
    whole = (desk / "emotion.ckpt").read_bytes()
    (desk / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    (desk / "empty.pt").write_bytes(b"")
    (desk / "page.pt").write_text("<html>not found</html>")
    save_file({"a": torch.zeros(1)}, desk / "model.safetensors")
    (desk / "there").mkdir()
    return desk


MISTAKES: dict[str, tuple[str, ...]] = {
    "headwater import none.pt new": ("checkpoint file at 'none.pt'", "No such file", "Check the path"),
    "headwater import there new": ("checkpoint file at 'there'", "Is a directory", "Check the path"),
    "headwater import page.pt new": ("a file that torch.save wrote", "'page.pt', which is none", "Check the path"),
    "headwater import empty.pt new": ("a file that torch.save wrote", "'empty.pt', which is none"),
    "headwater import model.safetensors new": ("a file that torch.save wrote", "'model.safetensors', which is none"),
    "headwater import cut.ckpt new": ("a whole file of torch.save", "'cut.ckpt' damaged", "Fetch it again"),
    "headwater import runs.pt new": (
        "tensors, plain values and argparse.Namespace",
        "the class posix.system",
        "Save tensors alone",
    ),
    "headwater import runs-old.pt new": ("tensors, plain values and argparse.Namespace", "the class posix.system"),
    "headwater import module.pt new": ("found the class torch.nn.modules.linear.Linear",),
    "headwater import state.pt new": ("HuBERT, wav2vec 2.0, data2vec, WavLM", "weights alone", "Give the whole file"),
    "headwater import distilled.pt new": ("s3prl's DistilHuBERT", "-u distilhubert"),
    "headwater import fairseq.pt new": ("fairseq's own format", "python -m s3prl.upstream.hubert.convert FILE"),
    "headwater import other.pt new": ("other content (config, step)", "Check the path"),
    "headwater import list.pt new": ("other content (a list)",),
    "headwater import emotion.ckpt there": ("a folder that is not there yet", "'there'", "Choose another name"),
    "headwater import emotion.ckpt run": ("a folder that is not there yet", "'run'"),
    "headwater import emotion.ckpt page.pt/new": ("to write 'page.pt'", "a file stands in the way", "Choose another place"),
    "headwater import emotion.ckpt new --classes a,b": ("4 classes", "found 2 (a, b)", "in the order of s3prl's labels"),
    "headwater import emotion.ckpt new -u mfcc": ("take 39 dims, as 'mfcc' has, found 240", "-u NAME"),
    "headwater import emotion.ckpt new -u test_hubert": ("weights of", "'test_hubert'", "found 1", "name the right upstream"),
    "headwater import emotion.ckpt new -u nobody": ("s3prl", "nobody"),
    "headwater import local.ckpt new": ("the weights of 'hubert_local' after -k, found none", "Add -k FILE"),
    "headwater import asr.ckpt new": ("task emotion in 'asr.ckpt', found one of 'asr'", "train the others anew"),
    "headwater import strange.ckpt new": (
        "Args and Config beside tensors in 'strange.ckpt', found other content",
        "as s3prl wrote it",
    ),
    "headwater import stranger.ckpt new": ("Args and Config beside tensors in 'stranger.ckpt'", "as s3prl wrote it"),
    "headwater import odd.pt new": ("other content (model_cfg, model_weight, task_cfg)",),
    "headwater import odd-size.pt new": ("found encoder_layers='many'", "Fetch the file again"),
    "headwater import state.pt new -u hubert": ("-u beside a downstream checkpoint", "'state.pt', which is none", "Leave -u out"),
    "headwater import state.pt new -k run": ("-k beside a downstream checkpoint", "Leave -k out"),
}
TRAIN = "python run_downstream.py -d emotion --data tones/tones.csv"
WEIGHTS: dict[str, tuple[str, ...]] = {
    f"{TRAIN} -u hubert -k page.pt": ("a file that torch.save wrote", "'page.pt'"),
    f"{TRAIN} -u hubert_local -k runs.pt": ("found the class posix.system",),
    f"{TRAIN} -u wavlm -k emotion.ckpt": ("found a downstream checkpoint of s3prl", "headwater import FILE DIR"),
    f"{TRAIN} -u hubert_local": ("the weights of 'hubert_local' after -k, found none", "name -u hubert"),
    f"{TRAIN} -u wav2vec2_custom -k none.pt": ("at 'none.pt'", "Check the path"),
    f"{TRAIN} -u whisper_tiny -k state.pt": ("'state.pt'", "folder"),
    f"{TRAIN} -u fbank -k state.pt": ("takes no weights",),
    f"{TRAIN} -u hubert -g conf.yaml": ("Headwater's flags, found s3prl's -g",),
    f"{TRAIN} -u fbank -e emotion.ckpt": (
        "a run folder after -e, found a checkpoint of s3prl's",
        "headwater import emotion.ckpt RUN",
    ),
}


@pytest.mark.parametrize("typed", MISTAKES | WEIGHTS)
def test_one_line_says_what_is_wrong(typed: str, files: Path, error_of: ErrorOf) -> None:
    message = error_of(typed)
    for words in (MISTAKES | WEIGHTS)[typed]:
        assert words in message
    assert not [*files.glob("**/it-ran")], "code of the file ran"


def test_a_class_of_fairseqs_configs_gets_a_hint_to_convert_it(
    files: Path, error_of: ErrorOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type("DictConfig", (), {"__module__": "omegaconf.dictconfig", "__qualname__": "DictConfig"})
    for name in ("omegaconf", "omegaconf.dictconfig"):
        module = ModuleType(name)
        module.DictConfig = kind  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    torch.save({"cfg": kind(), "model": {}}, files / "raw.pt")
    message = error_of("headwater import raw.pt new")
    assert "the class omegaconf.dictconfig.DictConfig" in message
    assert "python -m s3prl.upstream.hubert.convert FILE" in message
