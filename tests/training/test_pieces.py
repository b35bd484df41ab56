"""However a step is cut, its gradient is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from processes import start

SCRIPT = Path(__file__).with_name("gradients.py")


@pytest.fixture(scope="module")
def recipe(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finetuned step without dropout: the hardest case, every weight has a gradient."""
    path = tmp_path_factory.mktemp("pieces") / "recipe.yaml"
    mapping = {
        "task": "emotion",
        "upstream": {"name": "test_hubert", "trainable": True, "dropout": 0.0},
        "corpus": {"data": str(tones)},
        "training": {"batch_size": 8, "piece_overhead": 100.0},  # uncut, unless it is told how
    }
    path.write_text(yaml.safe_dump(mapping))
    return path


def gradient(recipe: Path, out: Path, piece_size: int = 0, processes: int = 1) -> dict:
    """Return what the script computes."""
    start(SCRIPT, recipe, out, str(piece_size), processes=processes).finish()
    return torch.load(out)


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The gradient of the step in one piece."""
    found = gradient(recipe, tmp_path_factory.mktemp("whole") / "g.pt")
    assert found["pieces"] == 1
    return found


@pytest.mark.parametrize(("piece_size", "processes", "pieces"), [(2, 1, 4), (0, 2, 1), (2, 2, 2)])
def test_the_gradient_does_not_depend_on_pieces_or_processes(
    recipe: Path, whole: dict, tmp_path: Path, piece_size: int, processes: int, pieces: int
) -> None:
    cut = gradient(recipe, tmp_path / "g.pt", piece_size, processes)
    assert cut["pieces"] == pieces
    assert cut["gradients"].keys() == whole["gradients"].keys()
    assert any(name.startswith("upstreams.") for name in whole["gradients"])
    for name, expected in whole["gradients"].items():
        scale = expected.abs().max().clamp(min=1e-3)
        assert (cut["gradients"][name] - expected).abs().max() <= 1e-6 * scale + 1e-6, name
