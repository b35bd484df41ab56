"""The app: a sound comes in, and every run shows what it predicts; nothing goes anywhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import FastAPI, Request, Response

from ....core.errors import UserError
from ..replies import LONGEST_WINDOW, SHORTEST_WINDOW
from ..uploads import Upload, plain_name, waveform_of
from .drawing import STYLE
from .subject import Subject

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: nothing is sent home
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
import gradio

_WINDOW = 2.0  # seconds, at first
# a browser itself keeps the page from any other address
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


def app_of(subjects: Sequence[Subject], most_mb: float, most_seconds: float) -> FastAPI:
    """Return the application that shows some runs."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def stay_here(request: Request, passed_on: Any) -> Response:
        response = await passed_on(request)
        response.headers["Content-Security-Policy"] = _POLICY
        return response

    theme = gradio.themes.Base(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))  # no font of a web
    return gradio.mount_gradio_app(
        app,
        page_of(subjects, most_seconds),
        path="/",
        theme=theme,
        css=STYLE,
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=int(most_mb * 1e6),
    )


def page_of(subjects: Sequence[Subject], most_seconds: float) -> gradio.Blocks:
    """Return the page: a sound, and beside it or below a column for each run."""
    title = "Headwater: " + ", ".join(dict.fromkeys(subject.facts["task"] for subject in subjects))
    with gradio.Blocks(analytics_enabled=False, title=title, delete_cache=(600, 600), fill_width=len(subjects) > 1) as page:
        gradio.Markdown(f"# {escape(title)}")
        with gradio.Row():
            # without its button that shares a sound on a hub
            sound = gradio.Audio(
                sources=["upload", "microphone"], type="filepath", label="a sound", buttons=["download"], elem_id="sound"
            )
            with gradio.Column():
                seconds = gradio.Slider(
                    SHORTEST_WINDOW,
                    LONGEST_WINDOW,
                    _WINDOW,
                    step=0.25,
                    label="seconds of a window of the timeline",
                    elem_id="window",
                )
                text = gradio.Textbox(
                    label="what is said", visible=any(subject.uses_text for subject in subjects), elem_id="text"
                )
        shown, sliders = [], []
        with gradio.Row():
            for place, subject in enumerate(subjects):
                with gradio.Column(min_width=320):
                    shown.append(gradio.HTML(subject.empty(), elem_id=f"run{place}"))
                    sliders.append(slider_of(subject, place))
        gradio.Markdown(f"<small>{escape(subjects[0].facts['licence'])} Sounds stay on this machine.</small>")
        cards = gradio.State([[subject.empty()] * max(1, len(subject.layers)) for subject in subjects])

        def predict(path: str | None, window: float, said: str, *layers: float) -> list[Any]:
            """Return the cards of all layers, and of each run the one that is shown."""
            found = [cards_of(subject, path, window, said, most_seconds) for subject in subjects]
            return [found, *(one[min(int(layer), len(one) - 1)] for one, layer in zip(found, layers, strict=True))]

        for change in (sound.change, seconds.release, text.submit):
            change(predict, [sound, seconds, text, *sliders], [cards, *shown], concurrency_id="model", concurrency_limit=1)
        for place, slider in enumerate(sliders):
            slider.change(chooser(place), [cards, slider], shown[place], show_progress="hidden")
    return page


def slider_of(subject: Subject, place: int) -> gradio.Slider:
    """Return the slider over the layers of a probe; hidden for a single run."""
    most = max(1, len(subject.layers) - 1)
    label = f"layer: 0 to {most - 1}, {most} is their weighted sum"
    return gradio.Slider(0, most, subject.chosen, step=1, label=label, visible=bool(subject.layers), elem_id=f"layer{place}")


def chooser(place: int) -> Any:
    """Return what shows another layer of a run, which is computed already."""

    def choose(cards: list[list[str]], layer: float) -> str:
        return cards[place][min(int(layer), len(cards[place]) - 1)]

    return choose


def cards_of(subject: Subject, path: str | None, window: float, said: str, most_seconds: float) -> list[str]:
    """Return what is shown of a sound; without one, what a run is."""
    if path is None:
        return [subject.empty()] * max(1, len(subject.layers))
    try:
        waveform = waveform_of(Upload(plain_name(path), Path(path).read_bytes()), most_seconds)
    except UserError as problem:
        wrong = f'<p class="hw-wrong">{escape(str(problem))}</p>'
        return [f'<div class="hw-card">{wrong}</div>'] * max(1, len(subject.layers))
    return subject.cards(waveform, window, said or "")


@contextmanager
def private_uploads() -> Iterator[None]:
    """Keep what is uploaded in a folder that is gone when the app ends."""
    with TemporaryDirectory(prefix="headwater-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["GRADIO_TEMP_DIR"]
