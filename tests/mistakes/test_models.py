"""Mistakes with models: names, folders, weights that are missing, damaged or others, options that a family lacks."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from headwater.commands.downstream import make_parser, plan_of
from headwater.upstream.hub.tiny import tiny_model

TypeIn = Callable[[str], tuple[int, str, str]]
TRAIN = "python run_downstream.py -d emotion --data tones/tones.csv"


@pytest.fixture
def model(desk: Path) -> Path:
    """A tiny HuBERT in the hub's format."""
    tiny_model("test_hubert", num_hidden_layers=2).save_pretrained(desk / "model")
    return desk / "model"


# the mistake in words: what is typed, what the answer must say
NAMES = {
    "no such folder": (f"{TRAIN} -u ./modell", "at './modell', found nothing there", "`headwater list upstreams`"),
    "no such folder of weights": (f"{TRAIN} -u hubert -k modell", "at 'modell', found nothing there", "Check the path"),
    "no such folder for a name of one's own": (f"{TRAIN} -u mine -k modell", "after -k, found nothing at 'modell'", "Check"),
    "a file where a folder belongs": (f"{TRAIN} -u model/config.json", "found the file 'model/config.json'", "its folder: model"),
    "a folder without a model": (
        f"{TRAIN} -u ./tones",
        "config.json and weights in './tones', found no config.json",
        "hub's format",
    ),
    "another family's weights": (f"{TRAIN} -u wavlm -k model", "model_type wavlm in 'model', found 'hubert'", "Give the name"),
    "weights for what has its own": (f"{TRAIN} -u test_hubert -k model", "takes no weights", "leave out -k"),
    "a layer that is not there": (f"{TRAIN} -u ./model -l 3", "-l from 0 to 2", "found 3", "the weighted sum"),
    "a probed layer that is not there": (f"{TRAIN} -u ./model -l 0,3", "layers between 0 and 2 after -l, found 3"),
    "a word among probed layers": (f"{TRAIN} -u ./model -l 0,last", "whole numbers after -l", "found '0,last'"),
    "a probe of a finetuned model": (
        f"{TRAIN} -u ./model -f -l all",
        "a frozen upstream for a probe",
        "found -f",
        "Leave it out",
    ),
    "a probe of one layer": (f"{TRAIN} -u fbank_no_cmvn -l all", "several layers for a probe", "has one", "Leave out -l"),
    "less memory for what is frozen": (f"{TRAIN} -u ./model -o training.gradient_checkpointing=true", "-f beside", "Add -f"),
    "more layers than there are": (
        f"{TRAIN} -u ./model -o upstream.keep_layers=3",
        "keep_layers from 1 to 2",
        "found 3",
        "or fewer",
    ),
    "another family's option": (f"{TRAIN} -u ./model -o upstream.attend=valid", "HuBERT has no option 'attend'", "Leave it out"),
    "a dropout out of range": (f"{TRAIN} -u ./model -o upstream.dropout=1", "a dropout from 0 to below 1, found 1.0", "=0.1`"),
    "a hub id without a network": (
        f"{TRAIN} -u someone/some-model",
        "weights of 'someone/some-model'",
        "hf download",
        "add `-k DIR`",
    ),
}


@pytest.mark.usefixtures("model", "offline")
@pytest.mark.parametrize("mistake", NAMES)
def test_a_wrong_model_is_reported_in_one_line(mistake: str, error_of: Callable[..., str]) -> None:
    typed, *parts = NAMES[mistake]
    message = error_of(typed)
    assert all(part in message for part in parts), message


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and nothing in the hub's cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("offline")
def test_without_weights_and_corpus_one_error_names_both_and_a_command_that_works(error_of: Callable[..., str]) -> None:
    message = error_of("python run_downstream.py -u hubert -d emotion", lines=5)
    assert "where iemocap lies" in message
    assert "https://sail.usc.edu/iemocap/" in message
    assert "HEADWATER_DATA=FOLDER with FOLDER/iemocap in it" in message
    assert "`hf download facebook/hubert-base-ls960 --local-dir DIR`, bring DIR here and add `-k DIR`" in message
    found = re.search(r"python run_downstream.py (.*--demo)$", message, flags=re.MULTILINE)
    assert found is not None, message
    config, _, _ = plan_of(make_parser("run").parse_args(shlex.split(found[1])))
    assert (config.only.corpus.demo, config.upstream.name) == (True, "fbank")


def without_a_layer(folder: Path) -> None:
    """Take a block's weights out of a folder."""
    weights = load_file(folder / "model.safetensors")
    save_file(
        {key: value for key, value in weights.items() if "layers.1." not in key}, folder / "model.safetensors", {"format": "pt"}
    )


def with_config(**settings: Any) -> Callable[[Path], None]:
    """Return what writes other settings into a folder's config.json."""

    def write(folder: Path) -> None:
        """Write them."""
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**described, **settings}))

    return write


def cut_weights(folder: Path) -> None:
    """Leave half of the weights' file, as a broken download does."""
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


# the mistake in words: what happened to the folder, what the answer must say
FOLDERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "an unsupported family": (with_config(model_type="t5"), ("model_type one of ", "found 't5'")),
    "a layer without weights": (without_a_layer, ("weights for every layer of config.json", "missing", "encoder.layers.1.")),
    "more weights than layers": (with_config(num_hidden_layers=1), ("1 blocks as config.json says, found weights of 2", "Mend")),
    "weights of another size": (with_config(hidden_size=32), ("of another shape", "Take weights and config.json from the same")),
    "a stride of none": (with_config(conv_stride=[0, 0]), ("conv_stride of 1 or more in 'model/config.json', found 0. Fetch",)),
    "a stride backwards": (with_config(conv_stride=[-5, 4]), ("conv_stride of 1 or more", "found -5")),
    "heads below none": (with_config(num_attention_heads=-2), ("num_attention_heads of 1 or more", "found -2")),
    "half a download": (cut_weights, ("whole weights that fit config.json in 'model'", "Fetch the folder again")),
    "no weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        ("whole weights", "no file named model.safetensors", "Fetch the folder again"),
    ),
    "a broken config.json": (
        lambda folder: (folder / "config.json").write_text("{"),
        ("json in 'model/config.json'", "Fetch the"),
    ),
}


@pytest.mark.parametrize("mistake", FOLDERS)
def test_a_broken_model_folder_is_reported_in_one_line(mistake: str, error_of: Callable[..., str], model: Path) -> None:
    spoil, parts = FOLDERS[mistake]
    spoil(model)
    message = error_of(f"{TRAIN} -u ./model")
    assert all(part in message for part in parts), message


def test_other_weights_than_the_runs_are_refused(error_of: Callable[..., str], type_in: TypeIn, model: Path) -> None:
    assert type_in(f"{TRAIN} -u ./model -p mine -o training.steps=2 training.batch_size=4")[0] == 0
    shutil.copytree(model, model.with_name("moved"))
    weights = load_file(model / "model.safetensors")
    save_file({key: value + 1 for key, value in weights.items()}, model / "model.safetensors", {"format": "pt"})
    message = error_of("headwater predict mine tones/00.wav")
    assert "the very weights of './model' that 'mine' was trained on, found others" in message
    assert "Name the right ones with -k" in message
    assert type_in("headwater predict mine tones/00.wav -k moved")[0] == 0
    model.rename(model.with_name("gone"))
    assert "nothing there" in error_of("headwater predict mine tones/00.wav")


def test_a_run_whose_checkpoint_is_gone_is_no_upstream(error_of: Callable[..., str], desk: Path) -> None:
    shutil.copytree((desk / "run").resolve(), desk / "mine")
    config = (desk / "mine" / "config.yaml").read_text()
    (desk / "mine" / "config.yaml").write_text(config.replace("trainable: false", "trainable: true", 1))
    shutil.rmtree(desk / "mine" / "checkpoints")
    assert "a checkpoint at 'mine/checkpoints/best.safetensors', found none" in error_of(f"{TRAIN} -u mine")
    (desk / "mine" / "identity.json").unlink()
    (desk / "mine" / "config.yaml").write_text(config)
    assert "Expected a run's 'identity.json' in 'mine', found none" in error_of(f"{TRAIN} -u mine")
