"""Text models, whose frames are tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...corpus.batch import Batch
from ..base import Layers, Upstream, UpstreamConfig, UpstreamSpec, named_layers, run_block
from ..exact_padding import mask_if_padded
from .family import BLOCK_OPTIONS, Source
from .tokenizer import encoded, plain_tokenizer, refuse_number

TEXT_OPTIONS = BLOCK_OPTIONS
BlockInputs = Callable[[int], dict[str, Any]]  # number of a block -> what it is given beside its input


@dataclass(frozen=True)
class TextFamily:
    """What stands around the blocks of a text model."""

    # model, tokens (batch, token), their positions, mask (batch, 1, 1, token) or None -> input of block 1, inputs of each block
    begin: Callable[[Any, Tensor, Tensor, Tensor | None], tuple[Tensor, BlockInputs]]
    # model, number of a block, its input, what it returned, mask -> the next one's input
    take: Callable[[Any, int, Tensor, Any, Tensor | None], Tensor] = lambda _, __, ___, returned, ____: returned
    end: Callable[[Any, Tensor], Tensor] = lambda _, hidden: hidden  # model, last block's output -> the model's output
    blocks: str = "encoder.layer"
    causal: bool = False  # nothing attends to what comes later
    positions_behind_padding: bool = False  # they are counted from behind the padding's number

    def wrapped(self, model: Any, config: UpstreamConfig, source: Source) -> TextEncoder:  # noqa: ARG002
        """Return a transformers model as an upstream."""
        return TextEncoder(model, source.described["tokenizer"], self)


class TextEncoder(Upstream):
    """A transformers text model; layer i is the input of block i, the last one the model's output.

    Every token is a frame, those that the tokenizer adds ([CLS], [SEP]) among them; longer texts are cut to `max_tokens`.
    An empty text is what the tokenizer makes of it; GPT-2's makes nothing, and it gets the one token that starts a text.
    """

    family = ("headwater.upstream.text", "TextEncoder")

    model: Any  # transformers' model

    def __init__(self, model: Any, tokenizer: str, around: TextFamily) -> None:
        super().__init__()
        self.model, self._around = model, around
        self.config: Any = model.config
        self.tokenizer = plain_tokenizer(tokenizer)
        self.tokenizer_hash = hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()
        self.recomputes = False
        self.first_position = self.config.pad_token_id + 1 if around.positions_behind_padding else 0
        self.max_tokens = self.config.max_position_embeddings - self.first_position
        self.added_tokens = self.tokenizer.num_special_tokens_to_add(False)
        self.causal = around.causal or getattr(self.config, "is_decoder", False)
        self.spec = UpstreamSpec(
            modality="text",
            num_layers=len(self.blocks()) + 1,
            dim=self.config.hidden_size,
            sample_rate=0,
            num_frames=no_samples,
        )

    def forward(
        self,
        batch: Batch | Sequence[Tensor | np.ndarray | str],
        *,
        views: int = 1,
        masked: Tensor | None = None,  # noqa: ARG002 (refused where there is no mask embedding)
        layers: Sequence[int] | None = None,
    ) -> Layers:
        """Return the layers of each utterance's text."""
        wanted = named_layers(layers, self.spec.num_layers)
        device = next(self.parameters()).device
        rows = [torch.tensor(self._tokens(text)) for text in texts_of(batch)]
        copies = views if self.training else 1
        lengths = tuple(len(row) for row in rows) * copies
        # (batch, token); what stands behind an end is never attended to
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.config.pad_token_id or 0).to(device)
        values = self._encode(tokens.repeat(copies, 1), lengths, last=max(wanted))
        return Layers([values[index] for index in wanted], lengths)

    def num_tokens(self, text: str) -> int:
        """Return the tokens of a text; where they are more than `max_tokens`, the text is cut."""
        return max(len(encoded(self.tokenizer, text, self.name)) + self.added_tokens, 1)

    def architecture(self) -> dict[str, Any]:
        """Return the model's config and its tokenizer."""
        return {"model": self.config.to_dict(), "tokenizer": self.tokenizer.to_str()}

    def blocks(self) -> list[nn.Module]:
        """Return the transformer blocks in order."""
        return list(self.model.get_submodule(self._around.blocks))

    def recompute_blocks(self) -> None:
        """From now on keep nothing inside a block in training: the backward pass runs it again."""
        self.recomputes = True

    def weights_hash(self) -> str:
        """Return a hash of every weight and of the tokenizer: the same weights under other numbers read something else."""
        return hashlib.sha256(f"{super().weights_hash()} {self.tokenizer_hash}".encode()).hexdigest()

    def _tokens(self, text: str) -> list[int]:
        encoding = encoded(self.tokenizer, text, self.name)
        encoding.truncate(self.max_tokens - self.added_tokens)
        numbers = self.tokenizer.post_process(encoding).ids or [self.config.bos_token_id or 0]
        refuse_number(max(numbers), self.config.vocab_size, self.name)
        return numbers

    def _encode(self, tokens: Tensor, lengths: Sequence[int], *, last: int) -> list[Tensor]:
        """Return the layers up to the last one named, running no block behind it."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0) + self.first_position
        mask = None
        if not self.causal:  # nothing that precedes an end attends behind it
            valid = mask_if_padded(lengths, tokens.shape[1], tokens.device)
            mask = None if valid is None else valid[:, None, None, :]  # broadcasts over (batch, head, query, key)
        hidden, inputs = self._around.begin(self.model, tokens, positions, mask)
        values = [hidden]  # each (batch, token, dim)
        for number, block in enumerate(self.blocks()[:last]):
            returned = run_block(block, hidden, self.recomputes, **inputs(number))
            hidden = self._around.take(self.model, number, hidden, returned, mask)
            values.append(hidden)
        if len(values) == self.spec.num_layers:
            values[-1] = self._around.end(self.model, values[-1])
        return values


def texts_of(batch: Batch | Sequence[Tensor | np.ndarray | str]) -> tuple[str, ...]:
    """Return the texts of a batch, or of a list of them."""
    if isinstance(batch, Batch):
        texts = tuple(text for text in batch.texts if text is not None)
        assert len(texts) == len(batch), f"{len(batch) - len(texts)} of {len(batch)} utterances without a transcript came through"
        return texts
    if isinstance(batch, str):
        raise ValueError(f"Expected a list of texts, found the text '{batch[:40]}'. Put it into a list.")
    if not batch:
        raise ValueError("Expected at least one text, found an empty list.")
    for index, text in enumerate(batch):
        if not isinstance(text, str):
            raise ValueError(f"Expected texts, found a {type(text).__name__} at position {index}. Give a list of str.")
    return tuple(str(text) for text in batch)


def no_samples(num_samples: int) -> int:
    """Refuse to compute a text's frames from the samples of its audio."""
    raise ValueError(f"Expected a text, whose frames are its tokens, found {num_samples} samples. Ask `num_tokens(text)`.")
