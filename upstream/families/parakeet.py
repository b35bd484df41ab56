"""Parakeet's encoder, a FastConformer: log-mel energies, convolutions to a frame of 80 ms, conformer blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import UserError, first_line
from ..base import UpstreamConfig, UpstreamSpec
from ..exact_padding import mask_if_padded
from ..hub.encoder import Encoder, Pass
from ..hub.family import BLOCK_OPTIONS, HubFamily, Source, Tiny, share
from ..hub.passes import run_blocks
from ..hub.register import register_family

_HOP = 160  # samples from one column of the spectrogram to the next
_SMALLEST = 2 * _HOP  # samples: a deviation needs two columns


class ParakeetEncoder(Encoder):
    """Parakeet's encoder; layer i is the input of block i, the last one the output of the last block, which ends in its norm.

    Batch norms keep the statistics of pretraining, in training too: those of a batch would tie an utterance to its mates.
    """

    family = ("headwater.upstream.families.parakeet", "ParakeetEncoder")

    def __init__(self, model: Any, extractor: Any, *, layerdrop: float = 0.0) -> None:
        super().__init__(model)
        self.extractor, self._layerdrop = extractor, layerdrop
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_size,
            sample_rate=16000,
            num_frames=self._num_frames,
        )

    def train(self, mode: bool = True) -> Self:
        """Switch on what is random in training."""
        super().train(mode)
        for block in self.blocks():
            block.conv.norm.eval()  # type: ignore[union-attr]
        return self

    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers."""
        model = self.model
        columns, seen = self._columns(given.waveforms, given.num_samples)
        hidden = model.subsampling(columns, seen).repeat(given.copies, 1, 1) * model.input_scale  # (batch, frame, dim)
        positions = F.dropout(model.encode_positions(hidden), p=model.dropout_positions, training=self.training)
        hidden = F.dropout(hidden, p=model.dropout, training=self.training)
        valid = mask_if_padded(given.lengths, hidden.shape[1], hidden.device)
        # both ways: its convolutions take from it what is padding
        mask = None if valid is None else (valid.unsqueeze(1) & valid.unsqueeze(2)).unsqueeze(1)
        values = run_blocks(
            self.blocks()[: given.last],
            hidden,
            {"attention_mask": mask, "position_embeddings": positions},
            views=given.copies,
            layerdrop=self._layerdrop if self.training else 0.0,
            recomputes=self.recomputes,
        )
        return [values[index] for index in given.wanted]

    def architecture(self) -> dict[str, Any]:
        """Return the encoder's config, and how its spectrogram is made."""
        return {"model": self.config.to_dict(), "extractor": self.extractor.to_dict()}

    def _num_frames(self, num_samples: int) -> int:
        count = max(num_samples, _SMALLEST) // _HOP
        for _ in range(self.model.subsampling.num_layers):
            count = -(-count // 2)
        return count

    @torch.no_grad()
    def _columns(self, waveforms: Tensor, num_samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the normed spectrogram (batch, column, bin) of each utterance, and which of its columns are valid."""
        device = waveforms.device
        waveforms = F.pad(waveforms, (0, max(_SMALLEST - waveforms.shape[1], 0)))
        rows = [row[: max(length, _SMALLEST)].cpu().numpy() for row, length in zip(waveforms, num_samples, strict=True)]
        with torch.autocast(device.type, enabled=False):
            made = self.extractor(rows, sampling_rate=16000, return_tensors="pt")
        # the column behind an utterance's last whole hop is masked; where it is the batch's last one, it would be a frame
        last = int(made.attention_mask.sum(dim=1).max())
        return made.input_features[:, :last].to(device), made.attention_mask[:, :last].to(device)


def feature_extractor(settings: Any, folder: Path | None, described: dict[str, Any] | None = None) -> Any:
    """Return transformers' log-mel extractor as described, or as the folder says, else with the config's number of bins."""
    from transformers import ParakeetFeatureExtractor

    made: Any
    try:
        if described is not None:
            made = ParakeetFeatureExtractor.from_dict(described)
        elif folder is not None and (folder / "preprocessor_config.json").is_file():
            made = ParakeetFeatureExtractor.from_pretrained(folder, local_files_only=True)
        else:
            made = ParakeetFeatureExtractor(feature_size=settings.num_mel_bins)
        found = made.feature_size, made.hop_length
    except Exception as error:  # a value of another type breaks wherever it is used
        raise UserError(
            f"Expected the preprocessor_config.json of a Parakeet, found one that it refuses: {type(error).__name__}: "
            f"{first_line(error)}. Fetch its folder again."
        ) from None
    if found != (settings.num_mel_bins, _HOP):
        raise UserError(
            f"Expected a spectrogram of {settings.num_mel_bins} bins, a column every {_HOP} samples, found {found[0]} and "
            f"{found[1]}. Fetch its folder again."
        )
    return made


def _wrapped(model: Any, config: UpstreamConfig, source: Source) -> ParakeetEncoder:
    layerdrop = source.trained_layerdrop if config.layerdrop is None else share(config.layerdrop, "layerdrop")
    extractor = feature_extractor(model.config, source.folder, source.described.get("extractor"))
    return ParakeetEncoder(model, extractor, layerdrop=layerdrop)


register_family(
    HubFamily(
        "parakeet_encoder",
        "Parakeet's encoder",
        "parakeet.modeling_parakeet",
        "ParakeetEncoder",
        _wrapped,
        BLOCK_OPTIONS | {"layerdrop"},
        blocks="layers",
        inside={"parakeet_ctc": "encoder_config", "parakeet_rnnt": "encoder_config", "parakeet_tdt": "encoder_config"},
        loaded_with={"key_mapping": {r"^(model\.)?encoder\.": ""}},
        checkpoints={"parakeet_ctc_600m": "nvidia/parakeet-ctc-0.6b", "parakeet_ctc_1b": "nvidia/parakeet-ctc-1.1b"},
        tiny={
            "test_parakeet": Tiny(
                "Parakeet's encoder",
                {
                    "hidden_size": 64,
                    "intermediate_size": 128,
                    "num_hidden_layers": 4,
                    "num_attention_heads": 4,
                    "subsampling_conv_channels": 16,
                    "initializer_range": 0.3,
                },
            )
        },
    )
)
