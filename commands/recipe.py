"""Run a paper's recipe: its plan, its runs, its tables and figures beside the paper's."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .shell import Parser, split_pairs

if TYPE_CHECKING:
    from ..training.paper_plan import PaperPlan

HELP = "run a paper's experiments (or list them), and set its tables and figures beside the paper's"
EXAMPLE = "headwater recipe turbo/demo --plan"


def make_parser() -> Parser:
    """Return the flags."""
    parser = Parser("headwater recipe", "Print a paper's plan, run what is left of it, write its tables and figures.", EXAMPLE)
    add = parser.add_argument
    add("recipe", nargs="?", help="one of ours (without it they are listed), or a yaml file with `parts:`")
    add("--plan", action="store_true", help="print the plan and stop")
    add("--only", metavar="PART,…", help="these parts, with those that they start from")
    add("--jobs", type=int, default=1, help="runs at once")
    add("-p", "--expdir", metavar="DIR", help="folder of all runs (default: result/recipes/NAME)")
    add("--data", action="append", default=[], metavar="NAME=PATH", help="where a corpus of the recipe lies")
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="options of every part")
    add("--device", default="auto", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    add("--quiet", action="store_true", help="print plan and tables only")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Print the plan; then, unless that is all, run it and print the tables."""
    flags = make_parser().parse_args(arguments)
    from ..training.config import find_recipe

    if not flags.recipe:
        print(listed())
        return 0
    if flags.jobs < 1:
        raise UserError(f"Expected --jobs of 1 or more, found {flags.jobs}. Leave it out to train one run after the other.")
    path = find_recipe(flags.recipe)
    plan = plan_of(flags, path)
    folder = Path(flags.expdir) if flags.expdir else Path("result") / "recipes" / name_of(path)
    names = plan.only([name for name in (flags.only or "").split(",") if name])
    missing = missing_corpora(plan, folder)
    answer(plan_table(plan, names, folder, missing))
    if flags.plan:
        return 0
    missing |= run_all(flags, plan, names, folder, missing)
    if is_main():
        from ..analysis.paper_figures import report

        print("", report(plan, folder, missing), f"written to {folder}", sep="\n")
    return 3 if {*missing} & {*names} else 0


def listed() -> str:
    """Return the recipes that come with Headwater, a line each."""
    from ..training.recipe import list_recipes

    rows = {name: " ".join(str(mapping.get("paper", "")).split()) for name, mapping in list_recipes().items()}
    width = max(map(len, rows), default=0)
    lines = [f"{name:<{width}}  {paper}".rstrip() for name, paper in rows.items()]
    return "\n".join([*lines, "headwater recipe NAME --plan: what a recipe would run"])


def plan_of(flags: Namespace, path: Path) -> PaperPlan:
    """Return the plan of a paper's recipe; that of a single run is answered with the command that runs it."""
    from ..training.config import RECIPES, parse_override
    from ..training.paper_plan import plan_recipe
    from ..training.recipe import is_paper, read_recipe

    mapping = read_recipe(path)
    if not is_paper(mapping) and mapping.get("task"):
        known = str(path.relative_to(RECIPES).with_suffix("")) if path.is_relative_to(RECIPES) else str(path)
        raise UserError(
            f"Expected a paper's recipe (with `parts:`), found that of a run in '{flags.recipe}'. "
            f"Run it: headwater downstream -c {known}"
        )
    data: dict[str, str] = {}
    for pair in flags.data:
        data |= split_pairs(pair, "--data")
    return plan_recipe(mapping, data, [parse_override(text) for text in flags.override])


def name_of(path: Path) -> str:
    """Return the folder's name of a recipe: `turbo/paper`, or the name of a file of one's own."""
    from ..training.config import RECIPES

    own = path.resolve().is_relative_to(RECIPES.resolve())
    return str(path.resolve().relative_to(RECIPES.resolve()).with_suffix("")) if own else path.stem


def missing_corpora(plan: PaperPlan, folder: Path) -> dict[str, str]:
    """Return the parts with runs left whose corpus is not on this machine, with a line that says how to bring it."""
    from ..corpus.base import get_reader
    from ..corpus.locate import find_root
    from ..training.run import is_finished

    missing, wrong = {}, []
    for name, config in plan.configs.items():
        if all(is_finished(folder / run.name) for run in plan.runs[name]):
            continue
        corpus, reader = config.corpus, get_reader(config.corpus.name)
        try:
            if not corpus.demo:
                find_root(reader, corpus.data)
        except UserError as problem:
            if corpus.data:  # named, and not there: a mistake
                wrong.append(str(problem))
            source = " ".join((reader.where or reader.description).split())
            missing[name] = f"{plan.words[name]} is not here; get it ({source}), then --data {plan.words[name]}=PATH"
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))
    return missing


def plan_table(plan: PaperPlan, names: Sequence[str], folder: Path, missing: Mapping[str, str]) -> str:
    """Return what is done and left of each part: runs, steps, GB of checkpoints, hours where a pace is known."""
    from ..analysis.table import render
    from ..training.forecast import FIRST_STEPS, outlook

    others = {run.name: run for of_part in plan.runs.values() for run in of_part}
    rows = []
    for name in names:
        view = outlook(plan.runs[name], folder, others)
        row = {"part": name, "runs": str(view.runs), "done": str(view.done), "left": str(view.runs - view.done)}
        row |= {"steps left": f"{view.steps:,}", "GB": gigabytes(view.size), "hours left": hours(view.seconds)}
        rows.append(row | {"": "corpus missing" if name in missing else ""})
    lines = [f"{plan.recipe.paper}".strip(), render(rows), f"folder    {folder}"]
    lines += [f"missing   {line}" for line in dict.fromkeys(missing[name] for name in names if name in missing)]
    if any(row["hours left"] == "-" for row in rows):
        lines.append(f"hours     are told after the first {FIRST_STEPS} steps of a part")
    return "\n".join(lines)


def gigabytes(size: float | None) -> str:
    """Return a size as the plan shows it; heads alone are next to nothing."""
    return "-" if size is None else f"{size / 1e9:.1f}" if size >= 5e7 else "< 0.1"


def hours(seconds: float | None) -> str:
    """Return a time as the plan shows it."""
    return "-" if seconds is None else f"{seconds / 3600:.1f}" if seconds >= 360 else f"{seconds / 3600:.2f}"


def run_all(flags: Namespace, plan: PaperPlan, names: Sequence[str], folder: Path, missing: Mapping[str, str]) -> dict[str, str]:
    """Run what is left and can be run, and return the parts that lack a run, with the reason."""
    from threading import Event, Thread

    from ..training.forecast import watch
    from ..training.parts import run_parts
    from ..training.run import Runtime, say

    runs = {name: plan.runs[name] for name in names}
    failed_before = {run.name: missing[name] for name, of_part in runs.items() if name in missing for run in of_part}
    layers = {run.config.upstream.layer for of_part in runs.values() for run in of_part}
    runtime = Runtime(flags.device, flags.quiet, share_layers=len(layers) > 1, named=True)
    over, wanted = Event(), {name: of_part for name, of_part in runs.items() if name not in missing}
    watcher = Thread(target=watch, args=(wanted, folder, flags.jobs, lambda line: say(runtime, line), over), daemon=True)
    watcher.start()
    try:
        everything = [run for of_part in runs.values() for run in of_part]
        _, failed = run_parts(everything, folder, runtime, flags.jobs, failed_before)
    except KeyboardInterrupt:
        print("the same command goes on where it was", file=sys.stderr)
        raise
    finally:
        over.set()
        watcher.join()
    lacking = {name: [failed[run.name] for run in of_part if run.name in failed] for name, of_part in runs.items()}
    return {name: reasons[0] for name, reasons in lacking.items() if reasons}


def is_main() -> bool:
    """Tell whether this process is the one that prints."""
    return int(os.environ.get("RANK", "0")) == 0


def answer(text: str) -> None:
    """Print once, however many processes there are."""
    if is_main():
        print(text, flush=True)
