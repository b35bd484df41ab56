"""Checkpoints: where a model's files come from, and loading them so that no layer is random."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .ctranslate2 import converted, is_ctranslate2
from .errors import UserError, first_line
from .files import NO_FILE, obstacle

_DESCRIPTION = ["config.json", "preprocessor_config.json"]
_SAFE = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_PICKLED = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]  # read with weights_only
_TOKENIZER = [
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("spm.model", "sentencepiece.bpe.model"),
]
# what to do without a network, for an audio model and for a text model
_AUDIO_HINT = "bring DIR here and add `-k DIR`. What works now: `--demo -u fbank` or `--demo -u test_hubert`."
_TEXT_HINT = "bring DIR here and give `--text-upstream DIR`. What works now: `--text-upstream hashed_words`, or `test_bert`."
WEIGHTS = tuple(f"{stem}{index}" for stem in ("model.safetensors", "pytorch_model.bin") for index in ("", ".index.json"))
_SECONDS = 4  # that the hub has to answer
_ALIGNED = 64  # bytes, as torch lays its own tensors


def check_torchaudio() -> None:
    """Raise a UserError where a torchaudio is installed that cannot load: transformers' models would not import."""
    if importlib.util.find_spec("torchaudio") is None:
        return
    try:
        importlib.import_module("torchaudio")
    except (OSError, ImportError, RuntimeError, AttributeError) as error:
        try:
            version = importlib.metadata.version("torchaudio")
        except importlib.metadata.PackageNotFoundError:
            version = "of unknown version"
        import torch

        raise UserError(
            f"Expected a torchaudio that matches torch {torch.__version__} (or none: Headwater needs none), found torchaudio "
            f"{version}, which cannot load ({first_line(error)}). Run `pip uninstall torchaudio`."
        ) from error


def model_folder(what: str, *, on_hub: bool = True, is_text: bool = False) -> Path:
    """Return the folder with config.json and weights of a local folder or (on_hub) a hub id, fetched where it must be.

    `is_text`: it is a text model, as far as one knows.
    """
    local = Path(what).expanduser()
    if local.is_dir():
        if is_ctranslate2(local):
            return converted(local)
        if not (local / "config.json").is_file():
            raise UserError(
                f"Expected config.json and weights in '{what}', found no config.json. Give a folder in the hub's format."
            )
        return local
    if not on_hub or not is_hub_id(what):
        raise UserError(f"Expected a folder with config.json and weights at '{what}', found nothing there. Check the path.")
    advice = _TEXT_HINT if is_text else _AUDIO_HINT
    cached = snapshot(what, _DESCRIPTION + _SAFE + _PICKLED)
    if cached is not None and _is_whole(cached):
        return cached
    folder = snapshot(what, _DESCRIPTION + _SAFE, advice)
    if folder is not None and not _is_whole(folder):  # an older checkpoint has no safetensors
        folder = snapshot(what, _DESCRIPTION + _PICKLED, advice)
    if folder is None or not _is_whole(folder):  # without a network the hub's library returns what the cache has of it
        raise UserError(_not_found(what, "what is there is not a whole config.json with weights of transformers", advice))
    return folder


def fetched(what: str, patterns: Sequence[str]) -> Path:
    """Return the folder with a hub id's files of some patterns, fetched where the cache has not all of them."""
    cached = snapshot(what, [*patterns])
    if cached is not None and all(any(cached.glob(pattern)) for pattern in patterns):
        return cached
    folder = snapshot(what, [*patterns], _AUDIO_HINT)
    if folder is None or not all(any(folder.glob(pattern)) for pattern in patterns):
        raise UserError(_not_found(what, f"what is there lacks some of {', '.join(patterns)}", _AUDIO_HINT))
    return folder


def fetch_tokenizer(what: str) -> Path | None:
    """Return the folder of a hub id's tokenizer, fetched where it must be; None where it is a local folder."""
    if Path(what).expanduser().is_dir() or not is_hub_id(what):
        return None
    cached = snapshot(what, _TOKENIZER)
    if cached is not None and any((cached / name).is_file() for name in _TOKENIZER):
        return cached
    return snapshot(what, _TOKENIZER, _TEXT_HINT)


def is_hub_id(what: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", what)) and not what.startswith((".", "/", "~"))


def _is_whole(folder: Path) -> bool:
    """Tell whether a folder has a config and every file of its weights."""
    weights = [folder / "model.safetensors", folder / "pytorch_model.bin"]
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            try:
                shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
                whole = all((folder / shard).is_file() for shard in shards)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                whole = False
            weights += [index] if whole else []
    return (folder / "config.json").is_file() and any(path.is_file() for path in weights)


def snapshot(hub_id: str, patterns: list[str], advice: str | None = None) -> Path | None:
    """Return the folder of a hub id's files; without an advice only the cache is searched, and may have none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, local_files_only=advice is None, etag_timeout=_SECONDS))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise UserError(
            f"Expected a public model '{hub_id}' on the hub, found {type(error).__name__}. Check the id, or run `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if advice is None:
            return None
        raise UserError(_not_found(hub_id, first_line(error.__cause__ or error), advice)) from error


def _not_found(hub_id: str, cause: str, advice: str) -> str:
    from huggingface_hub import constants

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return (
        f"Expected the weights of '{hub_id}' in the hub's cache ({constants.HF_HUB_CACHE}) or at {endpoint}, found them in "
        f"neither ({cause}). Where there is a network: `hf download {hub_id} --local-dir DIR`, {advice}"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config.json of a folder."""
    path = folder / "config.json"
    try:
        if obstacle(path) == NO_FILE:
            raise ValueError(NO_FILE)
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} in place of a mapping")
        return content
    except (ValueError, RecursionError) as error:
        raise UserError(f"Expected json in '{path}', found {first_line(error)}. Fetch the file again.") from None


def load_weights(model_class: Any, config: Any, folder: Path, **options: Any) -> Any:
    """Return a transformers model in float32 with every weight from the folder, or say what its files lack."""
    import torch

    try:
        # fork: a weight that the files lack (the mask embedding may) would be drawn from the caller's generator
        with torch.random.fork_rng(devices=[]), quiet():
            model, report = model_class.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they come in the report, and are refused below by name
                **options,
            )
    except Exception as error:  # a config.json of one's own breaks wherever it is used
        # what torch advises then is to run the file's code
        cause = "a pickle with more in it than tensors" if "weights_only" in str(error) else first_line(error)
        raise UserError(
            f"Expected whole weights that fit config.json in '{folder}', found: {cause}. Fetch the folder again."
        ) from error
    _refuse_gaps(report, config, folder)
    if "masked_spec_embed" in report["missing_keys"]:
        torch.nn.init.zeros_(model.masked_spec_embed)  # a bare encoder may lack it; random would differ from load to load
    for weight in (*model.parameters(), *model.buffers()):
        if weight.data_ptr() % _ALIGNED:  # as it lies in the file: sums then round in another order than those of an exported run
            weight.data = weight.data.clone()
    return model


def _refuse_gaps(report: dict[str, Any], config: Any, folder: Path) -> None:
    """Raise a UserError for weights that the model needs and the files lack, or for blocks that config.json hides."""
    missing = sorted(set(report["missing_keys"]) - {"masked_spec_embed"})
    missing = [key for key in missing if not key.startswith("adapter.")]  # behind the encoder: not used here
    mismatched = [str(entry[0]) for entry in report["mismatched_keys"]]
    if missing or mismatched:
        gaps = missing or mismatched
        raise UserError(
            f"Expected weights for every layer of config.json in '{folder}', found {len(gaps)} missing or of another shape "
            f"(the first: {gaps[0]}). Take weights and config.json from the same model."
        )
    blocks = [re.search(r"(?:^|encoder\.|transformer\.)(?:layers?|blocks|h)\.(\d+)\.", key) for key in report["unexpected_keys"]]
    surplus = {int(match.group(1)) for match in blocks if match} - set(range(config.num_hidden_layers))
    if surplus:
        raise UserError(
            f"Expected {config.num_hidden_layers} blocks as config.json says, found weights of {max(surplus) + 1} in '{folder}'. "
            "Mend config.json; to use fewer blocks add `keep_layers=N` to the upstream's options."
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' load report and progress bar off the terminal: gaps are our errors."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
