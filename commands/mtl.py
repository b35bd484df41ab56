"""Train several tasks together: all of them, all but one, and the transfer to the one left out."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..core.errors import UserError
from ..core.process import in_launch, is_main
from .common.console import print_result
from .common.hints import MTL
from .common.launch import SLURM, add_launch, refuse_launch
from .common.plan_view import hours_lines, outlook_rows, run_left, submit_left
from .common.shell import Parser, TypedPath, split_numbers, split_pairs

if TYPE_CHECKING:
    from ..plans.execute import Part
    from ..plans.scenario import Scenario


HELP = "train several tasks together, and measure which task helps which (the same as `python run_mtl.py`)"
EXAMPLE = "headwater mtl -u hubert --tasks emotion,ks,sid,asr --scenario paper --data iemocap=IEMOCAP_full_release"


def make_parser(prog: str) -> Parser:
    """Return the flags."""
    help_text = (
        "Train several tasks on one upstream: each task alone, all tasks together, all but one, and the transfer from the "
        "others to the one left out."
    )
    parser = Parser(prog, help_text, EXAMPLE.replace("headwater mtl", prog), MTL)
    add = parser.add_argument
    help_text = (
        "the model: a name that `headwater list upstreams` shows, a hub id, a model folder, a run folder, ./my_upstream.py"
    )
    add("-u", "--upstream", action=TypedPath, kind="upstream", help=help_text)
    add("-k", "--upstream_ckpt", metavar="DIR", help="load the weights of the upstream from this folder")
    help_text = "the upstream that reads the transcripts (tasks.NAME.roles=[audio]: not for this task)"
    add("--text-upstream", action=TypedPath, kind="upstream", metavar="NAME", help=help_text)
    help_text = "the model whose layers the upstream learns, for the tasks pretrain and distil"
    add("--teacher", action=TypedPath, kind="upstream", metavar="NAME", help=help_text)
    help_text = "the tasks: names that `headwater list tasks` shows, or folders of your own tasks (./my_task)"
    add("--tasks", metavar="A,B,…", action=TypedPath, kind="task", help=help_text)
    help_text = (
        "which runs to train: single (each task alone), all (together, default), leave-one-out, relations (both of these), "
        "transfer, paper (everything), or adapters (each alone, and all over one frozen upstream with an adapter for each)"
    )
    add("--scenario", default="all", metavar="NAME", help=help_text)
    help_text = "read options from a recipe: a yaml file, or a name that `headwater list recipes` shows (mtl/paper)"
    add("-c", "--config", metavar="YAML", help=help_text)
    help_text = "set options of the recipe: training.steps=2000, tasks.emotion.corpus.protocol=…"
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=help_text)
    add(
        "--data",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="folder or table of one corpus, or of one task; may be repeated",
    )
    add(
        "--shard", action="store_true", help="in several processes (torchrun): each holds a part of every weight of the upstreams"
    )
    add("--demo", action="store_true", help="use the miniature corpora of the tasks")
    add(
        "--shared-weights", action="store_true", help="share one weighted sum of the layers between all tasks (default: one each)"
    )
    help_text = "how to balance the losses: sum (default), uncertainty, dwa, gradnorm, torchjd:PCGrad …, or weights: ks=2,asr=0.5"
    add("--balance", metavar="HOW", help=help_text)
    help_text = "which tasks train in a step: all (default), round_robin, proportional (to their size), temperature"
    add("--sampling", metavar="HOW", help=help_text)
    help_text = "which step to keep: the last one (default), or gain: the one with the largest mean gain over single-task runs"
    add("--select", choices=("last", "gain"), help=help_text)
    help_text = "start heads from these single-task runs, or from those of the plan (`single`)"
    add("--init-heads", metavar="TASK=RUN,…", help=help_text)
    add("--seeds", metavar="A,B", help="train every run of the plan once for each seed: 1,2,3")
    help_text = "score each group of utterances too: device,lang (labels of the corpora, speaker or session)"
    add("--by", metavar="LABEL,…", help=help_text)
    help_text = (
        "tasks: the plan of these tasks alone (as --tasks); parts (single-ks, all, without-ks, transfer-ks): only these runs of "
        "the plan, and those that they start from"
    )
    add("--only", metavar="TASK,…", help=help_text)
    add("--plan", "--dry-run", action="store_true", help="print the plan and stop")
    add("--jobs", type=int, default=1, metavar="N", help="train N runs at the same time (default: 1)")
    add_launch(add)
    add("-n", "--expname", metavar="NAME", help="write to result/mtl/NAME")
    add("-p", "--expdir", metavar="DIR", help="write to this folder")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    add("--quiet", action="store_true", help="print only plans and tables")
    return parser


def main(arguments: Sequence[str], prog: str = "headwater mtl") -> int:
    """Print the plan, run what is left of it, print its tables."""
    flags = make_parser(prog).parse_args(arguments)
    from ..core.run_folder import RunFolder
    from ..plans.scenario import plan_scenario

    if flags.jobs < 1:
        raise UserError(f"Expected --jobs of 1 or more, found {flags.jobs}. Leave it out to train one run after the other.")
    refuse_jobs_in_a_launch(flags)
    refuse_launch(flags)
    values = values_of(flags)
    seeds = split_numbers(flags.seeds, "--seeds") if flags.seeds else [seed_of(values)]
    plan = plan_scenario(values, flags.scenario, seeds)
    refuse_typed_steps(flags, plan)
    folder = folder_of(flags, plan)
    wanted = by_part(plan.only([name for name in split_words(flags.only) if name not in plan.tasks]))
    print_result(plan_text(plan, wanted, folder))
    if flags.plan:
        return 0
    by = split_words(flags.by)
    if flags.launch == SLURM and (code := submit_left(["mtl", *arguments], wanted, folder, flags, {}, by)) is not None:
        return code
    lacking = run_left(wanted, folder, flags, {}, by)
    if lacking and not any(RunFolder(folder / run.name).result.is_file() for runs in wanted.values() for run in runs):
        raise UserError(next(iter(lacking.values())))  # nothing could be run: there is no table to print
    if is_main():
        finish(plan, folder, lacking)
    return 3 if lacking else 0


def seed_of(values: Mapping[str, Any]) -> int:
    """Return the seed that the recipe or -o names."""
    from ..core.options import SEED, convert

    try:
        return convert(Annotated[int, SEED], values.get("seed", 1), "seed", [])
    except ValueError as problem:
        raise UserError(str(problem)) from None


def refuse_jobs_in_a_launch(flags: Namespace) -> None:
    """Refuse several runs at once inside of a launch that gives all processes to one run."""
    if flags.jobs > 1 and in_launch():
        raise UserError(
            f"Expected one run at a time under torchrun, found --jobs {flags.jobs}. Either `torchrun --nproc_per_node N "
            f"run_mtl.py …` without --jobs (each run on all processes), or `python run_mtl.py … --jobs {flags.jobs}` (each on "
            "its own share)."
        )


def refuse_typed_steps(flags: Namespace, plan: Scenario) -> None:
    """Refuse options that the earlier run of a final model decides."""
    from ..core.options import merge, parse_override
    from ..runs.final import refuse_typed

    if plan.config.split:
        refuse_typed(plan.config, reduce(merge, map(parse_override, flags.override), {}))


def split_words(text: str | None) -> list[str]:
    """Return `a,b` as words."""
    return [word for word in (part.strip() for part in (text or "").split(",")) if word]


def values_of(flags: Namespace) -> dict[str, Any]:
    """Return what decides the plan, the recipe below the flags."""
    from ..core.options import merge, parse_override
    from ..plans.joint_values import joint_values, without_idle_cosines

    upstreams = {
        "upstream": upstream_of(flags),
        "text_upstream": {"name": flags.text_upstream},
        "teacher": {"name": flags.teacher},
    }
    data: dict[str, str] = {}
    for pair in flags.data:
        data |= split_pairs(pair, "--data")
    typed = [*([{"training": {"shard": True}}] if flags.shard else []), *map(parse_override, flags.override)]
    values = joint_values(flags.config, split_words(flags.tasks), upstreams, typed, data=data, demo=flags.demo)
    values |= {"shared_weights": True} if flags.shared_weights else {}
    values |= {"select": flags.select} if flags.select else {}
    values = merge(values, balance_of(flags))
    values = merge(values, {"sampling": {"mode": flags.sampling}} if flags.sampling else {})
    if not flags.config:
        values = without_idle_cosines(values, typed, flags.scenario)
    return restricted(with_heads(flags, values), split_words(flags.only))


def restricted(values: dict[str, Any], only: Sequence[str]) -> dict[str, Any]:
    """Return the values for those of the tasks that --only names, as if there were no others; for all where it names none."""
    from ..plans.joint_values import section_in

    chosen = {name for name in values["tasks"] if name in only} or {*values["tasks"]}

    def of_chosen(section: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in section.items() if name in chosen}

    kept = {key: of_chosen(section_in(values, key)) for key in ("tasks", "baselines") if values.get(key)}
    if isinstance(weights := section_in(values, "balance").get("weights"), Mapping) and {*weights} <= {*values["tasks"]}:
        kept["balance"] = {**values["balance"], "weights": of_chosen(weights)}
    if len(chosen) < len(values["tasks"]) and not any(map(is_taught, kept["tasks"].items())):
        values = {key: value for key, value in values.items() if key != "teacher"}
    return values | kept


def is_taught(section: tuple[str, Mapping[str, Any]]) -> bool:
    """Return whether a task is one that a teacher gives."""
    from ..downstream.base import takes_teacher
    from ..downstream.load import load_task

    name, options = section
    return takes_teacher(load_task(options.get("task", name)).options)


def upstream_of(flags: Namespace) -> dict[str, Any]:
    """Return what the flags say of the upstream."""
    given = {"name": flags.upstream, "path": flags.upstream_ckpt}
    return {key: value for key, value in given.items() if value is not None}


def balance_of(flags: Namespace) -> dict[str, Any]:
    """Return what --balance says: a method, or a weight for each task."""
    if not flags.balance:
        return {}
    if "=" not in flags.balance:
        return {"balance": {"method": flags.balance}}
    try:
        weights = {task: float(weight) for task, weight in split_pairs(flags.balance, "--balance").items()}
    except ValueError:
        raise UserError(f"Expected weights such as --balance ks=2,asr=0.5, found '{flags.balance}'.") from None
    return {"balance": {"method": "fixed", "weights": weights}}


def with_heads(flags: Namespace, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the heads that the tasks start from."""
    from ..plans.execute import SINGLE

    if not flags.init_heads:
        return values
    if flags.init_heads == "single":
        heads = dict.fromkeys(values["tasks"], SINGLE)
    else:
        heads = split_pairs(flags.init_heads, "--init-heads")
    for name, run in heads.items():
        if name not in values["tasks"]:
            raise UserError(
                f"Expected a task of the plan in --init-heads, found '{name}'. They are {', '.join(values['tasks'])}."
            )
        values["tasks"][name]["init_head"] = run
    return values


def by_part(runs: Sequence[Part]) -> dict[str, list[Part]]:
    """Return runs by the part of the plan that they are a seed of."""
    parts: dict[str, list[Part]] = {}
    for run in runs:
        parts.setdefault(run.name.split("/")[0], []).append(run)
    return parts


def plan_text(plan: Scenario, wanted: dict[str, list[Part]], folder: Path) -> str:
    """Return the plan: its parts, what is done, steps, GB and hours left."""
    from ..analysis.table import render

    rows = outlook_rows(wanted, by_part(plan.parts), folder, {})
    lines = [f"plan      {plan.config.upstream.name}: {', '.join(plan.tasks)}", render(rows), f"folder    {folder}"]
    if plan.missing:
        lines.append(f"missing   tasks of the paper that there are no experts for yet: {', '.join(plan.missing)}")
    return "\n".join([*lines, *hours_lines(rows)])


def folder_of(flags: Namespace, plan: Scenario) -> Path:
    """Return where the plan goes."""
    from ..plans.naming import place_of_scenario

    if flags.expname and flags.expdir:
        raise UserError("Expected one folder for the plan, found both -n and -p. Leave one out.")
    return Path(flags.expdir) if flags.expdir else place_of_scenario(plan, flags.expname or "")


def finish(plan: Scenario, folder: Path, lacking: dict[str, str]) -> None:
    """Write and print the tables, the relations, the scores of groups and the report."""
    from ..analysis.relations.joint_tables import folders_of, report_table
    from ..analysis.report.report import report
    from ..analysis.table import group_tables
    from ..core.run_folder import RunFolder

    missing = (f"missing   {name}: {reason}" for name, reason in lacking.items())
    print_result("", report_table(plan, folder), *missing)
    finished = folders_of(plan, folder)
    for place in finished:
        lines = group_tables(RunFolder(place).read().result())
        print_result(*[f"\n{place.relative_to(folder)}"] * bool(lines), *lines)
    if finished:
        report([folder], folder / "report.html")
    print_result(f"written to {folder}")
