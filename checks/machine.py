"""What this machine has of all that Headwater uses, and what to do about each thing that is missing; it needs no network."""

from __future__ import annotations

import getpass
import importlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import TYPE_CHECKING

# nothing here imports torch: on a broken installation it cannot be imported
from ..core.errors import UserError
from ..core.files import cache_folder, format_bytes
from ..core.hub import WEIGHTS, check_torchaudio, is_hub_id
from ..core.installation import NAME, install_command, is_clone, required
from ..core.process import commit
from ..corpus.base import CORPORA
from ..corpus.load import list_corpora
from ..corpus.locate import config_file, configured, find_root

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from ..upstream.base import Registered


IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml"}
BY_HAND = {"s3prl": "pip install --no-deps s3prl"}  # extras whose own requirements would break this installation
KEPT = ("store", "demo", "transcripts", "converted-1")  # in the cache; whatever else lies there is listed too
UNTOLD = ("test",)  # extras that serve who changes Headwater
BESIDE = ("numpy", "huggingface_hub", "tokenizers")  # what others bring, and break
ADDRESS = re.compile(r"(?<![\w/.~-])((?:(?!file:)[a-z][a-z0-9+.-]*://|(?:[\w-]+\.)+[a-z]{2,}/)\S*)", re.IGNORECASE)
WHEREABOUTS = "--data PATH, HEADWATER_DATA=FOLDER with FOLDER/NAME in it, or a line `data: {NAME: PATH}` in the config file"


@dataclass(frozen=True)
class Finding:
    """One thing, what was found of it, and what to do where that is not enough."""

    name: str
    found: str
    advice: str = ""


def examine(list_upstreams: Callable[[], Sequence[Registered]]) -> dict[str, list[Finding]]:
    """Return what was found, by section; what cannot be looked at becomes a finding.

    `list_upstreams` is `upstream.load.list_upstreams`, which whoever calls imports no sooner than it is called.
    """
    sections: Mapping[str, Callable[[], list[Finding]]] = {
        "versions": versions,
        "extras": extras,
        "device": device,
        "folders": folders,
        "weights": lambda: weights(list_upstreams()),
        "corpora": corpora,
    }
    return {name: [shareable(finding) for finding in attempt(name, look)] for name, look in sections.items()}


def attempt(name: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Return what a look finds; on a broken installation anything may be raised, and becomes a line."""
    try:
        return look()
    except Exception as problem:
        again = f"Install again: {'pip install -e .' if is_clone() else 'pip install --force-reinstall WHEEL'}"
        advice = "Mend what is named above, and run this again" if name != "versions" else again
        return [Finding(name, f"cannot be read: {in_a_line(problem)}", advice)]


def in_a_line(problem: BaseException) -> str:
    """Return what an error says, in one line."""
    message = (str(problem).strip().splitlines() or [""])[0][:200]
    return f"{type(problem).__name__}: {message}" if message else type(problem).__name__


def shareable(finding: Finding) -> Finding:
    """Return a finding that may be shown to anybody: the home folder is ~, and no path names its user."""
    return Finding(finding.name, anonymous(finding.found), anonymous(finding.advice))


def anonymous(text: str) -> str:
    """Return a text without the user's name in its paths, and without the password of an address."""
    home = os.path.expanduser("~")  # a container's user may have neither a home nor a name
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    parts = ADDRESS.split(re.sub(r"(?<=://)[^/\s]*@", "", text))  # an address may hold a password
    for place in range(0, len(parts), 2):  # between the addresses
        if home not in ("/", "~", ""):
            parts[place] = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", parts[place])
        if user:
            parts[place] = re.sub(rf"/{re.escape(user)}(?![\w.-])", "/USER", parts[place])
    return "".join(parts)


def versions() -> list[Finding]:
    """Return the versions of Headwater, Python and the core's packages, and whether each can be imported."""
    machine = f"{platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}"
    found = [Finding(NAME, installed(NAME)), *attempt("commit", made_from), Finding("python", machine)]
    found += [core(wanted) for wanted in required(NAME)]
    return found + [Finding(name, installed(name) or "missing") for name in BESIDE] + attempt("torchaudio", torchaudio)


def made_from() -> list[Finding]:
    """Return the commit of the clone that this code runs from, where it is one."""
    found = commit()
    return [Finding("commit", found[:12])] if found else []


def core(wanted: Requirement) -> Finding:
    """Return the version of a package that nothing here works without."""
    there, again = installed(wanted.name), f"pip install '{wanted.name}{wanted.specifier}'"
    if not there:
        return Finding(wanted.name, "missing", again)
    if not wanted.specifier.contains(there, prereleases=True):
        return Finding(wanted.name, f"{there}, which is not {wanted.specifier}", again)
    try:
        importlib.import_module(IMPORTED_AS.get(wanted.name.lower(), wanted.name.replace("-", "_")))
    except Exception as problem:  # a library of another version may raise whatever it likes
        return Finding(wanted.name, f"{there}, which cannot be imported: {in_a_line(problem)}", f"{again} --force-reinstall")
    return Finding(wanted.name, there)


def torchaudio() -> list[Finding]:
    """Return a torchaudio that stands in the way of transformers' models; nothing where there is none."""
    there = installed("torchaudio")
    try:
        check_torchaudio()
    except UserError as problem:
        return [Finding("torchaudio", f"{there}: {problem}", "pip uninstall torchaudio")]
    return [Finding("torchaudio", f"{there}, not needed")] if there else []


def installed(name: str) -> str:
    """Return the version of a distribution, or nothing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def extras() -> list[Finding]:
    """Return which optional packages are here."""
    always, found = {*map(str, required(NAME))}, []
    for extra in sorted({*metadata(NAME).get_all("Provides-Extra", [])} - {*UNTOLD}):
        own = [wanted for wanted in required(NAME, [extra]) if str(wanted) not in always]
        nested = [more for wanted in own if installed(wanted.name) for more in required(wanted.name, [*wanted.extras])]
        names = list(dict.fromkeys(wanted.name for wanted in own))
        missing = [name for name in dict.fromkeys(wanted.name for wanted in (*own, *nested)) if not installed(name)]
        here = ", ".join(f"{name} {installed(name)}" for name in names if installed(name))
        lacks = f"without {', '.join(missing)}" if here else f"not installed ({', '.join(missing)})"
        advice = (BY_HAND.get(extra) or install_command(extra)) if missing else ""
        if extra in BY_HAND and here:  # what it lacks is left out on purpose
            lacks, advice = "", ""
        found.append(Finding(extra, " ".join(part for part in (here, lacks if missing else "") if part), advice))
    return found


def device() -> list[Finding]:
    """Return what computes."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = [
        Finding("cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch, {format_bytes(memory)} of memory")
    ]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            bf16 = ", bf16" if torch.cuda.is_bf16_supported() else ""
            found.append(
                Finding(f"cuda:{number}", f"{card.name}, {format_bytes(card.total_memory)}, CUDA {torch.version.cuda}{bf16}")
            )
        return found
    if torch.backends.mps.is_available():
        return [*found, Finding("mps", "a Mac's GPU: add --device mps (float32; solver=adam)")]
    if torch.version.cuda is None:
        return [*found, Finding("cuda", "none: this torch is built for the CPU")]
    advice = "Look at `nvidia-smi`: the driver may be older than this torch needs"
    return [*found, Finding("cuda", f"none found, though torch is built for CUDA {torch.version.cuda}", advice)]


def folders() -> list[Finding]:
    """Return where weights, features and miniatures are kept, how large they are, and the room that is left."""
    hub = attempt("hub", lambda: [described("hub", hub_cache(), "HF_HOME")])
    config = config_file()
    finding = Finding("config", f"{config}{'' if os.path.isfile(config) else ' (none: it is optional)'}")
    return [*hub, *attempt("cache", cached), finding]


def hub_cache() -> Path:
    """Return where the hub's library keeps what it has fetched."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def cached() -> list[Finding]:
    """Return the folder of what can be made again, and those in it."""
    try:
        cache = cache_folder()
    except UserError as problem:
        message, _, advice = str(problem).partition(". ")
        return [Finding("cache", message, advice.rstrip("."))]
    whole = described("cache", cache, "HEADWATER_CACHE")
    if whole.advice:
        return [whole]
    there = {path.name for path in cache.iterdir() if path.is_dir()} if cache.is_dir() else set()
    names = [*KEPT, *sorted(there - {*KEPT})]
    return [whole, *(described(f"  {name}", cache / name, "HEADWATER_CACHE") for name in names)]


def described(name: str, folder: Path, variable: str) -> Finding:
    """Return a folder with its size and the free disk around it; a variable chooses another where it is of no use."""
    advice = f"Choose a folder that you can write to, for what is not there yet: {variable}=FOLDER"
    try:
        around = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not around.is_dir():
            return Finding(name, f"{folder}: {'' if around == folder else f'{around} is '}a file, no folder", advice)
        free = format_bytes(shutil.disk_usage(around).free)
        size = format_bytes(sum(sizes(folder))) if folder.is_dir() else "nothing there"
    except OSError as problem:
        return Finding(name, f"{folder}: cannot be looked into ({problem.strerror})", advice)
    if not os.access(around, os.W_OK | os.X_OK):
        return Finding(name, f"{folder}: {size}, not to be written to", advice)
    return Finding(name, f"{folder}: {size}, {free} free")


def sizes(folder: Path) -> Iterator[int]:
    """Return the sizes of all files below a folder, each once."""
    for place, _, names in os.walk(folder):
        for path in (Path(place) / name for name in names):
            if path.is_file() and not path.is_symlink():
                yield path.stat().st_size


def weights(upstreams: Sequence[Registered]) -> list[Finding]:
    """Return which upstreams of the hub have their weights in its cache."""
    from huggingface_hub import try_to_load_from_cache

    by_id: dict[str, list[str]] = {}
    for row in upstreams:
        if is_hub_id(row.source):
            by_id.setdefault(row.source, []).append(row.name)
    here = [hub_id for hub_id in by_id if any(isinstance(try_to_load_from_cache(hub_id, name), str) for name in WEIGHTS)]
    found = [Finding(", ".join(by_id[hub_id]), hub_id) for hub_id in here]
    left = len(by_id) - len(here)
    advice = "They are fetched when first used. Without a network: `hf download ID --local-dir DIR` elsewhere, then -k DIR"
    return [*found, *([Finding("not here", f"{left} of {len(by_id)} models of the hub", advice)] if left else [])]


def corpora() -> list[Finding]:
    """Return which corpora are found, and where the others come from."""
    found = [Finding("package", line) for line in CORPORA.broken()]
    try:
        configured()
    except UserError as problem:
        advice = "Mend that file, or remove it: it is optional. No corpus is found before"
        return [*found, Finding("config", str(problem), advice), Finding("where one lies", WHEREABOUTS)]
    for name, reader in list_corpora().items():
        if reader.is_file:  # a table of one's own lies anywhere
            continue
        try:
            found.append(Finding(name, str(find_root(reader))))
        except UserError as problem:
            first, *further = str(problem).splitlines()
            if further:  # it is said nowhere: the message goes on with where to get it
                found.append(Finding(name, "not here", reader.where or reader.description))
            else:
                found.append(Finding(name, f"not found: {first}", "Mend the path that is named there"))
    return [*found, Finding("where one lies", WHEREABOUTS)]
