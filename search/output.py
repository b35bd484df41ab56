"""What a search leaves behind: detections, the curve of layers, and the list that the official scorer reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

from ..core.figures import marked_title, new_figure, save_csv, save_figure
from ..core.files import write_text
from ..corpus.base import Utterance
from .scoring import Trials
from .search import Detection, Found

HEADER = ("query", "document", "score", "start", "end")
_CURVES = {"mtwv": "MTWV (higher is better)", "min_cnxe": "least Cnxe (lower is better)"}


def write_detections(
    path: Path,
    found: Sequence[Detection],
    queries: Sequence[Utterance],
    documents: Sequence[Utterance],
    marks: Sequence[str],
    trials: Trials | None = None,
) -> None:
    """Write one line for each detection: where it is, and whether it is right where that is known."""
    rows = [
        [
            queries[one.query].id,
            documents[one.document].id,
            one.score,
            f"{one.start:.2f}",
            f"{one.end:.2f}",
            *([] if trials is None else [int(trials.targets[one.query, one.document])]),
        ]
        for one in found
    ]
    save_csv(path, HEADER if trials is None else (*HEADER, "is_target"), rows, marks)


def write_layers(folder: Path, found: Mapping[int, Mapping[str, Found]], title: str, chosen: int, marks: Sequence[str]) -> None:
    """Write the scores of each layer on each split, and draw them where there are several layers."""
    splits = [*next(iter(found.values()))]
    metrics = [*next(iter(found.values()))[splits[0]].scores]
    header = ["layer", *(f"{split}_{metric}" for split in splits for metric in metrics)]
    rows = [
        [layer, *(of_layer[split].scores[metric] for split in splits for metric in metrics)] for layer, of_layer in found.items()
    ]
    save_csv(folder / "layers.csv", header, rows, marks)
    if len(found) == 1:
        return
    figure = new_figure(8.4, 3.4, marked_title(title, marks))
    for place, (metric, label) in enumerate(_CURVES.items(), start=1):
        axes = figure.add_subplot(1, len(_CURVES), place)
        for split in splits:
            axes.plot([*found], [of_layer[split].scores[metric] for of_layer in found.values()], marker="o", label=split)
        axes.axvline(chosen, color="grey", linestyle=":", label="chosen on dev")
        axes.set(xlabel="layer", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    for suffix in (".png", ".pdf"):
        save_figure(figure, folder / f"layers{suffix}")


def write_stdlist(path: Path, trials: Trials, queries: Sequence[str], documents: Sequence[str], threshold: float) -> None:
    """Write every trial in the format of NIST's spoken term detection, as `score-TWV-Cnxe.sh` of QUESST 2014 reads it."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<stdlist termlist_filename={quoteattr(path.name)} indexing_time="1.00" language="english" index_size="1" '
        'system_id="headwater">',
    ]
    for row, query in enumerate(queries):
        lines.append(f'  <detected_termlist termid={quoteattr(query)} term_search_time="1.0" oov_term_count="1">')
        for column, document in enumerate(documents):
            if trials.counted[row, column]:
                score = trials.scores[row, column]
                lines.append(
                    f'    <term file={quoteattr(document)} channel="1" tbeg="0.000" dur="0.00" score="{score:.4f}" '
                    f'decision="{"YES" if score > threshold else "NO"}"/>'
                )
        lines.append("  </detected_termlist>")
    write_text(path, "\n".join([*lines, "</stdlist>"]) + "\n")
