"""Whisper's encoder and those of speech LLMs that have its shape: log-mel windows of 30 s, whose valid frames are returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError, first_line
from ..base import UpstreamConfig, UpstreamSpec, run_block
from ..exact_padding import mask_if_padded
from ..hub.encoder import Encoder, Pass
from ..hub.family import BLOCK_OPTIONS, HubFamily, Source, Tiny
from ..hub.passes import join_windows
from ..hub.register import register_family

_SAMPLES_PER_FRAME, _FRAMES_PER_SECOND = 320, 50
Attend = Literal["all", "valid"]
_MOST_BINS = 512  # of a log-mel spectrogram; the largest model has 128


class WhisperEncoder(Encoder):
    """Whisper's encoder; layer i is the input of block i, the last one the output after the final norm.

    Each utterance is padded to 30 s as in training and all positions attend; `attend="valid"` departs from that.
    """

    family = ("headwater.upstream.whisper", "WhisperEncoder")

    def __init__(self, model: Any, extractor: Any, *, attend: Attend = "all") -> None:
        super().__init__(model)
        self.extractor, self.attend = extractor, attend
        self.spec = UpstreamSpec(
            modality="audio",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.d_model,
            sample_rate=extractor.sampling_rate,
            num_frames=frames_of,
        )

    def encode(self, given: Pass) -> list[Tensor]:
        """Return the wanted layers; longer ones go through in windows whose valid frames are joined."""
        windows, counts = self._windows(given.waveforms, given.num_samples)
        valid = [frames_of(len(window)) for window in windows] * given.copies
        values = self._encode(self._features(windows).repeat(given.copies, 1, 1), valid, last=given.last)
        return [join_windows(values[index], valid, counts * given.copies) for index in given.wanted]

    def front_end(self) -> list[nn.Module]:
        """Return the convolutions over the log-mel spectrogram, and the table of positions: both are fixed."""
        return [self.model.conv1, self.model.conv2, self.model.embed_positions]

    def architecture(self) -> dict[str, Any]:
        """Return the encoder's config, how its spectrogram is made, and what attends."""
        return {"model": self.config.to_dict(), "extractor": self.extractor.to_dict(), "heard": {"attend": self.attend}}

    def _windows(self, waveforms: Tensor, lengths: Sequence[int]) -> tuple[list[Tensor], list[int]]:
        """Return the windows of all utterances in order, and the number of each."""
        split = [list(row[:length].split(self.extractor.n_samples)) for row, length in zip(waveforms, lengths, strict=True)]
        return [window for windows in split for window in windows], [len(windows) for windows in split]

    @torch.no_grad()  # the front end stays frozen: this family has no option `front_end`
    def _features(self, windows: Sequence[Tensor]) -> Tensor:
        """Return the convolutions' output (window, frame, dim) of every window: of 30 s, or of what valid frames need."""
        device, extractor = windows[0].device, self.extractor
        # a frame comes from five mel frames around it: of a short clip, most of 30 s is silence that no valid frame depends on
        mel_frames = 2 * max(frames_of(len(window)) for window in windows) + 2
        size = mel_frames * extractor.hop_length + extractor.n_fft  # the last window of samples lies inside, as in 30 s
        if self.attend == "all" or size > extractor.n_samples:
            mel_frames, size = extractor.nb_max_frames, extractor.n_samples
        arrays = [F.pad(window, (0, size - len(window))).cpu().numpy() for window in windows]
        rate = extractor.sampling_rate
        with torch.autocast(device.type, enabled=False):  # transformers cannot take a spectrogram in bf16
            mels = extractor(
                arrays, sampling_rate=rate, padding="longest", return_tensors="pt", device=str(device)
            ).input_features
        hidden = F.gelu(self.model.conv1(mels[:, :, :mel_frames].to(device)))  # (window, dim, mel frame)
        return F.gelu(self.model.conv2(hidden)).transpose(1, 2)

    def _encode(self, features: Tensor, valid: Sequence[int], *, last: int) -> list[Tensor]:
        """Return the layers up to the last one named, running no block behind it."""
        model = self.model
        hidden = features + model.embed_positions.weight.detach()[: features.shape[1]]  # sinusoids: a table, not weights
        mask = None
        if self.attend == "valid":  # what no valid frame attends to need not be computed
            hidden = hidden[:, : max(valid)]
            padded = mask_if_padded(valid, hidden.shape[1], hidden.device)
            mask = None if padded is None else padded[:, None, None, :]
        hidden = F.dropout(hidden, p=model.dropout, training=self.training)
        values = [hidden]
        for block in model.layers[:last]:
            hidden = run_block(block, hidden, self.recomputes, attention_mask=mask)
            values.append(hidden)
        if len(values) == self.spec.num_layers:
            values[-1] = model.layer_norm(values[-1])
        return values


def frames_of(num_samples: int) -> int:
    """Return the frames that hold so many samples; the last one may hold padding too."""
    return -(-num_samples // _SAMPLES_PER_FRAME)


def feature_extractor(settings: Any, folder: Path | None, described: dict[str, Any] | None = None) -> Any:
    """Return transformers' log-mel extractor as described, or as the folder says, else with the config's number of bins."""
    from transformers import WhisperFeatureExtractor

    bins, positions = settings.num_mel_bins, settings.max_source_positions
    if not 0 < bins <= _MOST_BINS:  # before its filters are built
        raise UserError(f"Expected num_mel_bins from 1 to {_MOST_BINS} of a Whisper, found {bins}. Fetch its folder again.")
    made: Any
    try:
        if described is not None:
            made = WhisperFeatureExtractor.from_dict(described)
        elif folder is not None and (folder / "preprocessor_config.json").is_file():
            made = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        else:
            made = WhisperFeatureExtractor(feature_size=bins, chunk_length=positions // _FRAMES_PER_SECOND)
        found = made.feature_size, made.n_samples // made.hop_length // 2
    except Exception as error:  # a value of another type breaks wherever it is used
        raise UserError(
            f"Expected the preprocessor_config.json of a Whisper, found one that it refuses: {type(error).__name__}: "
            f"{first_line(error)}. Fetch its folder again."
        ) from None
    if found != (bins, positions):
        raise UserError(
            f"Expected a spectrogram of {bins} bins and {positions:,} positions, as config.json of the Whisper says, found "
            f"{found[0]} and {found[1]:,}. Fetch its folder again."
        )
    return made


_TINY = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 64,
    "init_std": 0.1,
}


def wrapped(model: Any, config: UpstreamConfig, source: Source, attend: Attend | None = None) -> WhisperEncoder:
    """Return a transformers encoder as an upstream, with the spectrogram that its folder or its run describes."""
    extractor = feature_extractor(model.config, source.folder, source.described.get("extractor"))
    return WhisperEncoder(model, extractor, attend=attend or source.input_options.get("attend", config.attend))


register_family(
    HubFamily(
        "whisper",
        "Whisper's encoder",
        "whisper.modeling_whisper",
        "WhisperEncoder",
        wrapped,
        BLOCK_OPTIONS | {"attend"},
        blocks="layers",
        # a folder holds the whole model: the encoder's weights lose the prefix, the decoder's are passed over
        loaded_with={"key_mapping": {r"^(model\.)?encoder\.": ""}},
        checkpoints={
            "whisper_tiny": "openai/whisper-tiny",
            "whisper_base": "openai/whisper-base",
            "whisper_small": "openai/whisper-small",
            "whisper_medium": "openai/whisper-medium",
            "whisper_large": "openai/whisper-large",
            "whisper_large_v2": "openai/whisper-large-v2",
            "whisper_large_v3": "openai/whisper-large-v3",
            "whisper_large_v3_turbo": "openai/whisper-large-v3-turbo",
        },
        tiny={"test_whisper": Tiny("Whisper's encoder", _TINY)},
    )
)


def _speech_llm(
    model_type: str, title: str, module: str, model: str, checkpoints: Mapping[str, str], *, attend: Attend = "all"
) -> None:
    """Register the encoder inside a speech LLM; its language model is never built.

    Layers have Whisper's rate: where the encoder ends in means over two frames, the last layer is its final norm of each frame.
    """
    sizes = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    register_family(
        HubFamily(
            f"{model_type}_encoder",
            f"{title}'s encoder",
            module,
            model,
            partial(wrapped, attend=attend),
            BLOCK_OPTIONS,
            blocks="layers",
            inside={model_type: "audio_config"},
            loaded_with={"key_mapping": {r"^(model\.)?audio_tower\.": ""}},
            checkpoints=checkpoints,
            # windows of 3 s
            tiny={
                f"test_{model_type}": Tiny(
                    f"encoder of {title}",
                    sizes
                    | {"encoder_layerdrop": 0.0, "dropout": 0.0, "initializer_range": 0.1}
                    | {"max_source_positions": 3 * _FRAMES_PER_SECOND, "num_mel_bins": 80},
                )
            },
        )
    )


_speech_llm(
    "qwen2_audio",
    "Qwen2-Audio",
    "qwen2_audio.modeling_qwen2_audio",
    "Qwen2AudioEncoder",
    {"qwen2_audio": "Qwen/Qwen2-Audio-7B", "qwen2_audio_instruct": "Qwen/Qwen2-Audio-7B-Instruct"},
)
_speech_llm(
    "voxtral",
    "Voxtral",
    "voxtral.modeling_voxtral",
    "VoxtralEncoder",
    {"voxtral_mini": "mistralai/Voxtral-Mini-3B-2507", "voxtral_small": "mistralai/Voxtral-Small-24B-2507"},
)
_speech_llm(
    "audioflamingo3",
    "Audio Flamingo 3",
    "audioflamingo3.modeling_audioflamingo3",
    "AudioFlamingo3Encoder",
    {"audio_flamingo_3": "nvidia/audio-flamingo-3-hf"},
    attend="valid",  # as in its training
)
