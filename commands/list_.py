"""List the names that flags take: upstreams, corpora, tasks and recipes."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.errors import UserError, nearest
from .common.console import print_note, print_result
from .common.shell import Action, Parser, run_action

HELP = "list the names of upstreams, corpora, tasks and recipes"
EXAMPLE = "headwater list upstreams 'hubert*'"


def main(arguments: Sequence[str]) -> int:
    """List what the first word names."""
    return run_action("headwater list", HELP, LISTS, arguments)


def list_upstreams(arguments: Sequence[str]) -> int:
    """Print one line for each upstream whose name matches."""
    words = (
        "List the upstreams that -u and --text-upstream know by name. They also take a hub id, a model folder, a run folder, "
        "s3prl/NAME and ./my_upstream.py."
    )
    parser = Parser("headwater list upstreams", words, LISTS["upstreams"].example)
    parser.add_argument("pattern", nargs="?", default="*", help="list the names that match, with the wildcards * and ?")
    parser.add_argument("--modality", choices=("audio", "text"), help="list only the upstreams that read audio, or text")
    flags = parser.parse_args(arguments)
    from ..upstream.base import UPSTREAMS
    from ..upstream.load import list_upstreams as matching

    rows = matching(flags.pattern, flags.modality)
    print_note(*(f"passed over: {problem}" for problem in UPSTREAMS.broken(flags.pattern)))
    if not rows:
        known = [row.name for row in matching()]
        raise UserError(
            f"No upstream is called '{flags.pattern}'.{nearest(flags.pattern.strip('*'), known)} Try '*{flags.pattern}*'."
        )
    cells = [(row.name, row.modality or "", row.source, row.description) for row in rows]
    print_result(*aligned(cells))
    return 0


def list_corpora(arguments: Sequence[str]) -> int:
    """Print which corpus serves which task, how each is split, and where it comes from."""
    words = "List the corpora that --corpus knows: which tasks each serves, how it is split, and where to get it."
    Parser("headwater list corpora", words, LISTS["corpora"].example).parse_args(arguments)
    from ..corpus.base import CORPORA
    from ..corpus.describe import table_of_corpora
    from ..downstream.base import TASKS

    offers = [f"{name} ({kinds.kind} of {source})" for kinds in (TASKS, CORPORA) for name, source in kinds.offered().items()]
    print_result(table_of_corpora(), *([f"\nfrom packages: {', '.join(offers)}"] if offers else []))
    print_result(*(f"passed over: {problem}" for problem in TASKS.broken()))
    return 0


def list_tasks(arguments: Sequence[str]) -> int:
    """Print one line for each task: its usual corpus, its metrics, and where it comes from."""
    words = "List the tasks that -d knows. It also takes the folder of a task of your own (./my_task)."
    Parser("headwater list tasks", words, LISTS["tasks"].example).parse_args(arguments)
    from ..corpus.load import claimants
    from ..downstream.base import TASKS
    from ..downstream.load import load_task

    packages, problems, ours = TASKS.offered(), TASKS.broken(), TASKS.built_in()
    cells = [("task", "usual corpus", "from", "metrics (the first one is reported)")]
    for name in TASKS.names():
        source = "Headwater" if name in ours else packages.get(name, "your own code")
        try:
            task = load_task(name)
        except UserError:  # a broken one: its line stands below
            continue
        question = task.question(task.options())
        metrics = [question.primary_metric, *(key for key in question.metrics if key != question.primary_metric)]
        cells.append((name, ", ".join(claimants(question.name)) or "none", source, ", ".join(metrics)))
    print_result(*aligned(cells))
    print_result(*(f"passed over: {problem}" for problem in problems))
    return 0


def list_recipes(arguments: Sequence[str]) -> int:
    """Print the recipes that come with Headwater, each below the command that runs it."""
    words = "List the recipes that come with Headwater. `headwater recipe` and -c also take a yaml file of your own."
    Parser("headwater list recipes", words, LISTS["recipes"].example).parse_args(arguments)
    from ..core.options import read_yaml
    from ..plans.recipe import is_paper
    from ..runs.config.recipes import RECIPES

    found = {str(path.relative_to(RECIPES).with_suffix("")): read_yaml(path) for path in sorted(RECIPES.rglob("*.yaml"))}
    groups: dict[str, list[tuple[str, ...]]] = {
        "headwater recipe NAME --plan: the experiments of a paper": [],
        "headwater downstream -u UPSTREAM -c NAME: one task": [],
        "headwater mtl -u UPSTREAM -c NAME: several tasks together": [],
    }
    papers, tasks, joint = groups.values()
    for name, mapping in found.items():
        if is_paper(mapping):
            papers.append((f"  {name}", " ".join(str(mapping.get("paper", "")).split())))
        elif "tasks" in mapping:
            joint.append((f"  {name}", ", ".join(mapping["tasks"])))
        elif "task" in mapping:
            tasks.append((f"  {name}", str(mapping["task"])))
    for title, rows in groups.items():
        print_result(title, *aligned(rows))
    return 0


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines whose columns stand one below the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


LISTS = {
    "upstreams": Action(list_upstreams, "list the models that -u and --text-upstream know", EXAMPLE),
    "corpora": Action(list_corpora, "list the corpora that --corpus knows, and where to get them", "headwater list corpora"),
    "tasks": Action(list_tasks, "list the tasks that -d knows, with their metrics", "headwater list tasks"),
    "recipes": Action(list_recipes, "list the recipes that `headwater recipe` and -c know", "headwater list recipes"),
}
