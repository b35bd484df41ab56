"""The scores of layers that a search has computed, in its folder: a search that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..core.errors import UserError
from ..core.tensors import load_tensors, save_tensors
from .config import SearchConfig
from .features import Recordings
from .scoring import Numbers

# what the scores of trials depend on; the others decide what is made of them
_OPTIONS = ("distance", "minmax", "normalize_frames", "normalize_scores", "min_frames")


@dataclass(frozen=True)
class Memory:
    """A folder of scores, one file for each layer of each split."""

    folder: Path
    config: SearchConfig

    def scores(
        self, split: str, layer: int, queries: Recordings, documents: Recordings, compute: Callable[[], Numbers]
    ) -> Numbers:
        """Return the scores of a split's trials on a layer: those that are kept, or computed and kept."""
        path, identity = self.folder / f"{split}-layer{layer}.safetensors", self._identity(queries, documents)
        if path.is_file():
            tensors, facts = load_tensors(path)
            if facts.get("identity") != identity:
                raise UserError(
                    f"Expected the scores of this search in '{self.folder}', found those of other recordings, options or "
                    "weights. Choose another folder with -n or -p, or remove that one."
                )
            return tensors["scores"].numpy()
        scores = compute()
        save_tensors(path, {"scores": torch.from_numpy(scores)}, {"identity": identity})
        return scores

    def _identity(self, queries: Recordings, documents: Recordings) -> str:
        """Return a hash of all that decides the scores."""
        speakers = [[row.speaker for row in group.utterances] for group in (queries, documents)]
        options = {name: getattr(self.config, name) for name in _OPTIONS}
        space = {name: value for name, value in queries.store.space.described().items() if name != "layers"}
        described = [space, options, queries.keys, documents.keys, speakers]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
