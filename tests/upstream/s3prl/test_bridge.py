"""The s3prl bridge: s3prl's own code behind our interface, one family imported at a time."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater.commands.common.shell import Parser
from headwater.core.errors import UserError
from headwater.core.options import read_yaml
from headwater.upstream.base import UpstreamConfig
from headwater.upstream.load import load_upstream
from headwater.upstream.s3prl.bridge import find_family
from headwater.upstream.s3prl.torchaudio_stub import TorchaudioNeeded, stand_in_for_torchaudio

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Support for mismatched:UserWarning")
needs_no_torchaudio = pytest.mark.skipif(importlib.util.find_spec("torchaudio") is not None, reason="torchaudio is installed")


@pytest.fixture
def toy_s3prl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package called s3prl with two families, one of which cannot be imported, ahead of any real one."""
    files = {
        "s3prl/__init__.py": "",
        "s3prl/upstream/__init__.py": "",
        "s3prl/upstream/good/__init__.py": "",
        "s3prl/upstream/good/hubconf.py": (
            "import torchaudio.transforms\nfrom torchaudio.compliance.kaldi import fbank\n"
            "from .expert import Expert\n"
            "def good_local(ckpt): return Expert(open(ckpt).read())\n"
            "def good(*args, **kwargs): return Expert('own')\n"
            "def good_mel(): return torchaudio.transforms.MelScale()\n"
            "def good_lost(): raise KeyError('x')\n"
        ),
        "s3prl/upstream/good/expert.py": (
            "import torch\n"
            "class Expert(torch.nn.Module):\n"
            "    def __init__(self, says):\n"
            "        super().__init__()\n"
            "        self.says = says\n"
            "        self.linear = torch.nn.Linear(400, 4)\n"
            "    def get_downsample_rates(self, key): return 160\n"
            "    def forward(self, wavs):\n"
            "        padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)\n"
            "        frames = padded.unfold(1, 400, 160)\n"
            "        first = self.linear(frames) + padded.mean()\n"
            "        return {'hidden_states': [first, first * 2]}\n"
        ),
        "s3prl/upstream/bad/__init__.py": "raise RuntimeError('this family must not be imported')\n",
        "s3prl/upstream/bad/hubconf.py": "def bad(): pass\n",
        "s3prl/upstream/lost/__init__.py": "",
        "s3prl/upstream/lost/hubconf.py": "import a_package_of_nobody.inner\ndef lost(): pass\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in [name for name in sys.modules if name.split(".")[0] == "s3prl"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "s3prl"]:
        del sys.modules[name]


@pytest.mark.usefixtures("toy_s3prl")
def test_only_the_family_requested_is_imported() -> None:
    upstream = load_upstream("s3prl/good")
    assert upstream.spec.num_layers == 2
    assert upstream.spec.dim == 4
    assert "s3prl.upstream.bad" not in sys.modules
    assert "torchaudio" not in sys.modules or importlib.util.find_spec("torchaudio") is not None


@pytest.mark.usefixtures("toy_s3prl")
def test_utterances_run_one_at_a_time_unless_padding_is_s3prls(speechlike: Any, difference: Any) -> None:
    exact, padded = load_upstream("s3prl/good"), load_upstream(UpstreamConfig(name="s3prl/good", padding="s3prl"))
    padded.load_state_dict(exact.state_dict())
    waveforms = speechlike(9000, 4321, 100)
    with torch.no_grad():
        together, mates = exact(waveforms), padded(waveforms)
        alone = [exact([waveform]) for waveform in waveforms]
    assert together.lengths == tuple(exact.spec.num_frames(len(waveform)) for waveform in waveforms) == (54, 25, 8)
    assert mates.lengths == (54, 27, 10), "round(samples / 160), at most the tensor's frames"
    for row, one in enumerate(alone):
        frames = one.lengths[0]
        assert torch.equal(together.values[1][row, :frames], one.values[1][0])
    assert difference(mates.values[0][1, :25], alone[1].values[0][0]) > 1e-4


@pytest.mark.usefixtures("toy_s3prl")
def test_probing_prints_a_note(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        load_upstream("s3prl/good")
    assert "s3prl/good (family good): probed 2 layers of 4 dims, a frame for every 160 samples" in caplog.text


def test_weights_go_to_entries_that_take_them(toy_s3prl: Path) -> None:
    file = toy_s3prl / "weights.txt"
    file.write_text("mine", encoding="utf-8")
    upstream = load_upstream(UpstreamConfig(name="s3prl/good_local", path=str(file)))
    assert upstream.model.says == "mine"  # type: ignore[union-attr]
    assert str(file) in upstream.source
    with pytest.raises(UserError, match=r"'s3prl/good', which loads its own\. Leave out -k, or name s3prl/good_local"):
        load_upstream(UpstreamConfig(name="s3prl/good", path=str(file)))
    with pytest.raises(UserError, match=r"Expected a checkpoint file of s3prl at 'nowhere\.pt'"):
        load_upstream(UpstreamConfig(name="s3prl/good_local", path="nowhere.pt"))


def test_weights_that_only_a_recipe_names_are_not_read(toy_s3prl: Path, tmp_path: Path) -> None:
    # s3prl's loaders execute what a checkpoint holds
    file = toy_s3prl / "named.txt"
    file.write_text("mine", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: emotion\nupstream: {{name: s3prl/good_local, path: {file}}}\n", encoding="utf-8")
    config = UpstreamConfig(**read_yaml(recipe)["upstream"])
    with pytest.raises(UserError, match=r"found it in a config or recipe only\. If you trust it, add -k .*named\.txt"):
        load_upstream(config)
    parser = Parser("headwater downstream", "", "")
    parser.add_argument("-k", "--upstream_ckpt")
    parser.parse_args(["-k", str(file)])
    assert load_upstream(config).model.says == "mine"  # type: ignore[union-attr]


@needs_no_torchaudio
@pytest.mark.usefixtures("toy_s3prl")
def test_what_needs_torchaudio_names_family_cause_and_cure() -> None:
    with pytest.raises(UserError, match=r"s3prl's 'good' .* uses torchaudio\.transforms\.MelScale.*`pip install torchaudio`"):
        load_upstream("s3prl/good_mel")


@pytest.mark.usefixtures("toy_s3prl")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("goood", r"found 's3prl/goood'\. Did you mean 'good'\?"),
        ("bad", r"s3prl's 'bad' to work, found: RuntimeError: this family must not be imported"),
        (
            "lost",
            r"s3prl's 'lost' to work, found: no module 'a_package_of_nobody'\. Mend it with `pip install a_package_of_nobody`",
        ),
        ("good_lost", r"s3prl's 'good' to work, found: KeyError: 'x'"),
    ],
)
def test_each_failure_names_its_cause(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_upstream(f"s3prl/{name}")


def test_without_s3prl_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match="`pip install --no-deps s3prl`"):
        find_family("hubert")


@needs_no_torchaudio
def test_the_stand_in_can_be_named_and_inherited_but_not_called() -> None:
    with stand_in_for_torchaudio():
        import torchaudio
        from torchaudio.compliance.kaldi import fbank

        class Mine(torchaudio.transforms.MelSpectrogram):
            pass

    for use in (fbank, Mine, torchaudio.set_audio_backend, torchaudio.functional.resample):
        with pytest.raises(TorchaudioNeeded, match=r"it uses .*, and torchaudio is missing or cannot load"):
            use(1)
    assert "torchaudio" not in sys.modules
    assert importlib.util.find_spec("torchaudio") is None


@pytest.mark.usefixtures("s3prl")
def test_the_family_of_a_name_is_found_in_the_files_text() -> None:
    assert find_family("hubert") == "hubert"
    assert find_family("wav2vec2_local") == "wav2vec2", "vq_wav2vec defines it too"
    assert find_family("vq_wav2vec") == "vq_wav2vec"
    assert find_family("fbank") == "baseline"


@pytest.mark.usefixtures("s3prl")
def test_s3prls_example_upstream_runs_for_real(speechlike: Any) -> None:
    upstream = load_upstream("s3prl/customized_upstream")
    layers = upstream(speechlike(4000, 3000))
    assert upstream.spec.num_layers == len(layers.values) == 2
    assert layers.lengths == (4000, 3000)


@needs_no_torchaudio
@pytest.mark.usefixtures("s3prl")
def test_s3prls_own_fbank_needs_torchaudio_for_real() -> None:
    with pytest.raises(UserError, match=r"s3prl's 'baseline' .* torchaudio\.transforms\.ComputeDeltas"):
        load_upstream("s3prl/fbank")
