"""The README of an exported folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...runs.config.schema import roles_of
from ...runs.leakage import caveats
from ..trained_run import TrainedRun


def readme(run: TrainedRun, result: Mapping[str, Any], exported: Exported) -> str:
    """Return the README of an exported run: what it is, what it was made from, and how to use it."""
    name = run.config.only.task
    sections = [
        f"# {name}: {result.get('upstream', '')}",
        *(f"**{mark}: not a result to quote.**" for mark in run.marks),
        f"A trained run of Headwater. {holds(exported.needed)}",
        made_from(run, result),
        *scores_of(result),
        f"## What it predicts\n\n{prediction_text(run)}",
        *(
            f"Left out here, since its files lie elsewhere: `{name}`. `headwater predict -o {name}.…` brings it back."
            for name in exported.left_out
        ),
        usage(run, exported.code),
        *([onnx_usage(exported.graph)] if exported.graph else []),
        LICENCE,
    ]
    return "\n\n".join(sections) + "\n"


LICENCE_NOTE = (
    "The weights keep the licence of the model that they come from, and what the corpus' owners allow of models trained on it "
    "holds too."
)
LICENCE = f"## Licence\n\n{LICENCE_NOTE} Look both up before you pass this folder on."


def holds(needed: Sequence[str]) -> str:
    """Return what a folder holds, and what it needs beside that."""
    if needed:
        return f"To predict, the folder needs {' and '.join(needed)}; all else is in it: no network, no cache, no other folder."
    return "The folder contains all that is needed to predict: no network, no cache, no other folder."


def made_from(run: TrainedRun, result: Mapping[str, Any]) -> str:
    """Return the table of what a run was made from."""
    corpus = [str(result[key]) for key in ("corpus", "protocol") if result.get(key)]
    fold = [f"fold {result['fold']}"] if result.get("fold") else []
    rows = {"task": run.config.only.task}
    for role, section in roles_of(run.config).items():
        depth = "finetuned" if section.trainable else "frozen"
        layer = "" if section.layer is None else f", layer {section.layer}"
        rows[f"{role} upstream"] = f"{run.model.upstream(role).name.rstrip('/').split('/')[-1]}, {depth}{layer}"
    rows |= {"corpus": ", ".join([*corpus, *fold]), "seed": str(result.get("seed", ""))}
    rows |= {"step": str(result.get("best_step", ""))} if "exact" not in result else {"head": "linear, solved exactly"}
    made_by = result.get("environment", {})
    rows |= {"headwater": str(made_by.get("headwater", "")), "headwater's commit": str(made_by.get("commit") or "")}
    lines = [f"| {key} | {value} |" for key, value in rows.items() if value]
    return "\n".join(["## What it was made from", "", "| | |", "|---|---|", *lines])


def scores_of(result: Mapping[str, Any]) -> list[str]:
    """Return the scores of a run's splits other than dev with their intervals; nothing of a run without a score."""
    rows = []
    for split, scores in result.get("scores", {}).items():
        for metric in result.get("metrics", ()) if split != "dev" else ():
            ends = (result.get("intervals", {}).get(split) or {}).get(metric)
            known = f"[{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "none"
            value = "none" if scores.get(metric) is None else f"{scores[metric]:.3f}"  # of speech, slots: a split may have none
            rows += [f"| {split} | {metric} | {value} | {known} |"] if metric in scores else []
    table = ["## How well it does", "", "| split | metric | score | 95 % interval |", "|---|---|---|---|", *rows]
    warned = [f"\n{note}." for note in caveats(result.get("notes", ()))]
    return ["\n".join([*table, *warned])] if rows else []


def prediction_text(run: TrainedRun) -> str:
    """Return what a run predicts, in words."""
    inputs = {"audio": "sound", "text": "words"}
    needs = " and ".join(inputs[role] for role in run.expert.roles)
    return f"From the {needs} of a file, {run.answer.describe()}"


def usage(run: TrainedRun, code: Sequence[str]) -> str:
    """Return how to use a folder, on the command line and in Python."""
    has_text = "text" in run.expert.roles
    lines = ["## How to use it", "", "In the folder that holds this file:", ""]
    use = "".join(f" --use {file}" for file in code)
    lines += [f"    headwater predict .{use} {'list.csv   # columns audio, text' if has_text else 'my.wav'}", ""]
    if code:
        files = ", ".join(f"`{file}`" for file in code)
        lines += [f"The run's user wrote {files}: read it first, it is executed where you type its path."]
        return "\n".join(lines)
    argument = ', "what is said"' if has_text else ""
    lines += ["    import headwater", '    run = headwater.load_run(".")', f'    print(run.predict("my.wav"{argument}))']
    return "\n".join(lines)


def onnx_usage(graph: Mapping[str, Any]) -> str:
    """Return how the graph beside it is used, and how far it is from the run."""
    worst, output = graph["compared"]["worst_difference"], graph["output"]["name"]
    return f"""## Without Headwater: `model.onnx`

    import onnxruntime, soundfile
    waveform, rate = soundfile.read("my.wav", dtype="float32")  # {graph["sample_rate"]} Hz, mono
    {output} = onnxruntime.InferenceSession("model.onnx").run(None, {{"waveform": waveform[None]}})

`model.json` says what the numbers are, and how long files are cut. Over made-up speech of 0.5 to 20 s
and silence the largest difference to the run itself was {worst:.1e}."""


@dataclass(frozen=True)
class Exported:
    """The description of an export."""

    graph: Mapping[str, Any]  # nothing, where none was asked for, or none was kept
    no_graph: str  # why one that was asked for is not there
    needed: Sequence[str]  # beside the folder
    code: Sequence[str]  # of the user's own, as it is to be typed in the folder
    left_out: Sequence[str] = ()  # options whose files lie elsewhere
    no_page: str = ""  # why a page that was wanted is not there
