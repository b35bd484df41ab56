"""s3prl's emotion checkpoints: the run folder made of one answers as s3prl's own head does."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from headwater.__main__ import dispatch
from headwater.analysis.layers.weights import read_layer_weights
from headwater.core.errors import UserError
from headwater.corpus.base import Utterance
from headwater.inference.evaluate import refuse_trained_on
from headwater.inference.load import load_run

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Support for mismatched:UserWarning")

MODELRC = {"projector_dim": 16, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}
DATARC = {"root": "IEMOCAP", "meta_data": "", "pre_load": False, "valid_ratio": 0.2, "train_batch_size": 4, "test_fold": "fold3"}
CONFIG: dict[str, Any] = {
    "runner": {"total_steps": 30000, "gradient_accumulate_steps": 8, "gradient_clipping": 1, "eval_step": 1000},
    "optimizer": {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 3.0e-4},
    "downstream_expert": {"datarc": DATARC, "modelrc": MODELRC},
}
ARGS: dict[str, Any] = {
    **{"mode": "train", "evaluate_split": "test", "override": None, "backend": "nccl", "local_rank": None, "past_exp": None},
    **{"init_ckpt": None, "config": "downstream/emotion/config.yaml", "downstream": "emotion", "downstream_variant": None},
    **{"hub": "torch", "upstream_ckpt": None, "upstream_model_config": None, "upstream_refresh": False},
    **{"upstream_trainable": False, "upstream_feature_selection": "hidden_states", "upstream_layer_selection": None},
    **{"upstream_feature_normalize": False, "upstream_model_name": "model.pt", "upstream_revision": None, "seed": 1337},
    **{"expname": "er", "expdir": "result/downstream/er", "auto_resume": False, "push_to_hf_hub": False, "hf_hub_org": None},
    **{"device": "cpu", "cache_dir": None, "verbose": False, "disable_cudnn": False},
}


@pytest.fixture(autouse=True)
def s3prl() -> None:
    """Skip without the package s3prl, or fail where HEADWATER_REQUIRE_S3PRL is set."""
    if os.environ.get("HEADWATER_REQUIRE_S3PRL") != "1":
        pytest.importorskip("s3prl")


def drawn(model: nn.Module, scale: float) -> nn.Module:
    """Return a model in eval mode with its weights moved: fresh ones would hide a mistake."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(scale * torch.randn(value.shape, generator=generator))
    return model.eval()


class Fbank(nn.Module):
    """s3prl's fbank is torchaudio's; the same numbers in its form come from ours, which a test of its own holds to Kaldi's."""

    def __init__(self) -> None:
        super().__init__()
        from headwater.upstream.load import load_upstream

        self.ours = load_upstream("fbank")

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        values = self.ours(wavs).values
        return {"hidden_states": [values[0]], "last_hidden_state": values[0]}

    def get_downsample_rates(self, _: str) -> int:
        return 160


def hubert_file(path: Path) -> Path:
    """Save a small random HuBERT as s3prl does."""
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

    described = {"label_rate": 50.0, "conv_feature_layers": "[(32,10,5)] + [(32,3,2)] * 4 + [(32,2,2)] * 2", "encoder_layers": 2}
    described |= {"encoder_embed_dim": 48, "encoder_ffn_embed_dim": 64, "encoder_attention_heads": 4, "conv_pos": 16}
    model = drawn(HubertModel(HubertConfig(**described), HubertPretrainingConfig(), [["a", "b"]]), 0.05)
    state = {"task_cfg": {"normalize": False}, "model_cfg": described, "model_weight": model.state_dict()}
    torch.save({**state, "dictionaries_symbols": [["a", "b"]]}, path)
    return path


class Trained:
    """What s3prl's runner has in its hands at the end of an emotion training, made by s3prl's own classes."""

    def __init__(self, folder: Path, upstream: str, args: dict[str, Any], config: dict[str, Any], monkeypatch: Any) -> None:
        from headwater.upstream.s3prl.torchaudio_stub import stand_in_for_torchaudio

        with stand_in_for_torchaudio():
            from s3prl.downstream.emotion import expert
            from s3prl.upstream.hubert.expert import UpstreamExpert
            from s3prl.upstream.interfaces import Featurizer

            rows = SimpleNamespace(class_num=4, idx2emotion={0: "neu", 1: "hap", 2: "ang", 3: "sad"})
            monkeypatch.setattr(expert, "IEMOCAPDataset", lambda *_: FakeRows(rows))
            self.file = hubert_file(folder / "hubert.pt")
            self.args = ARGS | {"upstream": upstream} | args
            if upstream != "fbank":
                self.args["upstream_ckpt"] = str(self.file)
            self.config = config
            self.upstream = Fbank() if upstream == "fbank" else UpstreamExpert(str(self.file))
            selection = self.args["upstream_feature_selection"], "cpu", self.args["upstream_layer_selection"]
            self.featurizer = drawn(Featurizer(self.upstream, *selection, self.args["upstream_feature_normalize"]), 1.0)
            dim = self.featurizer.output_dim
            self.expert = drawn(expert.DownstreamExpert(dim, **config, **self.args), 0.3)
        if self.args["upstream_trainable"]:
            drawn(self.upstream, 0.02)
        self.upstream.eval()

    def save(self, path: Path, **changes: Any) -> Path:
        """Save as the runner does."""
        optimizer = torch.optim.Adam(self.expert.parameters(), lr=0.0)
        sum(value.sum() for value in self.expert.parameters()).backward()  # type: ignore[union-attr]
        optimizer.step()  # a state of its own, as after a training
        state = {"Optimizer": optimizer.state_dict(), "Step": 12000, "Epoch": 9, "Args": Namespace(**self.args)}
        state |= {"Config": self.config, "Featurizer": self.featurizer.state_dict(), "Downstream": self.expert.state_dict()}
        if self.args["upstream_trainable"]:
            state["Upstream"] = self.upstream.state_dict()
        torch.save(state | changes, path)
        return path

    @torch.no_grad()
    def scores(self, waveform: torch.Tensor) -> list[float]:
        """Return the probabilities of one utterance, by the steps of s3prl's forward."""
        features = self.featurizer([waveform], self.upstream([waveform]))
        lengths = torch.IntTensor([len(row) for row in features])
        padded = self.expert.projector(nn.utils.rnn.pad_sequence(features, batch_first=True))
        return self.expert.model(padded, lengths)[0].softmax(dim=-1)[0].tolist()


class FakeRows(list):
    """Ten utterances nobody listens to, with the names of s3prl's classes."""

    def __init__(self, named: SimpleNamespace) -> None:
        super().__init__(range(10))
        self.class_num, self.idx2emotion = named.class_num, named.idx2emotion


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """Return a finished training of s3prl's, with what a test changes in its flags and config."""
    return lambda upstream="hubert_local", config=CONFIG, **args: Trained(tmp_path, upstream, args, config, monkeypatch)


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., Path]:
    """Type `headwater import` for a checkpoint, and return the run folder."""

    def make(made: Trained, *words: str) -> Path:
        folder = tmp_path / "runs" / "er"
        assert dispatch(["import", str(made.save(tmp_path / "dev-best.ckpt")), str(folder), *words]) == 0
        return folder

    return make


CASES: dict[str, dict[str, Any]] = {
    "weighted sum": {},
    "normalised layers": {"upstream_feature_normalize": True},
    "one layer": {"upstream_layer_selection": 1},
    "one layer, and a norm that s3prl leaves out then": {"upstream_layer_selection": -2, "upstream_feature_normalize": True},
    "the last state": {"upstream_feature_selection": "last_hidden_state"},
    "a state by its number": {"upstream_feature_selection": "hidden_state_1"},
    "finetuned": {"upstream_trainable": True},
    "fbank": {"upstream": "fbank"},
    "fbank, and a layer that s3prl does not look for then": {"upstream": "fbank", "upstream_layer_selection": 5},
    "fbank, and a norm that s3prl leaves out then": {"upstream": "fbank", "upstream_feature_normalize": True},
}


@pytest.mark.parametrize("case", CASES)
def test_scores_equal_those_of_s3prls_own_head(case: str, trained: Any, imported: Any) -> None:
    made = trained(**CASES[case])
    run = load_run(imported(made))
    for seconds in (0.4, 1.0, 3.7):
        waveform = 0.1 * torch.randn(int(16000 * seconds), generator=torch.Generator().manual_seed(7))
        found = run.predict(waveform, sampling_rate=16_000)
        assert found.scores is not None
        assert [*found.scores] == ["neu", "hap", "ang", "sad"]
        expected = made.scores(waveform)
        assert max(expected) - min(expected) > 0.02, "a head that answers the same to everything shows nothing"
        assert [*found.scores.values()] == pytest.approx(expected, abs=1e-5)


def test_a_run_says_where_it_comes_from(trained: Any, imported: Any) -> None:
    folder = imported(trained())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["corpus"]["name"], config["corpus"]["protocol"], config["corpus"]["fold"]) == ("iemocap", "superb", 3)
    assert (config["optimizer"]["lr"], config["training"]["batch_size"], config["seed"]) == (3e-4, 32, 1337)
    assert config["upstream"]["padding"] == "s3prl"
    result = json.loads((folder / "result.json").read_text())
    assert (result["best_step"], result["scores"], result["imported"]["file"]) == (12000, {}, "dev-best.ckpt")
    assert "trained by s3prl" in result["notes"][0]


def test_a_session_that_a_run_was_trained_on_is_no_test(trained: Any, imported: Any) -> None:
    folder = imported(trained())
    rows = {session: [Utterance(f"{session}F_impro01_F000", "x.wav", session=session)] for session in ("Ses03", "Ses01")}
    refuse_trained_on(folder, "iemocap", rows["Ses03"], "test")
    refuse_trained_on(folder, "emodb", rows["Ses01"], "test")
    with pytest.raises(UserError, match="was not trained on, found 1 of 1"):
        refuse_trained_on(folder, "iemocap", rows["Ses01"], "test")


def test_its_layer_weights_are_those_of_s3prls_featurizer(trained: Any, imported: Any) -> None:
    made = trained()
    found = read_layer_weights([imported(made) / "layer_weights.json"])
    assert found.weights["emotion/audio"][0] == pytest.approx(made.featurizer.weights.softmax(dim=0).tolist())
    assert np.isnan(found.norms["emotion/audio"]).all(), "nobody has heard them here"


def test_a_finetuned_run_needs_its_start_no_more(trained: Any, imported: Any) -> None:
    made = trained(upstream_trainable=True)
    folder = imported(made)
    made.file.unlink()
    assert load_run(folder).predict(torch.ones(8000), sampling_rate=16_000).label in {"neu", "hap", "ang", "sad"}


def test_a_run_predicts_by_the_command(trained: Any, imported: Any, tones: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = imported(trained())
    capsys.readouterr()
    assert dispatch(["predict", str(folder), str(tones.parent / "00.wav"), "--device", "cpu"]) == 0
    assert "00.wav" in capsys.readouterr().out


@pytest.mark.parametrize("trainable", [False, True])
def test_s3prls_own_code_can_hold_the_upstream(trainable: bool, trained: Any, imported: Any) -> None:
    made = trained(upstream_trainable=trainable)
    run = load_run(imported(made, "-u", "s3prl/hubert_local", "-k", str(made.file)))
    waveform = 0.1 * torch.randn(12000, generator=torch.Generator().manual_seed(7))
    assert [*(run.predict(waveform, sampling_rate=16_000).scores or {}).values()] == pytest.approx(
        made.scores(waveform), abs=1e-5
    )


def test_the_weights_that_a_checkpoint_names_are_those_of_s3prls_own_code_too(trained: Any, imported: Any) -> None:
    made = trained()
    folder = imported(made, "-u", "s3prl/hubert_local")
    assert yaml.safe_load((folder / "config.yaml").read_text())["upstream"]["path"] == str(made.file)


def test_finetuned_weights_of_another_size_are_refused_by_s3prls_own_code_too(
    trained: Any, imported: Any, tmp_path: Path
) -> None:
    made = trained(upstream_trainable=True)
    made.upstream.model.encoder.layers[0].fc1.bias = nn.Parameter(torch.zeros(5))
    with pytest.raises(UserError, match="Expected the finetuned weights of 's3prl/hubert_local'"):
        imported(made, "-u", "s3prl/hubert_local")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("key", ["projector.weight", "model.post_net.linear.bias"])
def test_a_head_of_other_shapes_is_refused(key: str, trained: Any, tmp_path: Path) -> None:
    made = trained()
    file = made.save(tmp_path / "dev-best.ckpt", Downstream={**made.expert.state_dict(), key: torch.zeros(())})
    with pytest.raises(UserError, match=f"found {key} of another shape"):
        dispatch(["import", str(file), str(tmp_path / "runs" / "er")])


def test_other_classes_are_named_in_order(trained: Any, imported: Any) -> None:
    run = load_run(imported(trained(), "--classes", "a,b,c,d"))
    assert [*(run.predict(torch.ones(8000), sampling_rate=16_000).scores or {})] == ["a", "b", "c", "d"]


def with_head(**changes: Any) -> dict[str, Any]:
    """Return a config with another head."""
    return {**CONFIG, "downstream_expert": {"datarc": DATARC, "modelrc": {**MODELRC, **changes}}}


ATTENTIVE = with_head(UtteranceLevel={"pooling": "AttentivePooling"})
DEEP = with_head(UtteranceLevel={"post_net": {"select": "FrameLevel", "FrameLevel": {"hiddens": [8]}}})
FOLD7 = {**CONFIG, "downstream_expert": {"datarc": {**DATARC, "test_fold": "fold7"}, "modelrc": MODELRC}}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {  # flags, content, what is said
    "attention": ({"config": ATTENTIVE}, {}, r"found UtteranceLevel with AttentivePooling and other weights \(model.pooling"),
    "a deeper head": ({"config": DEEP}, {}, r"MeanPooling and other weights \(model.post_net.hiddens"),
    "another fold": ({"config": FOLD7}, {}, "Expected fold1 to fold5 .* found 'fold7'"),
    "another task": ({}, {"Args": Namespace(downstream="voxceleb1")}, "task emotion .* found one of 'voxceleb1'"),
    "no flags": ({}, {"Args": {"downstream": "emotion"}}, "Expected s3prl's Args and Config"),
    "another selection": (
        {},
        {"Args": Namespace(**ARGS | {"upstream": "fbank", "upstream_feature_selection": "paper"})},
        "-s paper",
    ),
    "code of the hub": ({}, {"Args": Namespace(**ARGS | {"upstream": "someone/model", "hub": "huggingface"})}, "code of the hub"),
    "layers of another": ({}, {"Featurizer": {"weights": torch.zeros(13)}}, "Expected weights of 3 layers .* found 13"),
    "no layer weights": ({}, {"Featurizer": {}}, "Expected weights of 3 layers .* found 1"),
    "a featurizer of one's own": ({}, {"Featurizer": {"weights": torch.zeros(3), "bias": torch.zeros(1)}}, "found bias beside"),
    "another upstream": (
        {"upstream": "fbank"},
        {"Args": Namespace(**ARGS | {"upstream": "mfcc"})},
        "take 39 dims, as 'mfcc' has",
    ),
    "another one finetuned": ({}, {"Upstream": {"model.novelty": torch.zeros(3)}}, "a weight 'novelty' that it has no place for"),
    "names that are no words": ({}, {"Downstream": {3: torch.zeros(1)}}, "beside tensors .* found other content"),
    "layer weights that are none": ({}, {"Featurizer": {"weights": 3}}, "beside tensors .* found other content"),
    "finetuned to no tensors": ({}, {"Upstream": {"model.mask_emb": 3}}, "beside tensors .* found other content"),
    "a table of layer weights": ({}, {"Featurizer": {"weights": torch.zeros(3, 1)}}, "found layer weights of another shape"),
    "an unknown layer": ({"upstream_layer_selection": 1}, {"layer": 5}, "Expected one of 3 layers .* found layer 5"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_another_function_is_refused(what: str, trained: Any, tmp_path: Path) -> None:
    flags, changes, message = REFUSED[what]
    made = trained(**flags)
    if "layer" in changes:
        made.args["upstream_layer_selection"] = changes.pop("layer")
    file = made.save(tmp_path / "dev-best.ckpt", **changes)
    with pytest.raises(UserError, match=message):
        dispatch(["import", str(file), str(tmp_path / "runs" / "er")])
    assert not (tmp_path / "runs").exists()


def test_a_wrong_number_of_classes_is_refused(trained: Any, imported: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Expected 4 classes .* found 2 \(yes, no\)"):
        imported(trained(), "--classes", "yes,no")
    assert not (tmp_path / "runs").exists()
