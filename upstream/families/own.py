"""Models that come with Headwater: their weights lie in the package, so that nothing is fetched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..base import Upstream, UpstreamConfig, register_upstream
from ..hub.family import WAVEFORM_OPTIONS
from ..hub.models import build

WEIGHTS = Path(__file__).parents[1] / "weights"  # a folder of the hub's format for each


@register_upstream(options=sorted(WAVEFORM_OPTIONS))
def hubert_mini(config: UpstreamConfig) -> Upstream:
    """2.2 M weights of HuBERT's architecture, distilled from Whisper base: fast, and small enough to come with Headwater."""
    upstream = build(replace(config, path=str(WEIGHTS / "hubert_mini")), model_type="hubert")
    upstream.source = "built in"
    return upstream
