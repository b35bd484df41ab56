"""One page about finished runs, plans and recipes: it opens without a server or a network, and prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from ...core.errors import UserError
from ...core.figures import marked_title
from ...core.files import read_json, write_text
from ...core.run_folder import RunFolder
from ..relations.graphs import draw
from ..relations.relations import Pair, from_json
from ..table import number, summary_table
from .html import element, markdown, page, paragraph, picture, table, text
from .sections import Content, Run, configuration, confusions, curves, environment, layers, scores

RELATIONS = "relations.json"
REDRAWN = ("curves", "confusion-", "layer-weights")  # pictures of a run that are made from its numbers here
NOT_TO_QUOTE = "not results to quote"


def report(folders: Sequence[Path], out: Path) -> str:
    """Write the report of some results into one html file, and return a line that says so."""
    from matplotlib import rc_context
    from tqdm import tqdm

    folders = list({folder.resolve(): folder for folder in folders}.values())  # a folder named twice is shown once
    titles = titles_of(folders)
    runs = {folder: list(runs_below(folder)) for folder in folders}
    total = sum(map(len, runs.values()))
    body: list[str] = []
    with (
        TemporaryDirectory(prefix="headwater-") as drawings,
        rc_context({"svg.hashsalt": "headwater"}),  # equal pictures are equal bytes
        tqdm(total=total, desc="drawing", unit="run", disable=None, leave=False) as bar,
    ):
        for place, folder in enumerate(folders):
            body += result_section(folder, titles[folder], runs[folder], f"r{place}", Path(drawings), bar.update)
    marks = list(dict.fromkeys(mark for folder in folders for mark in marks_of(folder, runs[folder])))
    head = heading([*titles.values()], marks, total)
    contents = element(
        "nav", element("ul", *(contents_of(f"r{n}", titles[folder], runs[folder]) for n, folder in enumerate(folders)))
    )
    write_text(out, page(marked_title("Headwater: " + ", ".join(titles.values()), marks), [*head, contents, *body]))
    return f"written to {out}: {counted(total, 'run')}, {out.stat().st_size / 1e6:.1f} MB"


def titles_of(folders: Sequence[Path]) -> dict[Path, str]:
    """Return a name for each folder: as many of its last parts as make it unique."""
    parts = {folder: folder.resolve().parts for folder in folders}
    named = (
        {folder: "/".join(of[-size:]) for folder, of in parts.items()} for size in range(1, max(map(len, parts.values())) + 1)
    )
    return next(names for names in named if len({*names.values()}) == len(folders))


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


def heading(titles: Sequence[str], marks: Sequence[str], total: int) -> list[str]:
    """Return the top of the page."""
    banner = [paragraph(f"{' '.join(marks)}: {NOT_TO_QUOTE}", "marks banner")] if marks else []
    return [element("h1", text(", ".join(titles))), *banner, paragraph(f"{counted(total, 'finished run')}, by Headwater", "soft")]


def marks_of(folder: Path, runs: Sequence[Run]) -> list[str]:
    """Return the marks of all that a folder holds."""
    found = [read_json(path) for path in others_of(folder) if path.name == RELATIONS]
    of_relations = [mark for content in found if isinstance(content, dict) for mark in content.get("marks") or ()]
    return [*(mark for run in runs for mark in run.marks), *map(str, of_relations)]


def contents_of(anchor: str, title: str, runs: Sequence[Run]) -> str:
    """Return a folder's line of the contents, and the runs in it."""
    named = [f" · {link(f'{anchor}-{place}', run.name)}" for place, run in enumerate(runs) if run.name]
    return element("li", link(anchor, title), *named)


def link(anchor: str, words: str) -> str:
    """Return a way to another place of the page."""
    return element("a", text(words), href=f"#{anchor}")


def counted(count: int, word: str) -> str:
    """Return a number with its word."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def result_section(
    folder: Path, title: str, runs: Sequence[Run], anchor: str, drawings: Path, print_line: Callable[[int], object]
) -> list[str]:
    """Return the section of one result folder: its summary first, then each run, then how they were made."""
    body = [element("h2", text(title), id=anchor), paragraph(folder, "soft")]
    unfinished = sorted(str(place.relative_to(folder)) for place in RunFolder(folder).below() if not is_run(place))
    if unfinished:
        body.append(paragraph(f"left out, not finished: {', '.join(unfinished)}", "absent"))
    for path in others_of(folder) if not is_run(folder) else sorted(folder.glob(RELATIONS)):
        body += beside(path, folder, drawings)
    if len(runs) > 1:
        body += [element("h3", "All runs"), table([row for run in runs for row in overview_rows(run)])]
        if len({(*run.first, str(run.result.get("upstream"))) for run in runs}) == 1:  # folds and seeds of one experiment
            body += attempt("layer weights", partial(layers, [run.folder for run in runs], drawings, "over all runs"))
    for place, run in enumerate(runs):
        body += run_section(run, f"{anchor}-{place}", drawings)
        print_line(1)
    return [*body, *configuration(runs), *environment(runs)] if runs else body


def beside(path: Path, folder: Path, drawings: Path) -> list[str]:
    """Return a summary, a table, a figure or the relation graphs of a plan or recipe."""
    name = str(path.relative_to(folder).with_suffix(""))
    if path.name == RELATIONS:
        return [element("h3", text(f"Relations of tasks ({name})")), *attempt(name, partial(graphs, path, drawings))]
    if path == RunFolder(path.parent).result:
        block = attempt(name, lambda: [markdown(summary_table(read_json(path, ("runs", "mean")), markdown=True))])
        return [element("h3", text(path.parent.relative_to(folder)) if path.parent != folder else "Summary"), *block]
    if path.suffix == ".md":
        return [element("h3", text(name)), *attempt(name, lambda: [markdown(path.read_text(encoding="utf-8"))])]
    if path.with_name(RELATIONS).is_file() and path.stem == Path(RELATIONS).stem:
        return []  # drawn already, from its numbers
    return [picture(path, name)]


def attempt(name: str, make: Callable[[], list[str]]) -> list[str]:
    """Return what is made, or a line that says why it is left out: a damaged file costs its own piece only."""
    try:
        return make()
    except UserError as problem:
        why = str(problem).splitlines()[0].partition(". ")[0]
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


def overview_rows(run: Run) -> Iterator[dict[str, object]]:
    """Return the lines of a run in the table of all runs: one for each of its tasks."""
    for task, content in run.first.items():
        metric, found = content.get("report_by") or content.get("select_by", ""), content.get("scores")
        known = {key: content[key] for key in ("upstream", "corpus", "fold", "seed") if content.get(key) is not None}
        marked = {"marks": " ".join(run.marks)} if run.marks else {}
        values = by_split(found, metric) if isinstance(found, Mapping) else {}
        yield {"run": run.name, "task": task, **known, **marked, "metric": metric, **values}


def by_split(found: Content, metric: str) -> dict[str, object]:
    """Return a metric on each split that has it."""
    return {
        split: number(scores[metric])
        for split, scores in found.items()
        if isinstance(scores, Mapping) and isinstance(scores.get(metric), int | float)
    }


def run_section(run: Run, anchor: str, drawings: Path) -> list[str]:
    """Return one run: scores, curves, layers, confusion, and the other pictures that it left."""
    marks = [element("span", text(" ".join(run.marks)), class_="marks")] if run.marks else []
    body = [element("h3", text(run.name or "Scores"), *marks, id=anchor)]
    for (task, weights), content in run.tasks.items():
        body += attempt(f"scores {task}", partial(scores, content, weights))
    body += attempt("learning curves", partial(curves, run, drawings))
    body += attempt("layer weights", partial(layers, [run.folder], drawings, run.name))
    for task, content in run.first.items():
        body += attempt("confusion", partial(confusions, content, task, run.marks, drawings))
    body += [paragraph(note, "soft") for note in run.result.get("notes") or ()]
    left = [path for path in sorted(RunFolder(run.folder).plots.glob("*.png")) if not path.stem.startswith(REDRAWN)]
    return body + [picture(path, path.stem) for path in left]
