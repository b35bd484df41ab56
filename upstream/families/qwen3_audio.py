"""The audio encoders of Qwen3-ASR and Qwen3-Omni: log-mel seconds, each convolved alone, and blocks that attend within eight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import UpstreamConfig, UpstreamSpec, run_block
from ..hub.encoder import Encoder, Pass
from ..hub.family import BLOCK_OPTIONS, HubFamily, Source, Tiny
from ..hub.register import register_family

_HOP = 160  # samples from one column of the spectrogram to the next
_TWO_WINDOWS = 400  # samples: the ends are mirrored, which takes more than half a window


class Qwen3AudioEncoder(Encoder):
    """The audio encoder of a Qwen3; layer i is the input of block i, the last one the output after the final norm.

    A second of audio gives 13 frames, the last one too: it is filled up with silence. Dropout acts in front of the first block
    and on attention, the only places that this encoder has for it.
    """

    family = ("headwater.upstream.families.qwen3_audio", "Qwen3AudioEncoder")

    def __init__(self, model: Any, *, smallest: int) -> None:
        super().__init__(model)
        from transformers import Qwen3ASRFeatureExtractor

        self.smallest = smallest
        self.extractor = Qwen3ASRFeatureExtractor(
            feature_size=self.config.num_mel_bins, n_window=self.config.n_window, min_length=smallest
        )
        self._columns = 2 * self.config.n_window  # of a piece that is convolved alone
        for block in self.blocks():
            attention: Any = block.self_attn
            attention.attention_dropout = self.config.attention_dropout  # theirs is 0 whatever the config says
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.d_model,
            sample_rate=16000,
            num_frames=self._num_frames,
        )

    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers; blocks run over the frames of all, one behind another."""
        hidden = self._packed(given.waveforms, given.num_samples).repeat(given.copies, 1)  # (frame, dim)
        hidden = F.dropout(hidden, p=self.model.dropout, training=self.training)
        values = self._encode(hidden, self._ends(given.lengths).to(hidden.device), last=given.last)
        rows = (values[index].split(given.lengths) for index in given.wanted)
        return [nn.utils.rnn.pad_sequence(list(row), batch_first=True) for row in rows]

    def front_end(self) -> list[nn.Module]:
        """Return the convolutions over the log-mel spectrogram, which stay as they are."""
        return [self.model.conv2d1, self.model.conv2d2, self.model.conv2d3]

    def _num_frames(self, num_samples: int) -> int:
        whole, rest = divmod(max(num_samples, self.smallest) // _HOP, self._columns)
        return whole * _halved_thrice(self._columns) + _halved_thrice(rest)

    def _packed(self, waveforms: Tensor, num_samples: Sequence[int]) -> Tensor:
        """Return the input of the first block (frame, dim): the valid frames of every utterance, one behind another."""
        pieces, counts = self._pieces(waveforms, num_samples)
        with torch.no_grad():
            for convolution in self.front_end():
                pieces = F.gelu(convolution(pieces))  # (piece, channel, bin, frame)
        features = torch.cat([piece[:count] for piece, count in zip(pieces.permute(0, 3, 1, 2).flatten(2), counts, strict=True)])
        hidden = self.model.conv_out(features)
        table = self.model.positional_embedding.positional_embedding
        return hidden + torch.cat([table[:count] for count in counts]).to(hidden.dtype)

    def _pieces(self, waveforms: Tensor, num_samples: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return the spectrogram's pieces (piece, 1, bin, column), zeros behind an utterance's end, and the frames of each."""
        size, made, counts = self._columns, [], list[int]()
        for row, length in zip(waveforms, num_samples, strict=True):
            with torch.autocast(row.device.type, enabled=False):  # alone: the loudest column sets what counts as silence
                mels = self.extractor(
                    [row[:length].cpu().numpy()], sampling_rate=16000, padding="longest", return_tensors="pt"
                ).input_features[0]
            made.append(mels.unflatten(1, (-1, size)).transpose(0, 1))  # (piece, bin, column)
            columns = max(length, self.smallest) // _HOP
            counts += [_halved_thrice(min(size, columns - start)) for start in range(0, columns, size)]
        return torch.cat(made).unsqueeze(1).to(waveforms.device), counts

    def _ends(self, lengths: Sequence[int]) -> Tensor:
        """Return where each window of frames that attend to one another begins, and the end of the last."""
        window = _halved_thrice(self._columns) * (self.config.n_window_infer // self._columns)
        sizes = [min(window, length - start) for length in lengths for start in range(0, length, window)]
        return torch.tensor([0, *sizes]).cumsum(0, dtype=torch.int32)

    def _encode(self, hidden: Tensor, ends: Tensor, *, last: int) -> list[Tensor]:
        """Return the layers (frame, dim) up to the last one named, running no block behind it."""
        values = [hidden]
        for block in self.blocks()[:last]:
            (hidden,) = run_block(block, hidden, self.recomputes, cu_seqlens=ends)
            values.append(hidden)
        if len(values) == self.spec.num_layers:
            values[-1] = self.model.ln_post(values[-1])
        return values


def _halved_thrice(count: int) -> int:
    """Return the frames that three convolutions of stride 2 make of so many columns."""
    return -(-count // 8)


def _wrapped(model: Any, config: UpstreamConfig, source: Source, smallest: int) -> Qwen3AudioEncoder:  # noqa: ARG001
    return Qwen3AudioEncoder(model, smallest=smallest)


_TINY = {
    **{"d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 64, "num_mel_bins": 40},
    **{"downsample_hidden_size": 8, "n_window_infer": 200, "output_dim": 16, "initializer_range": 0.1},
}


def _qwen3(model_type: str, title: str, model: str, place: str, prefix: str, smallest: int, names: Mapping[str, str]) -> None:
    """Register the audio encoder inside a Qwen3; its language model is never built."""
    register_family(
        HubFamily(
            f"{model_type}_{'encoder' if model_type == 'qwen3_asr' else 'audio_encoder'}",
            f"{title}'s encoder",
            f"{model_type}.modeling_{model_type}",
            model,
            partial(_wrapped, smallest=smallest),
            BLOCK_OPTIONS,
            blocks="layers",
            inside={model_type: place},
            loaded_with={"key_mapping": {prefix: ""}},
            checkpoints=names,
            tiny={f"test_{model_type.removesuffix('_moe')}": Tiny(f"encoder of {title}", _TINY)},
        )
    )


_qwen3(
    "qwen3_asr",
    "Qwen3-ASR",
    "Qwen3ASREncoder",
    "audio_config",
    r"^(model\.)?audio_tower\.",
    8000,  # samples: it was trained with half a second at least
    {"qwen3_asr": "Qwen/Qwen3-ASR-1.7B-hf", "qwen3_asr_600m": "Qwen/Qwen3-ASR-0.6B-hf"},
)
_qwen3(
    "qwen3_omni_moe",
    "Qwen3-Omni",
    "Qwen3OmniMoeAudioEncoder",
    "thinker_config.audio_config",
    r"^thinker\.audio_tower\.",
    _TWO_WINDOWS,
    {"qwen3_omni": "Qwen/Qwen3-Omni-30B-A3B-Instruct"},
)
