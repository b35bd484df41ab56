"""What to type instead of a verb or a flag that is not there: former ones, and those that other toolkits have."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.errors import UserError, nearest

# former verb -> the words that do the same today
MOVED = {
    "upstreams": ("list", "upstreams"),
    "layer-weights": ("plot", "layers"),
    "geometry": ("plot", "geometry"),
    "relations": ("plot", "relations"),
    "doctor": ("check",),
}
TRAIN = "`headwater downstream -u hubert -d emotion --data FOLDER`"
TEST = "To test a finished run, type `headwater downstream -m evaluate -e RUN`"
PREDICT = "To label files with a finished run, type `headwater predict RUN my.wav`."
# verb of another toolkit -> what does that here
GUESSED = {
    "train": f"To train one task, type {TRAIN}; to train several together, `headwater mtl`.",
    "run": f"To train one task, type {TRAIN}; to run a paper's experiments, `headwater recipe`.",
    "finetune": "To finetune an upstream, add -f: `headwater downstream -f -u hubert -d emotion --data FOLDER`.",
    "fit": f"To train one task, type {TRAIN}.",
    "evaluate": f"{TEST}; to test it on another corpus, add --corpus and --data.",
    "eval": f"{TEST}; to test it on another corpus, add --corpus and --data.",
    "test": f"{TEST}; to check this machine, `headwater check`.",
    "probe": "To train a head on each layer, add -l all: `headwater downstream -l all -u hubert -d emotion --data FOLDER`; "
    "then draw the scores with `headwater plot layers --probe RUN`.",
    "infer": PREDICT,
    "inference": PREDICT,
    "search": "To search recordings for a spoken query, type `headwater qbe -u hubert -l 9 --queries word.wav "
    "--documents FOLDER`.",
    "transcribe": "To transcribe a corpus, type `headwater corpus transcribe NAME --data FOLDER`; to transcribe files with a "
    "trained run, `headwater predict RUN my.wav`.",
    "demo": "To train on a miniature corpus, type `headwater downstream -u fbank -d emotion --demo`; to make one, "
    "`headwater corpus demo NAME`.",
    "layers": "To draw the layer weights of a run, type `headwater plot layers RUN`.",
    "models": "To list the models, type `headwater list upstreams`.",
    "tasks": "To list the tasks, type `headwater list tasks`.",
    "corpora": "To list the corpora, type `headwater list corpora`.",
    "recipes": "To list the recipes, type `headwater list recipes`.",
    "version": "To print the version, type `headwater --version`.",
}
# flag of another toolkit -> what stands for it in `headwater downstream`
FLAGS = {
    "--task": "-d {}",
    "--model": "-u {}",
    "--dataset": "--corpus {}",
    "--checkpoint": "-k {}",
    "--layer": "-l {}",
    "--layers": "-l {}",
    "--finetune": "-f",
    "--output": "-p {}",
    "--output_dir": "-p {}",
    "--output-dir": "-p {}",
    "--out": "-p {}",
    "--gpu": "--device cuda",
    "--lr": "-o optimizer.lr={}",
    "--learning_rate": "-o optimizer.lr={}",
    "--learning-rate": "-o optimizer.lr={}",
    "--batch_size": "-o training.batch_size={}",
    "--batch-size": "-o training.batch_size={}",
    "--steps": "-o training.steps={}",
    "--max_steps": "-o training.steps={}",
    "--max-steps": "-o training.steps={}",
    "--patience": "-o training.patience={}",
    "--precision": "-o training.precision={}",
    "--resume": "the same command again: it resumes by itself",
}


@dataclass(frozen=True)
class Retired:
    """A former flag that only repeated an option of -o."""

    option: str
    is_switch: bool = False
    is_columns: bool = False  # its value was `OURS=THEIRS,…`

    def typed(self, value: str | None) -> str:
        """Return the option as it is typed after -o, with the value that stood behind the flag."""
        # where yaml is missing, `headwater check` has to say so
        from ...core.options import option_text
        from ...corpus.tables import columns_option

        if self.is_switch:
            return option_text(self.option, True)
        if not self.is_columns:
            return f"{self.option}=VALUE" if value is None else option_text(self.option, value)
        pairs = [part.partition("=") for part in (value or "").split(",")]
        given = all(equals and key and header for key, equals, header in pairs)
        names = {key.strip(): header.strip() for key, _, header in pairs} if given else {"audio": "HEADER", "label": "HEADER"}
        return columns_option(names)


CORPUS = {
    "--protocol": Retired("corpus.protocol"),
    "--columns": Retired("corpus.options.columns", is_columns=True),
    "--audio-root": Retired("corpus.options.audio_root"),
    "--demo-scale": Retired("corpus.demo_scale"),
}
TEXT_WEIGHTS = {"--text-upstream-ckpt": Retired("text_upstream.path")}
DOWNSTREAM = {
    **CORPUS,
    **TEXT_WEIGHTS,
    "--normalize-layers": Retired("upstream.normalize_layers", is_switch=True),
    "--store-limit": Retired("store.limit"),
    "--missing-text": Retired("corpus.missing_text"),
    "--skip-broken": Retired("corpus.skip_broken", is_switch=True),
}
MTL = {"--demo-scale": Retired("tasks.TASK.corpus.demo_scale")}
PREDICTION = {**TEXT_WEIGHTS, "--demo-scale": CORPUS["--demo-scale"]}


def refuse_retired(words: Sequence[str], retired: Mapping[str, Retired]) -> None:
    """Refuse retired flags in one line that says what to type now."""
    found, options = list[str](), list[str]()
    for place, word in enumerate(words):
        name, equals, after = word.partition("=")
        if name not in retired:
            continue
        following = words[place + 1 : place + 2]
        value = after if equals else next((text for text in following if not text.startswith("-")), None)
        option = retired[name]
        found.append(name if option.is_switch or value is None else f"{name} {shlex.quote(value)}")
        options.append(option.typed(value))
    if found:
        *others, last = found
        listed = f"{', '.join(others)} and {last} are options" if others else f"{last} is an option"
        raise UserError(f"{listed} now: -o {' '.join(options)}")


def instead_of_flag(word: str, following: Sequence[str], known: Sequence[str]) -> str:
    """Return what to type instead of a flag that is unknown; nothing where nobody can tell."""
    name, equals, value = word.partition("=")
    if name in FLAGS and FLAGS[name].split()[0] in {*known, "the"}:
        behind = value if equals else next((text for text in following if not text.startswith("-")), "VALUE")
        return f" Type {FLAGS[name].format(behind)}."
    return nearest(name, known)


def unknown_verb(verb: str, arguments: Sequence[str], verbs: Sequence[str]) -> UserError:
    """Return the error of a verb that is not there: what it is called today, what does it here, or its neighbour."""
    if verb in MOVED:
        return UserError(f"There is no verb '{verb}' any more. Type: headwater {shlex.join([*MOVED[verb], *arguments])}")
    if verb in GUESSED:
        return UserError(f"There is no verb '{verb}'. {GUESSED[verb]}")
    return UserError(f"There is no verb '{verb}'.{nearest(verb, verbs)} There are: {', '.join(verbs)}.")
