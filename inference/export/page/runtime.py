"""onnxruntime-web, which runs a graph in a browser: one version, two files of it, each checked by its hash."""

from __future__ import annotations

import hashlib
import http.client
import io
import tarfile
import urllib.request
from pathlib import Path

from ....core.errors import UserError
from ....core.files import cache_folder, plain_disk_errors, written_aside

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"  # 33 MB, of which 14 are kept
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
HASHES = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
LICENCE = f"""\
onnxruntime-web {VERSION}, https://github.com/microsoft/onnxruntime

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
_ELSEWHERE = f"`npm pack onnxruntime-web@{VERSION}` on another machine, and --ort onnxruntime-web-{VERSION}.tgz here"
_SECONDS = 60  # without a byte


def runtime_files(place: str | Path | None = None, cache: Path | None = None) -> dict[str, bytes]:
    """Return both files by name: from a tarball or a folder of the user's, else from the cache, else from npm's registry."""
    if place is not None:
        return from_place(Path(place).expanduser())
    folder = (cache or cache_folder()) / f"onnxruntime-web-{VERSION}"
    kept = {name: (folder / name).read_bytes() for name in HASHES if (folder / name).is_file()}
    if all(name in kept and is_ours(name, kept[name]) for name in HASHES):
        return kept
    found = checked(of_tarball(download(), URL), URL)
    with plain_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in found.items():
            with written_aside(folder / name) as aside:
                aside.write_bytes(content)
    return found


def from_place(place: Path) -> dict[str, bytes]:
    """Return the files from `npm pack`'s tarball, from an unpacked one, or from a folder that holds them."""
    if place.is_file():
        return checked(of_tarball(place.read_bytes(), str(place)), str(place))
    for folder in (place, place / "dist", place / "package" / "dist", place / "node_modules" / "onnxruntime-web" / "dist"):
        if all((folder / name).is_file() for name in HASHES):
            return checked({name: (folder / name).read_bytes() for name in HASHES}, str(folder))
    raise UserError(f"Expected onnxruntime-web {VERSION} at '{place}' (--ort), found none. Use {_ELSEWHERE}.")


def of_tarball(content: bytes, place: str) -> dict[str, bytes]:
    """Return the files that an archive holds; nothing of it is written to the disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("package/dist/")
                file = archive.extractfile(member) if name in HASHES else None
                if file is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError) as problem:
        raise UserError(
            f"Expected the archive of onnxruntime-web {VERSION} at '{place}', found: {problem}. Fetch it again."
        ) from None
    return found


def checked(found: dict[str, bytes], place: str) -> dict[str, bytes]:
    """Refuse files that are not those that this version of Headwater was tried with."""
    for name in HASHES:
        if name not in found or not is_ours(name, found[name]):
            other = "another" if name in found else "none"
            raise UserError(f"Expected {name} of onnxruntime-web {VERSION} at '{place}', found {other}. Use {_ELSEWHERE}.")
    return found


def is_ours(name: str, content: bytes) -> bool:
    """Return whether a file has the hash that it should have."""
    return hashlib.sha256(content).hexdigest() == HASHES[name]


def download() -> bytes:
    """Return the archive from npm's registry."""
    try:
        with urllib.request.urlopen(URL, timeout=_SECONDS) as reply:
            return reply.read()
    except (OSError, http.client.HTTPException) as problem:  # an URLError is an OSError
        reason = getattr(problem, "reason", None) or problem
        raise UserError(
            f"Expected onnxruntime-web {VERSION} for --page from {URL}, found no way to it ({reason}). Use {_ELSEWHERE}."
        ) from None
