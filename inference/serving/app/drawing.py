"""Predictions as html: a label, bars, and scores over time or over layers as a picture of coloured cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ....downstream.answer import Answer
from ....downstream.sd.answer import Spoken
from ...predict import Prediction

MOST_BARS = 12  # of many classes, those of the highest scores
_WIDTH, _ROW, _LEFT, _BOTTOM = 640, 22, 130, 26  # of a picture: pixels
_MOST_TICKS = 9

STYLE = """
.hw-mark { background: #fde9c8; color: #5b3600; border-left: .3rem solid #c77700; padding: .3rem .7rem; margin: .3rem 0 }
.hw-label { font-size: 1.7rem; font-weight: 700; margin: .4rem 0; overflow-wrap: anywhere }
.hw-row { display: grid; grid-template-columns: minmax(5rem, 30%) 1fr 4rem; gap: .6rem; align-items: center; margin: .2rem 0 }
.hw-row span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.hw-track { background: rgba(127, 127, 127, .18); height: 1rem; border-radius: .2rem }
.hw-fill { background: #2b6cb0; height: 100%; border-radius: .2rem }
.hw-best .hw-fill { background: #c2570c }
.hw-best { font-weight: 600 }
.hw-number { text-align: right; font-variant-numeric: tabular-nums }
.hw-picture { width: 100%; height: auto }
.hw-over { margin: .9rem 0 .2rem }
.hw-picture text { font: 12px system-ui, sans-serif; fill: currentColor }
.hw-small, .hw-card h3 { overflow-wrap: anywhere }
.hw-small { opacity: .75; font-size: .85rem }
.hw-wrong { color: #c0262d; font-weight: 600 }
.hw-words td { padding: .1rem .8rem .1rem 0; vertical-align: top }
"""


@dataclass(frozen=True)
class Cell:
    """A column of a picture: a window of time, or a layer."""

    start: float
    end: float
    name: str
    prediction: Prediction


def label_of(prediction: Prediction) -> str:
    """Return what is predicted in words; of ratings nothing, whose scores are the answer."""
    if prediction.error:
        return ""
    label = prediction.label
    return ", ".join(map(str, label)) if isinstance(label, tuple) else "" if label is None else str(label)


def verdict(prediction: Prediction, answer: Answer) -> str:
    """Return the label of a file and its scores as bars, or what is wrong with it."""
    if prediction.error:
        return f'<p class="hw-wrong">{escape(prediction.error)}</p>'
    label = label_of(prediction) or ("(nothing)" if answer.kind == "texts" else "")
    return f'<p class="hw-label">{escape(label)}</p>' + bars(prediction, answer)


def bars(prediction: Prediction, answer: Answer) -> str:
    """Return scores as bars, the highest first where they are many; of an embedding nothing."""
    if not shows_scores(prediction, answer):
        return ""
    low, high = answer.scale_ends or (0.0, 1.0)
    scores = [*(prediction.scores or {}).items()]
    if len(scores) > MOST_BARS:
        scores = sorted(scores, key=lambda pair: -pair[1])[:MOST_BARS]
    best = label_of(prediction)
    return "".join(bar(name, value, (value - low) / (high - low), is_best=name == best) for name, value in scores)


def bar(name: str, value: float, share: float, *, is_best: bool) -> str:
    """Return one bar."""
    width = 100 * min(1.0, max(0.0, share))
    return (
        f'<div class="hw-row{" hw-best" * is_best}"><span title="{escape(name)}">{escape(name)}</span><div class="hw-track">'
        f'<div class="hw-fill" style="width: {width:.1f}%"></div></div><span class="hw-number">{value:.3f}</span></div>'
    )


def shows_scores(prediction: Prediction, answer: Answer) -> bool:
    """Return whether the scores of a run are what somebody can read: those of an embedding are not."""
    return bool(prediction.scores) and answer.exchangeable


def picture(cells: Sequence[Cell], answer: Answer, *, over: str) -> str:
    """Return scores over time or layers: a row for each class, a column for each window or layer, darker where higher."""
    scored = [cell for cell in cells if shows_scores(cell.prediction, answer)]
    if not scored or len(cells) < 2:
        return words(cells)
    scores = [cell.prediction.scores or {} for cell in scored]
    highest = {name: max(own[name] for own in scores) for name in answer.score_names}
    chosen = sorted(highest, key=lambda name: -highest[name])[:MOST_BARS]
    names = [name for name in answer.score_names if name in chosen]
    begin, height = cells[0].start, _ROW * len(names) + _BOTTOM
    scale = (_WIDTH - _LEFT) / (cells[-1].end - begin)
    parts = [
        f'<p class="hw-small hw-over">over {over}</p>',
        f'<svg class="hw-picture" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="scores over {over}">',
    ]
    for row, name in enumerate(names):
        parts.append(f'<text x="{_LEFT - 8}" y="{_ROW * row + 15}" text-anchor="end">{escape(short(name))}</text>')
        for cell in cells:
            left, width = _LEFT + (cell.start - begin) * scale, max(0.5, (cell.end - cell.start) * scale - 0.5)
            where = f'x="{left:.1f}" y="{_ROW * row + 1}" width="{width:.1f}" height="{_ROW - 2}"'
            parts.append(f"<rect {where} {shade(cell, name, answer)}</rect>")
    return "".join([*parts, *ticks(cells, begin, scale, height), "</svg>"])


def shade(cell: Cell, name: str, answer: Answer) -> str:
    """Return the colour of a cell, and what is shown where a mouse rests on it."""
    low, high = answer.scale_ends or (0.0, 1.0)
    value = (cell.prediction.scores or {}).get(name)
    share = 0.0 if value is None else min(1.0, max(0.0, (value - low) / (high - low)))
    words = cell.prediction.error if value is None else f"{name} {value:.3f}"
    colour = "#c2570c" if name == label_of(cell.prediction) else "#2b6cb0"
    return f'fill="{colour}" fill-opacity="{0.06 + 0.94 * share:.3f}"><title>{escape(f"{cell.name}: {words}")}</title>'


def ticks(cells: Sequence[Cell], begin: float, scale: float, height: int) -> list[str]:
    """Return the names below some of the columns."""
    step = -(-len(cells) // _MOST_TICKS)
    places = [(_LEFT + ((cell.start + cell.end) / 2 - begin) * scale, cell.name) for cell in cells[::step]]
    return [f'<text x="{place:.1f}" y="{height - 8}" text-anchor="middle">{escape(name)}</text>' for place, name in places]


def words(cells: Sequence[Cell]) -> str:
    """Return the texts or turns of windows as a table; nothing where there is one."""
    rows = [(cell.name, label_of(cell.prediction)) for cell in cells if not cell.prediction.error]
    if len(cells) < 2 or not any(label for _, label in rows):
        return ""
    return '<table class="hw-words">' + "".join(f"<tr><td>{escape(name)}<td>{escape(label)}" for name, label in rows) + "</table>"


def windows_as_cells(windows: Sequence[Prediction]) -> list[Cell]:
    """Return the windows of a timeline as columns, named by where they begin; one that could not be read keeps its place."""
    ends = [*(found.start for found in windows[1:]), windows[-1].start + (windows[-1].seconds or 1.0)]
    return [Cell(found.start, end, f"{found.start:.1f} s", found) for found, end in zip(windows, ends, strict=True)]


def layers_as_cells(found: dict[str, Prediction]) -> list[Cell]:
    """Return the layers of a probe as columns."""
    return [Cell(place, place + 1.0, name.removeprefix("layer"), one) for place, (name, one) in enumerate(found.items())]


def heading(facts: dict[str, Any]) -> str:
    """Return what a run is: its name, task, upstream, marks."""
    marks = "".join(f'<div class="hw-mark">{escape(mark)}: not a result to quote</div>' for mark in facts["marks"])
    depth = "finetuned" if facts["finetuned"] else "frozen"
    about = f"{facts['task']} · {facts['upstream']}, {depth} · trained on {facts['corpus']}"
    return f'<h3>{escape(facts["run"])}</h3><p class="hw-small">{escape(about)}</p>{marks}'


def short(name: str, most: int = 18) -> str:
    """Return a name that fits beside a picture."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def turns(prediction: Prediction) -> str:
    """Return who speaks when as a table."""
    if not isinstance(prediction.label, Spoken) or not prediction.label.turns:
        return ""
    rows = "".join(f"<tr><td>{escape(who)}<td>{start:.2f} s<td>{end:.2f} s" for who, start, end in prediction.label.turns)
    return f'<table class="hw-words"><tr><td>speaker<td>from<td>to{rows}</table>'
