"""A run folder as an upstream: the one that is asked for, finetuned or frozen, pruned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from headwater.core.errors import UserError
from headwater.core.run_folder import RunFolder
from headwater.upstream.base import Upstream, UpstreamConfig
from headwater.upstream.load import load_upstream

TEXTS = ["did you go", ""]


def run_of(folder: Path, *sections: dict[str, Any]) -> Path:
    """Write what a run folder says of its upstreams."""
    mapping = {"task": "emotion", **dict(zip(("upstream", "text_upstream"), sections, strict=True))}
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
    (folder / "identity.json").write_text(json.dumps({"marks": ["UNTRAINED"]}), encoding="utf-8")
    return folder


def moved(name: str) -> Upstream:
    """Return an upstream whose weights are no longer those of its name."""
    upstream = load_upstream(name)
    for parameter in upstream.parameters():
        parameter.data += 0.01
    return upstream


def save_finetuned(folder: Path, upstreams: dict[str, Upstream]) -> None:
    """Write what a finetuned run keeps of its upstreams."""
    (folder / "checkpoints").mkdir()
    tensors = {f"upstreams.{role}.{key}": value for role, one in upstreams.items() for key, value in one.state_dict().items()}
    save_file(tensors, folder / "checkpoints" / "best.safetensors")
    for role, one in upstreams.items():
        RunFolder(folder).architecture(role).write_text(json.dumps(one.architecture()), encoding="utf-8")


def test_of_two_finetuned_upstreams_the_one_that_is_requested_comes_back(tmp_path: Path, speechlike: Any) -> None:
    # neither name could be loaded here: the run folder is all that is needed
    folder = run_of(tmp_path, {"name": "hubert", "trainable": True}, {"name": "gpt2", "trainable": True})
    upstreams = {"audio": moved("test_hubert"), "text": moved("test_gpt2")}
    save_finetuned(folder, upstreams)
    for role, material in (("audio", speechlike(4000)), ("text", TEXTS)):
        found = load_upstream(str(folder), role)
        assert found.spec.modality == role
        assert found.untrained
        with torch.no_grad():
            assert torch.equal(found(material).values[-1], upstreams[role](material).values[-1])
    assert load_upstream(str(folder)).spec.modality == "audio", "where none is asked for, what listens comes first"


def test_a_finetuned_reader_can_be_pruned(tmp_path: Path) -> None:
    folder = run_of(tmp_path, {}, {"name": "bert", "trainable": True})
    whole = moved("test_bert")
    save_finetuned(folder, {"text": whole})
    cut = load_upstream(UpstreamConfig(name=str(folder), keep_layers=1), "text")
    with torch.no_grad():
        assert cut.spec.num_layers == 2
        assert torch.equal(cut(TEXTS).values[1], whole(TEXTS).values[1])


def test_a_run_on_text_only_is_no_audio_upstream(tmp_path: Path) -> None:
    folder = run_of(tmp_path, {}, {"name": "test_bert"})
    assert load_upstream(str(folder)).spec.modality == "text"
    with pytest.raises(UserError, match=r"Expected a run with an upstream for audio in .*, found one for text only"):
        load_upstream(str(folder), "audio")


def test_runs_that_name_each_other_as_their_upstream_are_refused(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        run_of(tmp_path / one, {"name": str(tmp_path / other)}, {})
    with pytest.raises(UserError, match=r"Expected a model behind the run '.*a', found runs that name each other: .* -> .*"):
        load_upstream(str(tmp_path / "a"))
