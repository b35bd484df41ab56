"""A run over http: audio in, json out."""

from __future__ import annotations

import html
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import anyio
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from ... import __version__
from ...core.errors import UserError
from ..predict import predict_item
from .bodies import uploads_of
from .gather import Gathered
from .limits import Door, Limits, Refused
from .replies import LONGEST_WINDOW, SHORTEST_WINDOW, prediction_json, timeline, windows_json
from .uploads import TooLong, Upload, waveform_of

LOG = logging.getLogger("uvicorn.error")
_THREADS = 64  # that read audio and wait for the model
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "Cache-Control": "no-store",
}
_WINDOWS = f"also predict each window of at most so many seconds ({SHORTEST_WINDOW:g} to {LONGEST_WINDOW:g})"
_BODY: dict[str, Any] = {  # for /openapi.json: the body is read here, not by FastAPI, so that its size is limited
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "text": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "of each file, of a run that reads",
                        },
                    },
                }
            },
            "audio/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Service:
    """A run that predicts for many at once."""

    def __init__(self, run: Gathered, facts: Mapping[str, Any], limits: Limits) -> None:
        self.run, self.limits, self.door = run, limits, Door(limits)
        self.info = {**facts, "headwater": __version__, "limits": limits_json(limits), "gathers": run.gatherer.most > 1}
        self.threads = anyio.CapacityLimiter(_THREADS)

    async def reply(self, request: Request, windows: float | None) -> JSONResponse:
        """Return the predictions for all files of a request."""
        with self.door.entered() as visit:
            uploads = await uploads_of(request, self.limits, visit)
            found: list[dict[str, Any]] = [{} for _ in uploads]
            statuses = [200] * len(uploads)

            async def one(place: int) -> None:
                work = partial(self.predict, uploads[place], windows)
                found[place], statuses[place] = await anyio.to_thread.run_sync(work, limiter=self.threads)

            async with anyio.create_task_group() as group:
                for place in range(len(uploads)):
                    group.start_soon(one, place)
        if min(statuses) > 200:  # no file could be predicted
            return error_reply(statuses[0], found[0]["error"])
        return JSONResponse({"predictions": found, "marks": self.info["marks"]}, headers=_HEADERS)

    def predict(self, upload: Upload, windows: float | None) -> tuple[dict[str, Any], int]:
        """Return what is predicted for a file, or what is wrong with it; and the status that it has alone."""
        try:
            self.refuse_text(upload)
            waveform = waveform_of(upload, self.limits.most_seconds)
            shown = prediction_json(predict_item(self.run, waveform, upload.text))
            if windows is not None:
                shown["windows"] = windows_json(timeline(self.run, waveform, windows, upload.text))
            return shown, 200
        except TooLong as problem:
            return {"file": upload.name, "error": str(problem)}, 413
        except UserError as problem:
            return {"file": upload.name, "error": str(problem)}, 422
        except Exception as problem:  # whatever a model raises: its line is for who runs the server, its kind for the client
            LOG.error("error: the model failed: %s: %s", type(problem).__name__, problem)
            wanted = f"Expected a prediction, found a {type(problem).__name__} in the model"
            return {"file": upload.name, "error": f"{wanted}. Report it to whoever runs this server."}, 500

    def refuse_text(self, upload: Upload) -> None:
        """Refuse a file without a text where the run reads one, and one with a text where it does not."""
        if self.run.uses_text and upload.text is None:
            raise UserError(f"Expected a text with {upload.name} for a run that reads, found none. Add -F 'text=what is said'.")
        if upload.text is not None and not self.run.uses_text:
            raise UserError(f"Expected no text with {upload.name} for a run on audio only, found one. Leave it out.")


def app_of(run: Gathered, facts: Mapping[str, Any], limits: Limits) -> FastAPI:
    """Return the application that serves a run."""
    service = Service(run, facts, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        run.gatherer.close()  # what waits is worked off before

    # the pages of FastAPI load their scripts from elsewhere
    app = FastAPI(title="headwater serve", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def front() -> HTMLResponse:
        return HTMLResponse(front_page(service.info), headers=_HEADERS)

    @app.get("/health", summary="Whether the server answers, and how many requests are inside")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok", "waiting": service.door.inside}, headers=_HEADERS)

    @app.get("/info", summary="What the run predicts, what it was made from, and the limits of this server")
    async def info() -> JSONResponse:
        return JSONResponse(service.info, headers=_HEADERS)

    @app.post("/predict", summary="Predict labels and scores of one or several audio files", openapi_extra=_BODY)
    async def predict(request: Request, windows: float | None = Query(None, description=_WINDOWS)) -> JSONResponse:
        if windows is not None and not SHORTEST_WINDOW <= windows <= LONGEST_WINDOW:
            wanted = f"{SHORTEST_WINDOW:g} to {LONGEST_WINDOW:g} (seconds)"
            raise Refused(422, f"Expected windows={wanted}, found {windows:g}. For instance: windows=2")
        return await service.reply(request, windows)

    handle_errors(app)
    return app


def handle_errors(app: FastAPI) -> None:
    """Give every error one line of json; what a client sent is in no log."""

    @app.exception_handler(Refused)
    async def refused(_: Request, problem: Refused) -> JSONResponse:
        return error_reply(problem.status, str(problem), problem.retry_after)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        return error_reply(
            422, f"Expected windows to be a number of seconds, found '{str(first.get('input'))[:80]}'. For instance: windows=2"
        )

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, problem: HTTPException) -> JSONResponse:
        found = f"{request.method} {request.url.path[:80]}"
        return error_reply(problem.status_code, f"Expected POST /predict, GET /info, /health or /openapi.json, found {found}.")


def error_reply(status: int, message: str, retry_after: int | None = None) -> JSONResponse:
    """Return what is wrong as json, in one line."""
    headers = _HEADERS if retry_after is None else {**_HEADERS, "Retry-After": str(retry_after)}
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def limits_json(limits: Limits) -> dict[str, float]:
    """Return the limits that a client has to know."""
    return {
        "most_mb": limits.most_mb,
        "most_seconds": limits.most_seconds,
        "most_files": limits.most_files,
        "most_waiting": limits.most_waiting,
    }


def front_page(info: Mapping[str, Any]) -> str:
    """Return a page with a form and the facts."""
    shown = {
        "title": f"{info['run']}: {info['task']}",
        "marks": "".join(f"<p class=mark>{html.escape(mark)}: not a result to quote</p>" for mark in info["marks"]),
        "rows": "".join(
            f"<tr><th>{html.escape(key)}<td>{html.escape(', '.join(map(str, value)) if isinstance(value, list) else str(value))}"
            for key, value in info.items()
            if key not in ("marks", "limits", "licence", "gathers", "reads_text") and value not in ([], None)
        ),
        "text": '<label>what is said <input name="text"></label>' if info["reads_text"] else "",
        "licence": html.escape(info["licence"]),
        "limits": html.escape("{most_mb:g} MB, {most_seconds:g} s a file, {most_files} files".format(**info["limits"])),
    }
    page = Path(__file__).with_name("front.html").read_text(encoding="utf-8")
    return Template(page).substitute({**shown, "title": html.escape(shown["title"])})
