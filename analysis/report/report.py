"""One page about finished runs, plans and recipes: it opens without a server or a network, and prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ...core.errors import UserError
from ...core.figures import marked_title
from ...core.files import read_json, temporary_folder, write_text
from ...core.run_folder import RunFolder
from ...core.text import last_part
from ...downstream.metrics import metric_title
from ..relations.graphs import draw
from ..relations.relations import Pair, from_json
from ..table import number
from ..titles import titles_of
from .headline import Headline, headline_html, headlines_of
from .html import element, markdown, page, paragraph, picture, table, text
from .sections import (
    Content,
    Run,
    audited,
    configuration,
    confusions,
    curves,
    environment,
    layer_curve,
    layers,
    pooled_confusions,
    scores,
    summary,
)
from .side_by_side import first_sentence, side_by_side

RELATIONS = "relations.json"
REDRAWN = ("curves", "confusion-", "layer-weights", "layer-curve")  # pictures of a run that are made from its numbers here
NOT_TO_QUOTE = "not results to quote"


@dataclass(frozen=True)
class Found:
    """A folder that the report is about, and the finished runs in it."""

    folder: Path
    title: str
    anchor: str
    runs: Sequence[Run]

    @property
    def is_plan(self) -> bool:
        """Whether its runs are folds and seeds of one experiment."""
        return len(self.runs) > 1 and len({(*run.first, str(run.result.get("upstream"))) for run in self.runs}) == 1

    @property
    def counted(self) -> list[Run]:
        """The runs that a finished plan reports: of a sweep those of the setting that dev chose."""
        names = [row["name"] for row in RunFolder(self.folder).runs() or ()]
        return [run for run in self.runs if run.name in names]


def report(folders: Sequence[Path], out: Path) -> str:
    """Write the report of some results into one html file, and return a line that says so."""
    from matplotlib import rc_context
    from tqdm import tqdm

    folders = list({folder.resolve(): folder for folder in folders}.values())  # a folder named twice is shown once
    titles = titles_of(folders) if len(folders) > 1 else {folders[0]: last_part(str(folders[0].resolve()))}
    found = [Found(folder, titles[folder], f"r{place}", [*runs_below(folder)]) for place, folder in enumerate(folders)]
    total = sum(len(one.runs) for one in found)
    marks = list(dict.fromkeys(mark for one in found for mark in marks_of(one)))
    body: list[str] = []
    with (
        temporary_folder() as drawings,
        rc_context({"svg.hashsalt": "headwater"}),  # equal pictures are equal bytes
        tqdm(total=total, desc="drawing", unit="run", disable=None, leave=False) as bar,
    ):
        if len(found) > 1:
            body += attempt("side by side", partial(compared, found, drawings))
        for one in found:
            heading = [element("h2", text(one.title), id=one.anchor)] if len(found) > 1 else []
            body += [*heading, *result_section(one, drawings, bar.update)]
    title = found[0].title if len(found) == 1 else f"{len(found)} results side by side"
    banner = [paragraph(f"{' '.join(marks)}: {NOT_TO_QUOTE}", "marks banner")] if marks else []
    head = [element("h1", text(title)), *banner, *contents(found)]
    write_text(out, page(marked_title("Headwater: " + ", ".join(titles.values()), marks), [*head, *body]))
    return f"written to {out}: {counted(total, 'run')}, {out.stat().st_size / 1e6:.1f} MB"


def contents(found: Sequence[Found]) -> list[str]:
    """Return the way to each result and each of its runs; nothing where there is one run."""
    if len(found) == 1 and len(found[0].runs) < 2:
        return []
    lines = []
    for one in found:
        whole = [link(one.anchor, one.title)] if len(found) > 1 else []
        parts = [link(f"{one.anchor}-{place}", run.name) for place, run in enumerate(one.runs) if run.name]
        lines.append(element("li", " · ".join([*whole, *parts])))
    return [element("nav", element("ul", *lines))]


def link(anchor: str, words: str) -> str:
    """Return a way to another place of the page."""
    return element("a", text(words), href=f"#{anchor}")


def compared(found: Sequence[Found], drawings: Path) -> list[str]:
    """Return the comparison of several results, and which of them take no part in it."""
    headlines = {one.title: headlines_of(one.title, one.folder, one.runs) for one in found}
    without = [title for title, of_one in headlines.items() if not of_one]
    several = [headline for of_one in headlines.values() for headline in of_one]
    body = side_by_side(several, {one.title: one.folder for one in found}, drawings)
    return [*body, *(paragraph(f"{title}: no score of its own, see its tables below", "absent") for title in without)]


def runs_below(folder: Path) -> Iterator[Run]:
    """Return a finished run, or those below a folder, in the order of their names."""
    if not folder.is_dir():
        raise UserError(
            f"Expected a folder with results at '{folder}', found {'a file' if folder.exists() else 'nothing'}. Check the path."
        )
    found = [folder] if is_run(folder) else RunFolder(folder).below()
    if not found and not others_of(folder):
        raise UserError(f"Expected a run, a plan or a recipe's folder at '{folder}', found no results. Name the folder after -p.")
    for place in found:
        if is_run(place):
            name = "" if place == folder else str(place.relative_to(folder))
            yield Run(place, name, RunFolder(place).read().result("marks"))


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of one run."""
    run = RunFolder(folder)
    return run.config.is_file() and run.result.is_file()


def others_of(folder: Path) -> list[Path]:
    """Return what lies beside the runs of a folder: plans' summaries, tables, figures and relations of tasks."""
    whole = RunFolder(folder)
    inside = whole.below()
    files = [path for pattern in (whole.result.name, "*.md", RELATIONS, "*.png") for path in sorted(folder.rglob(pattern))]
    return [path for path in files if path.name == RELATIONS or not any(path.is_relative_to(place) for place in inside)]


def marks_of(found: Found) -> list[str]:
    """Return the marks of all that a folder holds."""
    contents = [read_json(path) for path in others_of(found.folder) if path.name == RELATIONS]
    of_relations = [mark for content in contents if isinstance(content, dict) for mark in content.get("marks") or ()]
    return [*(mark for run in found.runs for mark in run.marks), *map(str, of_relations)]


def counted(count: int, word: str) -> str:
    """Return a number with its word."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def result_section(found: Found, drawings: Path, count: Callable[[int], object]) -> list[str]:
    """Return one result: its score beside a picture, its tables, each run, and how they were made."""
    folder, runs = found.folder, found.runs
    unfinished = sorted(str(place.relative_to(folder)) for place in RunFolder(folder).below() if not is_run(place))
    body = [paragraph(f"left out, not finished: {', '.join(unfinished)}", "absent")] if unfinished else []
    large = attempt("score", lambda: [headline_block(headlines_of(found.title, folder, runs))])
    large += attempt("layer curve", partial(layer_curve, folder, drawings))
    if is_run(folder):
        body.append(side_of(large + run_facts(runs[0]), run_pictures(runs[0], drawings, alone=True), tall=len(runs[0].first) > 1))
        others = sorted(folder.glob(RELATIONS))
    else:
        others = others_of(folder)
        summaries = [path for path in others if path == RunFolder(folder).result]
        text_part = [*large, *(part for path in summaries for part in beside(path, folder, drawings))]
        body.append(side_of(text_part, plan_pictures(found, drawings)))
        others = [path for path in others if path not in summaries]
    for path in others:
        body += beside(path, folder, drawings)
    body += attempt("audit", partial(audited, folder))
    if len(runs) > 1 and len(found.counted) < len(runs):
        body += [element("h3", "All runs"), *overview(runs)]
    for place, run in enumerate(runs):
        body += run_section(run, f"{found.anchor}-{place}", drawings, found) if run.folder != folder else []
        count(1)
    return [*body, *configuration(runs), *environment(runs)] if runs else body


def headline_block(headlines: Sequence[Headline]) -> str:
    """Return the scores of a result, large where there is one task."""
    several = len(headlines) > 1
    look = "headlines several" if several else "headlines"
    return element("div", *(headline_html(found, small=several) for found in headlines), class_=look)


def side_of(words: Sequence[str], pictures: Sequence[str], *, tall: bool = False) -> str:
    """Return words beside pictures, in as many rows as the page is narrow; pictures beside `tall` words share a column."""
    column = [element("div", *pictures, class_="column")] if tall and pictures else pictures
    return element("div", element("div", *words, class_="words"), *column, class_="beside")


def plan_pictures(found: Found, drawings: Path) -> list[str]:
    """Return the pictures of a plan as a whole."""
    if not found.is_plan:
        return []
    drawn = attempt("confusion", partial(pooled_confusions, found.counted, drawings)) if found.counted else []
    return drawn + attempt("layer weights", partial(layers, [run.folder for run in found.runs], drawings, "over all runs"))


def run_facts(run: Run) -> list[str]:
    """Return the scores of a run and what to know about them."""
    tables = (attempt(f"scores {task}", partial(scores, content, weights)) for (task, weights), content in run.tasks.items())
    notes = [paragraph(note, "soft") for note in run.result.get("notes") or ()]
    return [*(part for table_part in tables for part in table_part), *notes]


def run_section(run: Run, anchor: str, drawings: Path, found: Found) -> list[str]:
    """Return one run of several."""
    apart = len({other.marks for other in found.runs}) > 1  # where all runs have the same marks the top of the page says so
    marks = [element("span", text(" ".join(run.marks)), class_="marks")] if run.marks and apart else []
    heading = element("h3", text(run.name), *marks, id=anchor)
    pictures = run_pictures(run, drawings, alone=False, in_plan=found.is_plan)
    return [heading, side_of(run_facts(run), pictures, tall=len(run.first) > 1)]


def run_pictures(run: Run, drawings: Path, *, alone: bool, in_plan: bool = False) -> list[str]:
    """Return the pictures of a run, those of its test first; folds and seeds of a plan have their layer weights in common."""
    left = [path for path in sorted(RunFolder(run.folder).plots.glob("*.png")) if not path.stem.startswith(REDRAWN)]
    drawn: list[str] = []
    for task, content in run.chosen.items():
        drawn += attempt("confusion", partial(confusions, content, task, run.marks, drawings, dev=False))
    drawn += [picture(path, words_of(path)) for path in left if not path.stem.endswith("dev")]
    drawn += attempt("learning curves", partial(curves, run, drawings))
    for task, content in run.chosen.items() if alone else ():
        drawn += attempt("confusion", partial(confusions, content, task, run.marks, drawings, dev=True))
    drawn += [picture(path, words_of(path)) for path in left if alone and path.stem.endswith("dev")]
    return drawn if in_plan else drawn + attempt("layer weights", partial(layers, [run.folder], drawings, run.name))


def words_of(path: Path) -> str:
    """Return what a picture is called for those who cannot see it: its title is inside."""
    return path.stem.replace("-", " ").replace("_", " ")


def beside(path: Path, folder: Path, drawings: Path) -> list[str]:
    """Return a summary, a table, a figure or the relation graphs of a plan or recipe."""
    part = "" if path.parent == folder else f", {path.parent.relative_to(folder)}"
    if path.name == RELATIONS:
        return [element("h3", text(f"Relations of tasks{part}")), *attempt("relations", partial(graphs, path, drawings))]
    if path == RunFolder(path.parent).result:
        return [element("h3", text(f"Summary{part}")), *attempt("summary", partial(summary, read_json(path, ("runs", "mean"))))]
    if path.suffix == ".md":
        return attempt(path.name, partial(table_file, path))
    redrawn = path.parent == RunFolder(folder).plots and path.stem.startswith(REDRAWN[1:])  # from the runs' numbers
    if redrawn or (path.with_name(RELATIONS).is_file() and path.stem == Path(RELATIONS).stem):
        return []
    return [picture(path, words_of(path))]


def table_file(path: Path) -> list[str]:
    """Return a table that a recipe wrote, below its caption."""
    caption, _, rest = path.read_text(encoding="utf-8").partition("\n")
    if caption.startswith("|") or not caption.strip():
        return [markdown(f"{caption}\n{rest}")]
    return [element("h3", text(caption.lstrip("# "))), markdown(rest)]


def attempt(name: str, make: Callable[[], list[str]]) -> list[str]:
    """Return what is made, or a line that says why it is left out: a damaged file costs its own piece only."""
    try:
        return make()
    except UserError as problem:
        why = first_sentence(problem)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as problem:
        why = f"another format than this version's ({type(problem).__name__}: {problem})"
    return [paragraph(f"{name}: left out. {why}", "absent")]


def graphs(path: Path, drawings: Path) -> list[str]:
    """Return both relation graphs, and their edges as a table."""
    relations = from_json(read_json(path), path)
    drawn = draw(relations, drawings / "relations.svg")
    cells = {(edge.source, edge.target): edge_cell(edge) for edge in (*relations.improvement, *relations.hurt)}
    cells |= {(source, target): "undefined" for source, target, _ in relations.undefined}
    rows = [
        {"without": source, **{task: cells.get((source, task), "") for task in relations.tasks}} for source in relations.tasks
    ]
    without = [
        paragraph(f"{source} → {target}: no relative change, {why}", "soft") for source, target, why in relations.undefined
    ]
    return [picture(drawn[0], "Which task helps and which hurts another"), table(rows), *without]


def edge_cell(edge: Pair) -> str:
    """Return an edge as the table of relations shows it."""
    within = "" if edge.interval is None else " [{:+.1f}, {:+.1f}]".format(*(100 * end for end in edge.interval))
    return f"{100 * edge.change:+.1f} %{within} {edge.width}"


def overview(runs: Sequence[Run]) -> list[str]:
    """Return the table of all runs, and in a line what all of them have in common."""
    rows = [row for run in runs for row in overview_rows(run)]
    names = dict.fromkeys(name for row in rows for name in row)
    common = {
        name: rows[0].get(name)
        for name in names
        if name in ("task", "upstream", "corpus", "marks", "metric") and len({str(row.get(name)) for row in rows}) == 1
    }
    words = " · ".join(str(value) for name, value in common.items() if name != "marks" and value)
    return [paragraph(words, "soft"), table([{name: row.get(name, "") for name in names if name not in common} for row in rows])]


def overview_rows(run: Run) -> Iterator[dict[str, object]]:
    """Return the lines of a run in the table of all runs: one for each of its tasks."""
    for task, content in run.first.items():
        metric, found = str(content.get("report_by") or content.get("select_by") or ""), content.get("scores")
        known = {key: content[key] for key in ("upstream", "corpus", "fold", "seed") if content.get(key) is not None}
        values = by_split(found, metric) if isinstance(found, Mapping) else {}
        yield {
            "run": run.name,
            "task": task,
            **known,
            "marks": " ".join(run.marks),
            "metric": metric_title(metric) if metric else "",
            **values,
        }


def by_split(found: Content, metric: str) -> dict[str, object]:
    """Return a metric on each split that has it."""
    return {
        split: number(scores[metric])
        for split, scores in found.items()
        if isinstance(scores, Mapping) and isinstance(scores.get(metric), int | float)
    }
