"""Checkpoints: where a model's files come from, and loading them so that no layer is random."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pickle
import pickletools
import re
import shutil
import warnings
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import UserError

_DESCRIPTION = ["config.json", "preprocessor_config.json"]
_SAFE = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
_PICKLED = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]  # read with weights_only
_TOKENIZER = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"]
# what to do without a network, for a model that listens and for one that reads
_LISTENING = "bring DIR here and add `-k DIR`. What works now: `--demo -u fbank` or `--demo -u test_hubert`."
_READING = "bring DIR here and give `--text-upstream DIR`. What works now: `--text-upstream hashed_words`, or `test_bert`."
_SECONDS = 4  # that the hub has to answer
_BEGINNINGS = (b"PK\x03\x04", b"\x80")  # of what torch.save writes: a zip archive, before torch 1.6 a pickle
_ALIGNED = 64  # bytes, as torch lays its own tensors
_PROTOCOL = 3  # of pickle: torch reads no later one without running code of the file
_PICKLES = 5  # that torch's old form begins with
_OF_FAIRSEQ = "It is fairseq's own format: convert it where fairseq is installed, `python -m s3prl.upstream.hubert.convert FILE`"


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
        raise UserError(
            f"Expected a torchaudio that matches torch {torch.__version__} (or none: Headwater needs none), found torchaudio "
            f"{version}, which cannot load ({first_line(error)}). Run `pip uninstall torchaudio`."
        ) from error


def model_folder(what: str, *, on_hub: bool = True, reads: bool = False) -> Path:
    """Return the folder with config.json and weights of a local folder or (on_hub) a hub id, fetched where it must be.

    `reads`: it is a text model, as far as one knows.
    """
    local = Path(what).expanduser()
    if local.is_dir():
        if not (local / "config.json").is_file():
            raise UserError(
                f"Expected config.json and weights in '{what}', found no config.json. Give a folder in the hub's format."
            )
        return local
    if not on_hub or not is_hub_id(what):
        raise UserError(f"Expected a folder with config.json and weights at '{what}', found nothing there. Check the path.")
    advice = _READING if reads else _LISTENING
    cached = snapshot(what, _DESCRIPTION + _SAFE + _PICKLED)
    if cached is not None and _is_whole(cached):
        return cached
    folder = snapshot(what, _DESCRIPTION + _SAFE, advice)
    if folder is not None and not _is_whole(folder):  # an older checkpoint has no safetensors
        folder = snapshot(what, _DESCRIPTION + _PICKLED, advice)
    if folder is None or not _is_whole(folder):  # without a network the hub's library answers with what the cache has of it
        raise UserError(_not_found(what, "what is there is not a whole config.json with weights of transformers", advice))
    return folder


def fetch_tokenizer(what: str) -> Path | None:
    """Return the folder of a hub id's tokenizer, fetched where it must be; None where it is a local folder."""
    if Path(what).expanduser().is_dir() or not is_hub_id(what):
        return None
    cached = snapshot(what, _TOKENIZER)
    if cached is not None and any((cached / name).is_file() for name in _TOKENIZER):
        return cached
    return snapshot(what, _TOKENIZER, _READING)


def is_hub_id(what: str) -> bool:
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", what)) and not what.startswith((".", "/", "~"))


def _is_whole(folder: Path) -> bool:
    """Tell whether a folder has a config and every file of its weights."""
    weights = [folder / "model.safetensors", folder / "pytorch_model.bin"]
    for index in (folder / "model.safetensors.index.json", folder / "pytorch_model.bin.index.json"):
        if index.is_file():
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if all((folder / shard).is_file() for shard in shards):
                weights.append(index)
    return (folder / "config.json").is_file() and any(path.is_file() for path in weights)


def snapshot(hub_id: str, patterns: list[str], advice: str | None = None) -> Path | None:
    """Return the folder of a hub id's files; without an advice only the cache is asked, and may have none."""
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
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"Expected json in '{folder / 'config.json'}', found {first_line(error)}. Fetch the file again."
        ) from error


def read_torch_file(path: Path) -> Any:
    """Return what torch.save wrote, on the CPU: tensors, plain values, argparse.Namespace; no code of the file ever runs."""
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
    except OSError as error:
        raise UserError(f"Expected a checkpoint file at '{path}', found: {error.strerror}. Check the path.") from None
    if not beginning.startswith(_BEGINNINGS):
        raise UserError(f"Expected a file that torch.save wrote (.pt, .ckpt), found '{path}', which is none. Check the path.")
    refuse_unreadable(path)
    try:
        with torch.serialization.safe_globals([Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickle protocol 3 is read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises whatever it likes; each becomes one line
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is not None:
            raise of_a_class(path, named[1]) from None
        # what torch advises then is to run the file's code
        cause = "torch cannot read it" if "weights_only" in str(error) else first_line(error)
        raise UserError(f"Expected a whole file of torch.save, found '{path}' damaged ({cause}). Fetch it again.") from None


def of_a_class(path: Path, name: str) -> UserError:
    """Return what is said of a file with an object of a class that is not read."""
    advice = _OF_FAIRSEQ if name.startswith(("omegaconf.", "fairseq.")) else "Save tensors alone: nothing else is read"
    return UserError(f"Expected tensors, plain values and argparse.Namespace in '{path}', found the class {name}. {advice}.")


def refuse_unreadable(path: Path) -> None:
    """Raise a UserError for TorchScript and for a late protocol of pickle, of which torch would not say what is in it."""
    protocol, is_script = 0, False
    names: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            pickled: IO[bytes] = stack.enter_context(path.open("rb"))
            if zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                entries = {name.partition("/")[2]: name for name in archive.namelist()}
                is_script = "constants.pkl" in entries
                pickled = stack.enter_context(archive.open(entries["data.pkl"]))
            protocol, names = scan_pickles(pickled)
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError):
        pass  # not whole, or not torch's: told where torch reads it
    if is_script:
        raise UserError(f"Expected weights in '{path}', found TorchScript, which is code. Save its state_dict() with torch.save.")
    if protocol <= _PROTOCOL:
        return
    for name in names:
        if name not in {"argparse.Namespace", "collections.OrderedDict"} and not name.startswith("torch."):
            raise of_a_class(path, name)
    raise UserError(
        f"Expected what torch.save writes by default in '{path}', found pickle protocol {protocol}. Save it again without "
        "pickle_protocol=."
    )


def scan_pickles(pickled: IO[bytes]) -> tuple[int, list[str]]:
    """Return the latest protocol of a file's pickles and the names that they would import; nothing of them runs."""
    protocols: list[int] = [0]
    names: list[str] = []
    with contextlib.suppress(ValueError):  # their end, or the tensors behind them
        for _ in range(_PICKLES):
            codes = list(pickletools.genops(pickled))
            protocols += [int(value or 0) for code, value, _ in codes if code.name == "PROTO"]
            names += imported_names((code.name, value) for code, value, _ in codes)
    return max(protocols), names


def imported_names(codes: Iterable[tuple[str, Any]]) -> list[str]:
    """Return the names that one pickle's codes would import."""
    names, memo, texts = [], [], ["", ""]  # texts: what was put on the stack; STACK_GLOBAL takes the last two
    for code, value in codes:
        if code in {"GLOBAL", "INST"}:
            names.append(value.replace(" ", "."))
        elif code == "STACK_GLOBAL":
            names.append(".".join(texts[-2:]))
        elif code == "MEMOIZE":
            memo.append(texts[-1])
        elif code in {"BINGET", "LONG_BINGET"}:
            texts.append(memo[value] if value < len(memo) else "")
        elif isinstance(value, str):
            texts.append(value)
    return names


def load_weights(model_class: Any, config: Any, folder: Path, **options: Any) -> Any:
    """Return a transformers model in float32 with every weight from the folder, or say what its files lack."""
    import safetensors

    unreadable = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, safetensors.SafetensorError)
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
    except unreadable as error:
        raise UserError(
            f"Expected whole weights that fit config.json in '{folder}', found: {first_line(error)}. Fetch the folder again."
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
    blocks = [re.search(r"(?:^|encoder\.|transformer\.)(?:layers?|h)\.(\d+)\.", key) for key in report["unexpected_keys"]]
    surplus = {int(match.group(1)) for match in blocks if match} - set(range(config.num_hidden_layers))
    if surplus:
        raise UserError(
            f"Expected {config.num_hidden_layers} blocks as config.json says, found weights of {max(surplus) + 1} in '{folder}'. "
            "Mend config.json; to use fewer blocks add `keep_layers=N` to the upstream's options."
        )


@contextlib.contextmanager
def folder_aside(folder: Path, *, fills_empty: bool = False) -> Iterator[Path]:
    """Give a folder to fill; it becomes `folder` when all went well, and is gone otherwise.

    `folder` may not be there yet, or with `fills_empty` is empty.
    """
    from ..training.checkpoint import made, plain_disk_errors

    if os.path.lexists(folder) and not (fills_empty and folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"Expected a folder that is not there yet, found '{folder}'. Choose another name, or remove it.")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with made(folder.parent), plain_disk_errors(folder):
        try:
            aside.mkdir()
            yield aside
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


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


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(". ")
