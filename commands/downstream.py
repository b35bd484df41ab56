"""Train and evaluate one task."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Namespace
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError
from ..plugins.code import name_behind
from ..plugins.provenance import refuse_other_code
from . import qbe
from .common.console import print_note, print_result
from .common.hints import DOWNSTREAM
from .common.launch import LOCAL, NONE, SLURM, add_launch, refuse_launch, refuse_unfinished, submitted
from .common.naming import folder_of
from .common.plan_view import footnotes, grid_text
from .common.sections import changed_afterwards, text_weights_of
from .common.shell import Parser, TypedPath, split_numbers
from .s3prl.flags import translated, translation_note

if TYPE_CHECKING:
    from ..plans.execute import Part
    from ..runs.config.schema import RunConfig
    from ..runs.runtime import Runtime


HELP = "train one task on an upstream, and test it (the same as `python run_downstream.py`)"
EXAMPLE = "headwater downstream -u hubert -d emotion --data IEMOCAP_full_release"
OPTIONS = """\

options that are often set after -o (config.yaml in a run folder lists all of them):
  solver=adam                                                       a head of two layers by steps, not the exact linear one
  training.steps=2000 training.patience=5 training.batch_size=32    how long to train (solver=adam, as the next line)
  optimizer.lr=1e-4 optimizer.upstream_lr=1e-5                      learning rates of the head, and of the upstream with -f
  corpus.protocol=speaker10                                         how the corpus is split into train, dev and test
  corpus.options.columns='{audio: wav, label: emotion}'             which column of your table is which
  corpus.options.audio_root=DIR                                     the folder that relative paths in your table start from
  corpus.skip_broken=true                                           train without the audio files that cannot be read
  corpus.missing_text=drop                                          train without the utterances that have no transcript
  labels.keep='[neu, hap]' labels.merge='{exc: hap}'                choose and join classes
  upstream.normalize_layers=true                                    normalize each layer before the weighted sum
  text_upstream.path=DIR                                            weights of the text upstream
  store.limit=20GB store.precision=int8                             how many features may be cached, and frames in 8 bits
  corpus.demo_scale=0.2                                             size of the miniature of --demo"""


def make_parser(prog: str) -> Parser:
    """Return the flags; those of s3prl keep their meaning."""
    example = EXAMPLE.replace("headwater downstream", prog)
    help_text = "Train one task on the layers of an upstream, choose the best step on dev, and test it once."
    parser = Parser(prog, help_text, f"{example}\n{OPTIONS}", DOWNSTREAM)
    add = parser.add_argument
    help_text = "train (default), or evaluate: test the finished run after -e"
    add("-m", "--mode", choices=("train", "evaluate", "inference"), default="train", help=help_text)
    help_text = (
        "the model that reads audio: a name that `headwater list upstreams` shows, a hub id, a model folder, a run folder, "
    )
    add("-u", "--upstream", action=TypedPath, kind="upstream", help=f"{help_text}s3prl/NAME, ./my_upstream.py")
    add("-k", "--upstream_ckpt", metavar="PATH", help="load the weights of the upstream from this folder, or from s3prl's .pt")
    help_text = "the model that reads transcripts: bert, tinybert, hashed_words, a hub id, a folder, ./my_upstream.py"
    add("--text-upstream", metavar="NAME", action=TypedPath, kind="upstream", help=help_text)
    help_text = "the model whose layers the upstream learns (-d pretrain, -d distil): mfcc_no_cmvn, whisper_base, a run folder"
    add("--teacher", metavar="NAME", action=TypedPath, kind="upstream", help=help_text)
    help_text = "the task: a name that `headwater list tasks` shows, or the folder of your own task (./my_task)"
    add("-d", "--downstream", metavar="TASK", action=TypedPath, kind="task", help=help_text)
    help_text = "finetune the upstreams (default: frozen); convolutions too with -o upstream.front_end=trained"
    add("-f", "--upstream_trainable", action="store_true", help=help_text)
    help_text = (
        "use layer N in place of the weighted sum (0: input of block 1); `all` or 0,4,8: one head for each layer and the sum"
    )
    add("-l", "--upstream_layer_selection", metavar="N", help=help_text)
    help_text = "hidden_states: use all layers (default); last_hidden_state: use the last one"
    add("-s", "--upstream_feature_selection", metavar="KEY", help=help_text)
    add("--upstream_feature_normalize", action="store_true", help="normalize each layer before the weighted sum")
    help_text = "read options from a recipe: a yaml file, or a name that `headwater list recipes` shows (superb/emotion)"
    add("-c", "--config", metavar="YAML", help=help_text)
    help_text = "set options of the recipe, as in training.steps=2000 (see below)"
    add("-o", "--override", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=help_text)
    help_text = "the corpus: a name that `headwater list corpora` shows, or ./my_corpus.py (default: the task's usual corpus)"
    add("--corpus", action=TypedPath, kind="corpus", help=help_text)
    add("--data", metavar="PATH", help="folder of the corpus, or a csv / tsv / jsonl of your own")
    add("-v", "--downstream_variant", metavar="FOLD", help="train on this fold: 1, 2, … (or fold1, …)")
    add("--folds", metavar="A,B", help="train one run for each fold (`all`, or 1,2,3), and pool their predictions")
    add("--seeds", metavar="A,B", help="train one run for each seed: 1,2,3")
    add("--sweep", action="append", default=[], metavar="KEY=A,B", help="train one run for each value; dev chooses the best")
    add("--jobs", type=int, default=1, metavar="N", help="train N runs of the plan at the same time (default: 1)")
    add_launch(add)
    add("--plan", "--dry-run", action="store_true", help="print which runs would be trained, and where they would lie, and stop")
    add("--shard", action="store_true", help="with -f in several processes (torchrun): each holds a part of every weight")
    add("--demo", action="store_true", help="use the miniature corpus of the task, which is made on the spot")
    help_text = (
        "cache the features of a frozen upstream: auto (default: where they fit), on, off, check, or the folder of the cache"
    )
    add("--store", metavar="MODE", help=help_text)
    add("--share-layers", action="store_true", help=SUPPRESS)  # a plan passes it to its runs
    help_text = "read transcripts from a table (id, text), or use those that `headwater corpus transcribe` made with this model"
    add("--transcripts", metavar="WHAT", help=help_text)
    add("-n", "--expname", metavar="NAME", help="write to result/downstream/NAME")
    add("-p", "--expdir", metavar="DIR", help="write to this folder")
    add("-e", "--past_exp", metavar="RUN", help="the run to resume or to evaluate (RUN/dev-best.ckpt means RUN)")
    add("-i", "--init_ckpt", metavar="RUN", help="start from the head and the layer weights of this run")
    add("-t", "--evaluate_split", default="test", metavar="SPLIT", help="the split that -m evaluate tests (default: test)")
    help_text = "score each group of utterances too: device,lang (labels of the corpus, speaker or session)"
    add("--by", metavar="LABEL,…", help=help_text)
    add("-a", "--auto_resume", action="store_true", help="for s3prl's sake: a run always resumes")
    add("--again", action="store_true", help="train a new run beside a finished one of the same command")
    add("--seed", type=int, metavar="N", help="seed of every random draw (default: 1)")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: cuda where there is one)")
    add("--quiet", action="store_true", help="print only the table of results")
    return parser


def main(arguments: Sequence[str], prog: str = "headwater downstream") -> int:
    """Train or evaluate as the flags say, and print the table."""
    words = translated(arguments)
    if (search := qbe.words_of(words)) is not None:  # nothing is trained
        return qbe.run_as(search)
    flags = make_parser(prog).parse_args(words)
    print_note(*translation_note(arguments, words, prog))
    if flags.jobs < 1:
        raise UserError(f"Expected --jobs of 1 or more, found {flags.jobs}. Leave it out to train one run after the other.")
    refuse_launch(flags)
    from ..analysis.table import result_table, run_tables
    from ..plans.grid import checked_runtime, run_plan
    from ..runs.leakage import caveats
    from ..runs.runtime import Runtime

    runtime = Runtime(flags.device, flags.quiet, flags.share_layers, by=split_words(flags.by), named=bool(flags.past_exp))
    if flags.mode == "inference":
        raise UserError("Expected -m train or evaluate; s3prl's inference is a command: `headwater predict RUN my.wav`.")
    if flags.mode == "evaluate":
        for flag in ["--plan"] * flags.plan + ["--launch"] * (flags.launch != LOCAL):
            raise UserError(f"Expected {flag} beside -m train, found -m evaluate, which trains nothing. Leave one out.")
        print_result(result_table(evaluate(flags, runtime)))
        return 0
    config, parts, folder = plan_of(flags)
    if flags.plan:
        print_result(grid_text(config, parts, folder))
        return 0
    if flags.launch == NONE:
        refuse_unfinished(parts, folder)
    words = ["downstream", *arguments]
    if flags.launch == SLURM and submitted(words, flags, parts, folder, checked_runtime(parts, folder, runtime)):
        return 0
    try:
        result = run_plan(parts, folder, runtime, flags.jobs)
    except KeyboardInterrupt:
        print_note("the same command goes on where it was")
        raise
    warned = [f"note: {note}" for note in caveats(result.get("notes") or ())]  # with --quiet and in a file too
    print_result(run_tables(result), *warned, *footnotes(config, folder, parts))
    return 0


def split_words(text: str | None) -> tuple[str, ...]:
    """Return `device,lang` as words."""
    return tuple(filter(None, (word.strip() for word in (text or "").split(","))))


def plan_of(flags: Namespace) -> tuple[RunConfig, list[Part], Path]:
    """Return the config, its runs, and the folder they go to."""
    from ..core.options import parse_override
    from ..plans.grid import all_folds, expand, sweep_values
    from ..runs.config.resolve import resolve
    from ..runs.config.schema import roles_of
    from ..runs.final import refuse_typed

    if flags.past_exp:
        folder, config = past_run(flags, allowed=())
        return config, expand(config, own_folds(config), [config.seed], []), folder
    if any(sweep.startswith("solver=") for sweep in flags.sweep):
        raise UserError("Expected one solver for all runs of a sweep, found several. Train a run with each, and compare them.")
    swept = [parse_override(sweep_values(sweep)[0]) for sweep in flags.sweep]  # which solver they ask for, too
    config = resolve([*mappings_of(flags), *swept])
    if config.split:
        refuse_typed(config, typed_options(flags))
    if not roles_of(config):
        raise UserError("Expected an upstream, found none. Add `-u fbank`, or a name of `headwater list upstreams`.")
    folds: Sequence[int | None] = config.folds or own_folds(config)
    if flags.downstream_variant:
        folds = [fold_of(flags.downstream_variant)]
    if flags.folds:
        folds = all_folds(config) if flags.folds == "all" else split_numbers(flags.folds, "--folds")
    seeds = split_numbers(flags.seeds, "--seeds") if flags.seeds else [config.seed]
    parts = expand(config, folds, seeds, flags.sweep, probed_layers(flags, config))
    return config, parts, folder_of(flags, config, parts)


def own_folds(config: RunConfig) -> list[int | None]:
    """Return the fold of a run without --folds; several tasks keep their own."""
    return [None] if config.is_joint else [config.only.corpus.fold]


def mappings_of(flags: Namespace) -> list[dict[str, Any]]:
    """Return what decides the config, in rising precedence: the task's defaults, the recipe, the flags."""
    from ..core.options import parse_override, read_yaml
    from ..plans.recipe import is_paper
    from ..plans.scenario import OWN_SECTIONS
    from ..runs.config.recipes import demo_recipe, find_recipe, task_default

    recipe = read_yaml(find_recipe(flags.config)) if flags.config else {}
    if is_paper(recipe):
        raise UserError(f"Expected the recipe of a run after -c, found a paper's. Run it: headwater recipe {flags.config}")
    overrides = [parse_override(text) for text in flags.override]
    if "tasks" in recipe:
        if flags.downstream:
            raise UserError(f"Expected the tasks of '{flags.config}' alone, found -d {flags.downstream} beside it. Leave out -d.")
        joint = {key: value for key, value in recipe.items() if key not in OWN_SECTIONS}
        return [joint, flags_of_several(flags, joint), *overrides]
    recipe_task = recipe.get("task") and name_behind(str(recipe["task"]), "task")
    task = flags.downstream or recipe_task
    if not task:
        raise UserError("Expected a task, found none. Add `-d emotion`, or a recipe with `-c`.")
    if (recipe_task or task) != task:
        raise UserError(f"Expected the recipe's task '{recipe['task']}' after -d, found '{task}'. Leave out -d.")
    demo = demo_recipe(task) if flags.demo and not flags.config else {}
    return [task_default(task), demo, recipe, flags_mapping(flags, task), *overrides]


def typed_options(flags: Namespace) -> dict[str, Any]:
    """Return what was typed after -o, as a recipe would say it."""
    from ..core.options import merge, parse_override

    return reduce(merge, map(parse_override, flags.override), {})


def flags_mapping(flags: Namespace, task: str) -> dict[str, Any]:
    """Return what the flags say, as a recipe would say it."""
    upstream = {
        "name": flags.upstream,
        "path": flags.upstream_ckpt,
        "trainable": (flags.upstream_trainable and (bool(flags.upstream) or not flags.text_upstream)) or None,
        "layer": chosen_layer(flags),
        "normalize_layers": flags.upstream_feature_normalize or None,
    }
    corpus = {
        "name": flags.corpus,
        "data": flags.data,
        "fold": fold_of(flags.downstream_variant),
        "demo": flags.demo or None,
        "transcripts": flags.transcripts,
    }
    text: dict[str, Any] = {"name": flags.text_upstream}
    # -f is for the upstreams of the command: one that a recipe names is finetuned where the recipe says so
    text["trainable"] = (flags.upstream_trainable and bool(flags.text_upstream)) or None
    mapping = {
        "task": task,
        "store": given({"mode": flags.store}),
        "training": {"shard": True} if flags.shard else None,
        "upstream": given(upstream),
        "text_upstream": given(text),
        "teacher": given({"name": flags.teacher}),
        "corpus": given(corpus),
        "seed": flags.seed,
        "init_head": flags.init_ckpt,
    }
    return given(mapping)


OF_ONE = {"name": "--corpus", "data": "--data"}


def flags_of_several(flags: Namespace, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the flags say of a run of several tasks; where an option is a task's, of each of them."""
    mapping = flags_mapping(flags, "")
    corpus = mapping.pop("corpus")
    for key, flag in OF_ONE.items():
        if key in corpus:
            advice = f"Say which: -o tasks.NAME.corpus.{key}=…"
            raise UserError(f"Expected no {flag} beside a recipe of several tasks, found one. {advice}")
    own = {"corpus": {key: value for key, value in corpus.items() if key != "fold"}, "init_head": mapping.pop("init_head", None)}
    shared = {key: value for key, value in mapping.items() if key != "task"}
    return {**shared, "tasks": {name: given(own) for name in recipe["tasks"] or {}}}


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return what the user gave: flags left out are None."""
    return {key: value for key, value in values.items() if value is not None}


def chosen_layer(flags: Namespace) -> int | None:
    """Return the one layer of -l or -s; several are a plan's business."""
    known = {None: None, "hidden_states": None, "last_hidden_state": -1}
    if flags.upstream_feature_selection not in known:
        raise UserError(f"Expected -s hidden_states or last_hidden_state, found '{flags.upstream_feature_selection}'.")
    selection = flags.upstream_layer_selection
    if selection is None:
        return known[flags.upstream_feature_selection]
    if selection == "all" or "," in selection:
        return None
    try:
        return int(selection)
    except ValueError:
        raise UserError(f"Expected a layer after -l, as in `-l 9`, `-l 0,4,8` or `-l all`, found '{selection}'.") from None


def probed_layers(flags: Namespace, config: RunConfig) -> list[int | None]:
    """Return the layers that have a head each, the weighted sum (None) last; only the sum or one layer otherwise."""
    selection = flags.upstream_layer_selection
    if selection is None or not (selection == "all" or "," in selection):
        return [config.upstream.layer]
    if not config.upstream.name:
        raise UserError("Expected an audio upstream (-u) for a probe of its layers, found a run on text only. Add -u.")
    if config.upstream.trainable:
        raise UserError("Expected a frozen upstream for a probe of its layers, found -f. Leave it out.")
    from ..upstream.load import load_upstream

    count = load_upstream(config.upstream).spec.num_layers
    if count == 1:
        raise UserError(f"Expected several layers for a probe, found that '{config.upstream.name}' has one. Leave out -l.")
    layers = list(range(count)) if selection == "all" else split_numbers(selection, "-l")
    outside = [layer for layer in layers if not -count <= layer < count]
    if outside:
        raise UserError(f"Expected layers between 0 and {count - 1} after -l, found {outside[0]}.")
    return [*dict.fromkeys(layer % count for layer in layers), None]


def fold_of(variant: str | None) -> int | None:
    """Return the fold of s3prl's `-v fold1`, or of `-v 1`."""
    if variant is None:
        return None
    match = re.fullmatch(r"(?:fold)?(\d+)", variant)
    if not match:
        raise UserError(f"Expected a fold after -v, as in `-v 1` or `-v fold1`, found '{variant}'.")
    return int(match[1])


def evaluate(flags: Namespace, runtime: Runtime) -> dict[str, Any]:
    """Test a finished run: on its own corpus, or on the one that the flags name."""
    from ..inference.evaluate import evaluate_run

    if not flags.past_exp:
        raise UserError("Expected the run to evaluate, found none. Add `-e RUN`.")
    folder, config = past_run(flags, allowed=("corpus", "labels"))
    return evaluate_run(
        folder,
        config.only.corpus,
        config.only.labels,
        flags.evaluate_split,
        runtime,
        flags.upstream_ckpt,
        text_weights_of(typed_options(flags)),
        flags.downstream,
        changed_afterwards(config.only),
    )


def past_run(flags: Namespace, allowed: Sequence[str]) -> tuple[Path, RunConfig]:
    """Return the run after -e with its config; flags may change what is allowed, and where it reads, but not what it is."""
    from ..core.options import differences, parse_override, read_yaml
    from ..core.run_folder import RunFolder
    from ..runs.config.identity import identity_of
    from ..runs.config.recipes import find_recipe
    from ..runs.config.resolve import resolve, task_in
    from ..runs.config.schema import alone, to_mapping

    others = {
        "-n": flags.expname,
        "-p": flags.expdir,
        "--folds": flags.folds,
        "--seeds": flags.seeds,
        "--sweep": flags.sweep,
        "--again": flags.again,
    }
    for flag in (flag for flag, value in others.items() if value):
        raise UserError(f"Expected -e to name the one run, found {flag} beside it. Leave {flag} out.")
    run = RunFolder.open(flags.past_exp)
    folder, recipe = run.path, run.read().config()
    refuse_other_code(folder, recipe)
    elsewhere = "corpus" in allowed and bool(flags.corpus or flags.data)
    trained = resolve([recipe], reads_corpus=not elsewhere)
    if allowed and trained.is_joint:  # of several tasks one is tested
        trained = alone(trained, task_in(trained, folder, flags.downstream))
    base = to_mapping(trained)
    if elsewhere:
        base["corpus"], base["labels"] = {"demo": flags.demo}, {}
    recipe = read_yaml(find_recipe(flags.config)) if flags.config else {}
    over = flags_of_several(flags, base) if trained.is_joint else flags_mapping(flags, flags.downstream or trained.only.task)
    config = resolve([base, recipe, over, *map(parse_override, flags.override)])
    before, now = ({k: v for k, v in identity_of(it).items() if k not in allowed} for it in (trained, config))
    for name in changed_afterwards(config.only).get(config.only.task, ()) if allowed else ():
        before[config.only.task].pop(name, None), now[config.only.task].pop(name, None)
    lines = differences(before, now)
    if lines:
        listed = "; ".join(lines[:8])
        raise UserError(f"Expected '{folder}' as it was trained, found other options: {listed}. Leave them out, or train anew.")
    return folder, config
