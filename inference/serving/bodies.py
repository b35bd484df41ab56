"""Read the body of a request: files of a form, or one file's bytes, and never more than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from .limits import Limits, Refused, Visit
from .uploads import Upload, plain_name

FORM = "multipart/form-data"
BYTES = ("audio/", "video/", "application/octet-stream", "application/ogg")  # how the content of a file is called
_FIELDS = {"file", "files", "text"}  # of a form
_QUERY = {FORM: {"windows"}, "": {"windows", "name", "text"}}  # of a form, and of the bytes of one file
_DRAINED = 4  # times the limit: so much of a body that is too large is read and dropped, so that the client reads the reply
_EXAMPLE = "For instance: curl -F file=@my.wav"


async def uploads_of(request: Request, limits: Limits, visit: Visit) -> list[Upload]:
    """Return the files that a request brings."""
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    if kind != FORM and not kind.startswith(BYTES):
        wanted = "the bytes of an audio file (-H 'Content-Type: audio/wav') or a form with files"
        raise Refused(415, f"Expected {wanted}, found '{kind[:80]}'. {_EXAMPLE}")
    refuse_query(request, kind)
    body = limited(request, limits, visit)
    if kind == FORM:
        return await files_of_form(request, body, limits)
    content = b"".join([chunk async for chunk in body])
    if not content:
        raise Refused(400, f"Expected audio, found an empty body. {_EXAMPLE}")
    return [Upload(plain_name(request.query_params.get("name")), content, request.query_params.get("text"))]


def refuse_query(request: Request, kind: str) -> None:
    """Refuse what stands behind the `?` and is not used."""
    known = _QUERY.get(kind, _QUERY[""])
    strange = sorted({*request.query_params} - known)
    if strange:
        hint = "It is a field of the form" if strange[0] in _QUERY[""] else "For instance: windows=2"
        wanted = f"Expected {', '.join(sorted(known))} behind the '?' of the address"
        raise Refused(422, f"{wanted}, found '{strange[0][:80]}'. {hint}")


async def limited(request: Request, limits: Limits, visit: Visit) -> AsyncGenerator[bytes, None]:
    """Yield a body as it comes; one that is too large, or that stops coming, is refused."""
    size, stream = 0, aiter(request.stream())
    try:
        while True:
            async with asyncio.timeout(limits.idle_seconds):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            size += len(chunk)
            if size > limits.most_bytes:
                await drain(stream, limits)
                raise Refused(
                    413, f"Expected at most {limits.most_mb:g} MB in a request, found more. Send fewer or shorter files."
                )
            visit.hold(len(chunk))
            yield chunk
    except TimeoutError:
        raise Refused(408, f"Expected the whole body, found a pause of {limits.idle_seconds:g} s in it. Send it again.") from None
    except ClientDisconnect:
        raise Refused(400, "Expected the whole body, found that the client went away.") from None


async def drain(stream: AsyncIterator[bytes], limits: Limits) -> None:
    """Read what is left of a body, up to a limit, and drop it."""
    left = _DRAINED * limits.most_bytes
    async with asyncio.timeout(limits.idle_seconds):
        while left > 0 and (chunk := await anext(stream, None)) is not None:
            left -= len(chunk)


async def files_of_form(request: Request, body: AsyncGenerator[bytes, None], limits: Limits) -> list[Upload]:
    """Return the files of a form, each with the text of its number where the form has texts."""
    parser = MultiPartParser(request.headers, body, max_files=limits.most_files, max_fields=limits.most_files)
    parser.spool_max_size = limits.most_bytes + 1  # in memory: nothing is written to the disk
    try:
        form = await parser.parse()
    except MultiPartException as problem:
        raise Refused(400, f"Expected a form with files, found one that cannot be read ({problem.message}) {_EXAMPLE}") from None
    strange = sorted({name for name, _ in form.multi_items()} - _FIELDS)
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    texts = [value for name, value in form.multi_items() if isinstance(value, str) and name == "text"]
    if strange:
        raise Refused(400, f"Expected fields file and text in the form, found '{strange[0][:80]}'. {_EXAMPLE}")
    if any(name == "text" for name, _ in files) or len(texts) + len(files) < len(form.multi_items()):
        raise Refused(400, f"Expected files in the field file, words in the field text, found the other way round. {_EXAMPLE}")
    if not files:
        raise Refused(400, f"Expected at least one file in the form, found none. {_EXAMPLE}")
    if texts and len(texts) != len(files):
        raise Refused(400, f"Expected a text for each of {len(files)} files, found {len(texts)}. Repeat the field text.")
    spoken: Sequence[str | None] = texts or [None] * len(files)
    contents = [await file.read() for _, file in files]
    await form.close()
    return [
        Upload(plain_name(file.filename), content, text) for (_, file), content, text in zip(files, contents, spoken, strict=True)
    ]
