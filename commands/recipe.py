"""Run a paper's recipe: its plan, its runs, its tables and figures beside the paper's."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UserError
from ..core.process import is_main
from .common.console import print_result
from .common.launch import SLURM, add_launch, refuse_launch
from .common.plan_view import hours_lines, outlook_rows, run_left, submit_left
from .common.shell import Parser, split_pairs

if TYPE_CHECKING:
    from ..plans.inventory import Inventory
    from ..plans.paper import PaperPlan


HELP = "run the experiments of a paper, and write its tables and figures beside the published ones"
EXAMPLE = "headwater recipe turbo/demo --plan"
OVERRIDE = "set options of every part, of one part (PART.KEY=VALUE), or of several ('PATTERN*.KEY=VALUE')"


def make_parser() -> Parser:
    """Return the flags."""
    parser = Parser(
        "headwater recipe",
        "Print the plan of a paper's experiments, train the runs that are left, and write its tables and figures.",
        EXAMPLE,
    )
    add = parser.add_argument
    add("recipe", nargs="?", help="a name that `headwater list recipes` shows, or a yaml file with `parts:`")
    add("-u", "--upstream", metavar="NAME", help="the audio model of every part, in place of the recipe's")
    add("--plan", "--dry-run", action="store_true", help="print the plan and stop")
    add("--only", metavar="PART,…", help="train only these parts, and those that they start from")
    add("--jobs", type=int, default=1, metavar="N", help="train N runs at the same time (default: 1)")
    add_launch(add)
    add("-p", "--expdir", metavar="DIR", help="write all runs to this folder (default: result/recipes/NAME, or NAME-UPSTREAM)")
    add(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="folder or table of a corpus of the recipe; may be repeated",
    )
    add(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="folder with the weights of an upstream; may be repeated",
    )
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=OVERRIDE)
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    add("--quiet", action="store_true", help="print only plans and tables")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Print the plan; then, unless that is all, run it and print the tables."""
    flags = make_parser().parse_args(arguments)
    from ..plans.inventory import find_runs
    from ..runs.config.recipes import find_recipe

    if not flags.recipe:
        raise UserError(f"Expected a recipe, found none. `headwater list recipes` lists ours. For instance: {EXAMPLE}")
    if flags.jobs < 1:
        raise UserError(f"Expected --jobs of 1 or more, found {flags.jobs}. Leave it out to train one run after the other.")
    refuse_launch(flags)
    path = find_recipe(flags.recipe)
    plan = plan_of(flags, path)
    named = name_of(path) + (f"-{Path(flags.upstream).name}" if flags.upstream else "")
    folder = Path(flags.expdir) if flags.expdir else Path("result") / "recipes" / named
    names = plan.only([name for name in (flags.only or "").split(",") if name])
    missing = missing_corpora(plan, folder)
    print_result(plan_table(plan, names, find_runs(plan, folder), missing))
    if flags.plan:
        return 0
    wanted = {name: plan.runs[name] for name in names}
    if flags.launch == SLURM and (code := submit_left(["recipe", *arguments], wanted, folder, flags, missing)) is not None:
        return code
    missing |= with_advice(run_left(wanted, folder, flags, missing), plan)
    missing = {**foreign_parts(plan, find_runs(plan, folder)), **missing}
    if is_main():
        from ..analysis.papers.figures import report

        print_result("", report(plan, folder, missing), f"written to {folder}")
    return 3 if {*missing} & {*names} else 0


def plan_of(flags: Namespace, path: Path) -> PaperPlan:
    """Return the plan of a paper's recipe; refuse that of a single run with the command that runs it."""
    from ..core.options import parse_override
    from ..plans.paper import CommandOptions, plan_recipe
    from ..plans.recipe import is_paper, read_recipe
    from ..runs.config.recipes import RECIPES

    mapping = read_recipe(path)
    if not is_paper(mapping) and mapping.get("task"):
        known = str(path.relative_to(RECIPES).with_suffix("")) if path.is_relative_to(RECIPES) else str(path)
        raise UserError(
            f"Expected a paper's recipe (with `parts:`), found that of a run in '{flags.recipe}'. "
            f"Run it: headwater downstream -c {known}"
        )
    data, weights = (
        {name: place for pair in pairs for name, place in split_pairs(pair, flag).items()}
        for flag, pairs in (("--data", flags.data), ("--weights", flags.weights))
    )
    overrides = [parse_override(text) for text in flags.override]
    if flags.upstream:
        overrides.insert(0, {"upstream": {"name": flags.upstream}})
    return plan_recipe(mapping, CommandOptions(data, overrides, weights))


def name_of(path: Path) -> str:
    """Return the folder's name of a recipe: `turbo/paper`, or the name of a file of one's own."""
    from ..runs.config.recipes import RECIPES

    own = path.resolve().is_relative_to(RECIPES.resolve())
    return str(path.resolve().relative_to(RECIPES.resolve()).with_suffix("")) if own else path.stem


def missing_corpora(plan: PaperPlan, folder: Path) -> dict[str, str]:
    """Return the parts with runs left whose corpus is not on this machine, with a line that says how to bring it."""
    from ..core.run_folder import RunFolder
    from ..corpus.load import get_reader
    from ..corpus.locate import find_root

    missing, wrong = dict[str, str](), list[str]()
    for name, config in plan.configs.items():
        if all(RunFolder(folder / run.name).is_finished for run in plan.runs[name]):
            continue
        corpus, reader = config.only.corpus, get_reader(config.only.corpus.name)
        try:
            if not corpus.demo:
                find_root(reader, corpus.data)
        except UserError as problem:
            if corpus.data:  # named, and not there: a mistake
                wrong.append(str(problem))
            source = " ".join((reader.where or reader.description).split())
            missing[name] = (
                f"{plan.corpus_names[name]} is not here; get it ({source}), then --data {plan.corpus_names[name]}=PATH"
            )
    if wrong:
        raise UserError("\n".join(dict.fromkeys(wrong)))
    return missing


def plan_table(plan: PaperPlan, names: Sequence[str], found: Inventory, missing: Mapping[str, str]) -> str:
    """Return what is done and left of each part: runs, steps, GB of checkpoints, hours where a pace is known."""
    from ..analysis.table import render
    from ..plans.execute import in_one_line
    from ..plans.forecast import missing_transcripts, missing_weights

    rows = outlook_rows({name: plan.runs[name] for name in names}, plan.runs, found.folder, missing, found.foreign)
    lines = [f"{plan.recipe.paper}".strip(), render(rows), f"folder    {found.folder}"]
    lines += [f"missing   {line}" for line in dict.fromkeys(missing[name] for name in names if name in missing)]
    weights: dict[str, str] = {}
    for run in (run for name in names for run in plan.runs[name]):
        weights |= missing_weights(run, found.folder)
    lines += [f"missing   {weights_advice(name, hub_id)}" for name, hub_id in weights.items()]
    texts = [missing_transcripts(plan.configs[name]) for name in names]
    lines += [f"missing   {line}" for line in dict.fromkeys(texts) if line]
    foreign = [found.foreign[run.name] for name in names for run in plan.runs[name] if run.name in found.foreign]
    lines += [f"other     {in_one_line(reason.splitlines())}" for reason in foreign]
    return "\n".join([*lines, *hours_lines(rows)])


def weights_advice(name: str, hub_id: str) -> str:
    """Return how to bring a model's weights to the parts of a recipe."""
    of = "" if hub_id == name else f" ({hub_id})"
    return (
        f"weights of {name}{of} are not here; without a network bring them (`hf download {hub_id} --local-dir DIR`), "
        f"then --weights {name}=DIR"
    )


def with_advice(lacking: Mapping[str, str], plan: PaperPlan) -> dict[str, str]:
    """Return why parts lack a run; weights that are not here with the flag that brings them to a recipe."""
    from ..plans.forecast import missing_weights

    reasons = dict(lacking)
    for name, reason in lacking.items():
        needed = {model: hub_id for run in plan.runs[name] for model, hub_id in missing_weights(run).items()}
        lines = [weights_advice(model, hub_id) for model, hub_id in needed.items() if f"the weights of '{hub_id}'" in reason]
        reasons[name] = "; ".join(lines) or reason
    return reasons


def foreign_parts(plan: PaperPlan, found: Inventory) -> dict[str, str]:
    """Return the parts in whose folders stand runs that are not the recipe's, with the reason."""
    there = {name: [found.foreign[run.name] for run in runs if run.name in found.foreign] for name, runs in plan.runs.items()}
    return {name: reasons[0] for name, reasons in there.items() if reasons}
