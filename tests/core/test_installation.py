"""The command that installs an extra works where it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.core import installation
from headwater.core.installation import install_command


def test_in_a_clone_the_extra_is_installed_from_there() -> None:
    assert install_command("onnx") == "pip install -e '.[onnx]'"


def test_beside_a_wheel_the_packages_themselves_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No index has a package called headwater."""
    declared = ["torch>=2.4", 'torchjd[cagrad]<0.19,>=0.18; extra == "mtl"', 'onnx>=1.17; extra == "onnx"']
    monkeypatch.setattr(installation, "CLONE", tmp_path)
    monkeypatch.setattr(installation, "requires", lambda _: declared)
    assert install_command("mtl") == "pip install 'torchjd[cagrad]<0.19,>=0.18'"
    assert install_command("onnx") == "pip install 'onnx>=1.17'"
