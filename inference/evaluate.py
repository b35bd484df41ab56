"""A finished run on another split, or on another corpus than the trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import UserError
from ..core.run_folder import RunFolder
from ..corpus.base import Corpus, Utterance
from ..downstream.labels import LabelsConfig
from ..downstream.load import load_task
from ..downstream.tables import tables_of
from ..runs.config.identity import fingerprint
from ..runs.config.schema import CorpusConfig, roles_of
from ..runs.evaluation import task_result
from ..runs.leakage import count_trained, parts_of, trained_utterances
from ..runs.prepare import make_examples, read_corpus
from ..runs.results import environment, split_results, write_split
from ..runs.runtime import Runtime, make_accelerator, print_progress
from ..runs.utterances import usable_utterances
from ..training.loop import evaluate
from ..training.source import Source
from ..training.step import TaskData
from .trained_run import load_one


def evaluate_run(
    folder: Path,
    corpus: CorpusConfig,
    labels: LabelsConfig,
    split: str,
    runtime: Runtime,
    weights: str | None = None,
    text_weights: str | None = None,
    task: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a run's scores on a split of a corpus, and leave them in the run folder under `evaluations/`.

    `task` names one of a run of several. `options` are those by task that a finished run can change.
    """
    trained = load_one(folder, weights, text_weights, task, options=options)
    config = trained.config.with_only(replace(trained.config.only, corpus=corpus))
    accelerator = make_accelerator(config, runtime)
    trained.model.to(accelerator.device)
    test_corpus, kind = read_for_test(corpus), load_task(config.only.task)
    if split not in test_corpus.splits:
        raise UserError(
            f"Expected split '{split}' in {test_corpus.name}, found only {', '.join(test_corpus.splits)}. Choose one with -t."
        )
    tested, question = replace(test_corpus, splits={split: test_corpus.splits[split]}), kind.question(config.only.expert)
    vocabulary, label_note = question.adapt(trained.expert.vocabulary, labels, tested)
    rows = question.select(vocabulary, test_corpus.splits[split])
    refuse_trained_on(folder, test_corpus.name, rows, split)
    upstreams = {role: trained.model.upstream(role) for role in roles_of(config)}
    chosen, seconds, notes = usable_utterances({split: tuple(rows)}, corpus, upstreams, writes=question.writes)
    examples = make_examples(question, vocabulary, chosen[split], seconds, trained.expert)
    if not examples:
        raise UserError(f"Expected utterances with the run's labels in split '{split}' of {test_corpus.name}, found none.")
    tables, source = {split: tables_of(question, tested, split)}, Source(tuple(upstreams))
    only = config.only
    data = TaskData(only.task, trained.expert, question, {split: examples}, source, only.select_by, 1, tables=tables)
    outcome = evaluate(trained.model, data, split, accelerator, config.training)
    marks = tuple(dict.fromkeys([*trained.marks, *(("DEMO",) if test_corpus.demo else ())]))
    whole = RunFolder(folder).read().result("source", "best_step")
    own = task_result(whole, trained.name)
    result = {
        **{key: own[key] for key in ("task", "upstream", "source", "seed", "best_step", "select_by")},
        "run": str(folder),
        "trained_on": trained.config.only.corpus.name,
        "corpus": test_corpus.name,
        "protocol": test_corpus.protocol,
        "fold": test_corpus.fold,
        "marks": list(marks),
        "transcripts": test_corpus.tables.get("transcripts", {"source": test_corpus.name, "wer": None}),
        **split_results(data, {split: outcome}, runtime.by),
        "notes": [label_note, *test_corpus.notes, *question.notes(vocabulary, tested.splits), *notes],
        "fingerprint": fingerprint(data.splits, read="text" in upstreams),
        "environment": environment(accelerator.device, 0.0),
    }
    fold = [f"fold{test_corpus.fold}"] if test_corpus.fold is not None else []
    several = [trained.name] if "tasks" in whole else []
    name = "-".join([*several, test_corpus.name, test_corpus.protocol, *fold, split, result["fingerprint"][:6], *marks])
    place = RunFolder(folder).evaluation(name)
    if accelerator.is_main_process:
        write_split(place, split, outcome, data, marks)
        place.write(result=result)
        notes = tuple(f"note      {note}" for note in result["notes"])
        print_progress(runtime, *notes, f"written to {place.path}")
    return result


def read_for_test(config: CorpusConfig) -> Corpus:
    """Return the corpus; a table that has no split of its own is tested as a whole."""
    corpus = read_corpus(config)
    own = config.name != "manifest" or config.protocol != "auto" or corpus.protocol == "split"
    return corpus if own else read_corpus(replace(config, protocol="all_test", fold=1))


def refuse_trained_on(folder: Path, corpus: str, rows: Sequence[Utterance], split: str) -> None:
    """Refuse to test a run on what it was trained on, another fold of its own corpus for instance."""
    trained = RunFolder(folder).read().trained_on()
    seen = count_trained(trained_utterances(trained, corpus), corpus, rows)
    if seen and any(part.get("all") for part in parts_of(trained)):
        raise UserError(
            f"Expected utterances that '{folder}' was not trained on, found {seen} of {len(rows)}: it was trained on all of "
            f"{corpus} (split=all). Test it on another corpus: --corpus NAME or --data TABLE."
        )
    if seen and split != "train":
        raise UserError(
            f"Expected utterances that '{folder}' was not trained on, found {seen} of {len(rows)} in split '{split}'. "
            "Test the run's own fold and protocol (leave out -v and corpus.protocol), or look at -t train."
        )
