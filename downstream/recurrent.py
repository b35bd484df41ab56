"""Recurrent heads, exact under padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..upstream.base import Frames


class Recurrent(nn.Module):
    """LSTMs in both directions (or one), dropout behind each: (batch, frame, dim) -> (batch, frame, output_dim)."""

    def __init__(self, input_dim: int, hidden_dim: int, layers: int, dropout: float, *, bidirectional: bool = True) -> None:
        super().__init__()
        sizes = [input_dim, *[(2 if bidirectional else 1) * hidden_dim] * layers]
        self.output_dim = sizes[-1]
        # one by one: cuDNN's own dropout between layers remembers a generator that no step could seed
        self.layers = nn.ModuleList(
            nn.LSTM(size, hidden_dim, batch_first=True, bidirectional=bidirectional) for size in sizes[:-1]
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return both directions' states, zero behind each utterance's end; the way back starts at its last frame."""
        if not len(self.layers):
            return values
        packed = pack_padded_sequence(values, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        for layer in self.layers:
            packed, _ = layer(packed)
            packed = PackedSequence(self.dropout(packed.data), *packed[1:])
        return pad_packed_sequence(packed, batch_first=True, total_length=values.shape[1])[0]


def put_side_by_side(frames: Frames, count: int) -> Frames:
    """Return sequences in which so many frames stand side by side as one; the last one is filled up with zeros."""
    if count == 1:
        return frames
    values = frames.values.masked_fill(~frames.valid.unsqueeze(2), 0)  # what fills up must not depend on the batch
    batch, size, dim = values.shape
    groups = -(-size // count)
    padded = nn.functional.pad(values, (0, 0, 0, groups * count - size))
    return Frames(padded.reshape(batch, groups, count * dim), tuple(-(-length // count) for length in frames.lengths))
