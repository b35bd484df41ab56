"""The names that flags take: tasks, corpora, upstreams, recipes."""

from __future__ import annotations

from functools import cache

from headwater.core.options import read_yaml
from headwater.corpus.load import claimants, list_corpora
from headwater.downstream.base import TASKS
from headwater.downstream.load import load_task
from headwater.plans.recipe import is_paper
from headwater.runs.config.recipes import RECIPES
from headwater.upstream.load import list_upstreams

from .layouts import layout
from .markdown import block, code, linked, table


def tasks_page() -> str:
    """Return the page of all tasks."""
    rows = []
    for name in TASKS.built_in():
        task = load_task(name)
        question = task.question(task.options())
        metrics = [question.primary_metric, *(metric for metric in question.metrics if metric != question.primary_metric)]
        corpora = [corpus for corpus, reader in list_corpora().items() if question.name in reader.tasks]
        usual = claimants(question.name)
        cells = [f"[`{name}`](../../downstream/{name}/README.md)", ", ".join(map(code, usual))]
        rows.append([*cells, ", ".join(code(corpus) for corpus in corpora if corpus not in usual), ", ".join(map(code, metrics))])
    head = ("`-d`", "usual corpus", "other corpora", "metrics (the first one is reported)")
    text = "A task of your own is one folder: [CONTRIBUTING](../../CONTRIBUTING.md). Spoken queries are a verb: [qbe](../qbe.md)."
    return "\n".join(["# Every task", "", text, "", *table(head, rows), ""])


@cache
def corpora_page() -> str:
    """Return the page of all corpora."""
    text = "How to say where one lies, and how to bring your own table: [corpora](../corpora.md)."
    lines = ["# Every corpus", "", text, ""]
    for name, reader in list_corpora().items():
        protocols = [f"`{key}`" + f" ({folds} folds)" * (folds > 1) for key, folds in reader.protocols.items()]
        tasks = [f"`{task}`{' (usual)' * (task in reader.default_for)}" for task in reader.tasks]
        rows = [
            ("serves", ", ".join(tasks)),
            ("where from, licence", linked(reader.where)),
            ("protocols", ", ".join(protocols)),
            ("where it lies", "`--data FILE`" if reader.is_file else f"`--data FOLDER`, or `$HEADWATER_DATA/{name}`"),
            ("miniature (`--demo`)", "yes, in the same layout" if reader.make_demo else "no"),
        ]
        if reader.options:
            options = [f"`{option}={value.default}`" for option, value in reader.options.items()]
            rows.append(("`-o corpus.options.…`", ", ".join(options)))
        read = "\n\n".join(" ".join(part.split()) for part in (reader.read.__doc__ or "").split("\n\n") if part.strip())
        read = read.removeprefix("Return ")
        read = f"{read[:1].upper()}{read[1:]}"
        about = f"{reader.description[0].upper()}{reader.description[1:]}."
        lines += [f"## {name}", "", about, "", *table(("", ""), rows), "", read, ""]
        if reader.make_demo:
            lines += ["Its folder, as its miniature has it:", "", *block("\n".join(layout(reader.make_demo))), ""]
    return "\n".join(lines)


def upstreams_page() -> str:
    """Return the page of all upstreams that have a name."""
    text = "What `-u` and `--text-upstream` take besides these: [models](../models.md). Weights keep their owners' licences."
    lines = ["# Every upstream with a name", "", text, ""]
    for modality in ("audio", "text"):
        rows = [(code(row.name), row.source, row.description) for row in list_upstreams("*", modality)]
        lines += [f"## {modality.capitalize()}", "", *table(("name", "from", "what it is"), rows), ""]
    return "\n".join(lines)


def recipes_page() -> str:
    """Return the page of all recipes, each as it is."""
    lines = ["# Every recipe", "", "How to run one, and how to write your own: [recipes](../recipes.md).", ""]
    for path in sorted(RECIPES.rglob("*.yaml")):
        name, mapping = str(path.relative_to(RECIPES).with_suffix("")), read_yaml(path)
        verb = "recipe" if is_paper(mapping) else "mtl -c" if "tasks" in mapping else "downstream -c"
        include = [f"```{{literalinclude}} ../../recipes/{name}.yaml", ":language: yaml", "```"]
        lines += [f"## {name}", "", f"`headwater {verb} {name}`", "", *include, ""]
    return "\n".join(lines)
