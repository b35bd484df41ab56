"""What is claimed of layers, on layers that know something."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, WhisperModel

import headwater
from headwater.upstream.store.eight_bits import encode

FOLDS = "4,7"
VALID = "upstream.attend=valid"


def part(speech: Path, name: str) -> Path:
    """Return a set, or skip."""
    if not (speech / name).is_dir():
        pytest.skip(f"there is no {name} in {speech}")
    return speech / name


def typed(*words: object) -> str:
    """Return what a command prints."""
    done = subprocess.run([sys.executable, "-m", "headwater", *map(str, words)], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def emotions(whisper: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare command on two speakers of EmoDB: the pretrained model, and the same architecture with random weights."""
    data, work = part(speech, "emodb_full"), tmp_path_factory.mktemp("emotions")
    torch.manual_seed(0)
    from headwater.core.hub import model_folder

    hub = model_folder(str(whisper))
    WhisperModel(AutoConfig.from_pretrained(hub)).save_pretrained(work / "random")
    shutil.copy(hub / "preprocessor_config.json", work / "random")
    for name, model in (("pretrained", whisper), ("drawn", work / "random")):
        command = ["downstream", "-u", model, "-d", "emotion", "--corpus", "emodb", "--data", data, "--folds", FOLDS]
        typed(*command, "-o", VALID, "-p", work / name)
    return work


def test_a_folder_of_ctranslate2_is_an_upstream(whisper: Path) -> None:
    upstream = headwater.load_upstream(str(whisper))
    assert (upstream.spec.num_layers, upstream.spec.dim, upstream.untrained) == (5, 384, False)


def test_what_was_learned_beats_random_weights(emotions: Path) -> None:
    """By 0.155 UA over all ten speakers (.922, .767): an exact head makes much of random layers too. Of two: at least 0.05."""
    found = {
        name: json.loads((emotions / name / "result.json").read_text())["pooled"]["test"]["scores"]["ua"]
        for name in ("pretrained", "drawn")
    }
    assert found["pretrained"] > 0.85
    assert found["pretrained"] - found["drawn"] >= 0.05


def test_the_best_layer_lies_inside(emotions: Path) -> None:
    places = sorted(emotions.glob("pretrained/fold*/layers.json"))
    curves = [json.loads(path.read_text())["roles"]["audio"]["layers"] for path in places]
    means = [sum(layer["scores"]["test"]["ua"] for layer in layers) / len(layers) for layers in zip(*curves, strict=True)]
    assert max(range(len(means)), key=means.__getitem__) in (1, 2, 3)


def test_half_precision_and_the_graph_agree_on_real_activations(
    whisper: Path, emotions: Path, speech: Path, tmp_path: Path
) -> None:
    """Of each layer's largest number, one dimension's above all: bfloat16 within 5 %, float16 within 1 %."""
    upstream, waveform = headwater.load_upstream(str(whisper)), waveform_of(part(speech, "emodb_full"))
    plain = upstream([waveform]).values
    for dtype, tolerance in ((torch.bfloat16, 0.05), (torch.float16, 0.01)):
        with torch.autocast("cpu", dtype):
            half = upstream([waveform]).values
        for one, other in zip(plain, half, strict=True):
            assert float((one - other.float()).abs().max() / one.abs().max()) < tolerance
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    printed = typed("export", emotions / "pretrained" / "fold4", tmp_path / "exported", "--onnx")
    assert float(re.search(r"to ([\d.e-]+) ", printed)[1]) < 1e-4  # type: ignore[index]


def waveform_of(folder: Path) -> torch.Tensor:
    """Return a clip of EmoDB."""
    from headwater.corpus.audio import read_audio

    return torch.as_tensor(read_audio(str(sorted(folder.glob("wav/*.wav"))[0])))


def test_words_of_librispeech_are_recognised(whisper: Path, speech: Path, tmp_path: Path) -> None:
    lines = []
    for path in sorted(part(speech, "LibriSpeech").glob("train-clean-100/*/*/*.trans.txt")):
        for line in path.read_text().splitlines()[2:6]:
            name, text = line.split(" ", 1)
            lines.append((path.with_name(f"{name}.flac"), text, "ab"[len(lines) % 2]))
    with (tmp_path / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("audio", "text", "label"), *lines[:10]])
    printed = typed("corpus", "transcribe", tmp_path / "clips.csv", "--model", whisper)
    assert float(re.search(r"WER ([\d.]+) % in all", printed)[1]) < 8.0  # type: ignore[index]


def test_frames_in_eight_bits_lose_under_a_hundredth_of_each_channels_spread(whisper: Path, speech: Path) -> None:
    """Outlier channels among them: one of the last layer spreads six times as far as the median one."""
    upstream, waveform = headwater.load_upstream(str(whisper)), waveform_of(part(speech, "emodb_full"))
    frames = torch.stack([value[0] for value in upstream([waveform]).values], dim=1).detach()  # (frame, layer, dim)
    spread = frames.std(dim=0)
    assert float((spread.amax(dim=1) / spread.median(dim=1).values).max()) > 5
    _, lost = encode(frames.numpy())
    assert 0.003 < min(lost) < max(lost) < 0.01
