"""The flags of s3prl: each is accepted, translated, or refused with a message that says what to type instead."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.errors import UserError
from .override import is_of_s3prl, translate_override

# s3prl's folder of a task -> ours, where they are called otherwise
TASKS = {
    "speech_commands": "ks",
    "voxceleb1": "sid",
    "sv_voxceleb1": "asv",
    "fluent_commands": "ic",
    "diarization": "sd",
    "quesst14_dtw": "qbe",
}
CONFIGS = {"ctc/libriphone": "pr", "ctc/snips": "sf"}  # s3prl's config of a task, where a folder serves several
Translation = Callable[[str, Sequence[str]], "list[str]"]  # (the flag's value, all words) -> what stands for both


@dataclass(frozen=True)
class Flag:
    """A flag of s3prl's `run_downstream.py`, and what Headwater does with it."""

    short: str
    long: str
    here: str  # the text of docs/from_s3prl.md; also the error message of a refused flag
    translate: Translation | None = None  # translates the flag; None: it is accepted as it is, or refused
    refused: bool = False
    is_switch: bool = False

    @property
    def kind(self) -> str:
        """What Headwater does with it, in one word."""
        return "refused" if self.refused else "accepted" if self.translate is None else "translated"

    @property
    def names(self) -> list[str]:
        """All spellings."""
        return [name for name in (self.short, self.long) if name]


def task_in(config: str) -> str | None:
    """Return our name of the task that a config of s3prl is of, by its path."""
    match = re.fullmatch(r"(?:.*/)?downstream/(\w+)/(\w+)\.ya?ml", config)
    return match and CONFIGS.get(f"{match[1]}/{match[2]}", TASKS.get(match[1], match[1]))


def recipe_of(value: str, words: Sequence[str]) -> list[str]:
    """Return -c for s3prl's own yaml of a task: our recipe of that experiment."""
    del words
    task = task_in(value)
    known = (Path(__file__).parents[2] / "recipes" / "superb" / f"{task}.yaml").is_file()
    if not Path(value).is_file():
        return ["-c", f"superb/{task}" if known else value]
    if re.search(r"^downstream_expert:", Path(value).read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
        ours = f"superb/{task if known else 'TASK'}"
        raise UserError(
            f"Expected a recipe after -c, found s3prl's config '{value}'. Its experiment is -c {ours}; what you changed in it "
            "goes behind -o, in s3prl's words too: -o config.optimizer.lr=1e-4"
        )
    return ["-c", value]


def run_of(flag: str) -> Translation:
    """Return what puts the checkpoint after -e or -i into words: its run's folder."""

    def words_of(value: str, words: Sequence[str]) -> list[str]:
        """Return the flag with the folder."""
        path = Path(value).expanduser()
        if path.suffix != ".ckpt":
            return [flag, value]
        if path.is_file():
            raise UserError(
                f"Expected a run folder after {flag}, found a checkpoint of s3prl's. Make a run of it: "
                f"headwater import {path} RUN, then {flag} RUN"
            )
        if path.name.startswith("states-") and "evaluate" in words:
            raise UserError(
                f"Expected the best step to be evaluated, found the step of '{value}', which is not kept here. "
                f"Name the folder: {flag} {path.parent}"
            )
        return [flag, str(path.parent)]

    return words_of


def left_out(*values: str, otherwise: str) -> Translation:
    """Return what drops a flag whose value is what happens here anyway."""

    def words_of(value: str, words: Sequence[str]) -> list[str]:
        """Return nothing, or refuse another value."""
        del words
        if value not in values:
            raise UserError(otherwise.format(value))
        return []

    return words_of


def rank_of(value: str, words: Sequence[str]) -> list[str]:
    """Return nothing for the --local_rank that a launcher adds: it says the same in the environment."""
    del words
    if os.environ.get("LOCAL_RANK") != value:
        raise UserError(f"Expected a launcher to start the processes, found --local_rank {value} alone. {TORCHRUN}")
    return []


def selection_of(value: str, words: Sequence[str]) -> list[str]:
    """Return -l for a state by its number."""
    del words
    match = re.fullmatch(r"hidden_state_(\d+)", value)
    return ["-l", match[1]] if match else ["-s", value]


def task_of(value: str, words: Sequence[str]) -> list[str]:
    """Return -d with our name of a task; where a folder of s3prl's serves several, the config after -c says which."""
    several = {name for config, name in CONFIGS.items() if config.startswith(f"{value}/")}
    chosen = next((task for task in map(task_in, words) if task in several), None)
    return ["-d", chosen or TASKS.get(value, value)]


TORCHRUN = "Start several processes with `torchrun --nproc_per_node N run_downstream.py …`."
HUB = "`-u ORG/NAME` loads a model from the Hugging Face hub; code from a hub is never executed."
TABLE = (
    Flag("-m", "--mode", "train or evaluate; for `inference`, type `headwater predict RUN my.wav`"),
    Flag("-t", "--evaluate_split", "the split that -m evaluate tests; to label a WAV, type `headwater predict RUN my.wav`"),
    Flag(
        "-o",
        "--override",
        "takes keys of s3prl (the table below) and of a recipe: `-o optimizer.lr=1e-4`",
        lambda value, _: [value],
    ),
    Flag(
        "",
        "--backend",
        f"ignored: GPUs use nccl, CPUs use gloo. {TORCHRUN}",
        left_out(
            "nccl",
            otherwise="Expected the device to choose how processes talk (nccl on GPUs, gloo on CPUs), found --backend "
            "{}. Leave it out.",
        ),
    ),
    Flag("", "--local_rank", f"ignored if a launcher adds it. {TORCHRUN}", rank_of),
    Flag(
        "-e",
        "--past_exp",
        "a run folder (`RUN/dev-best.ckpt` means RUN); convert a checkpoint of s3prl first: `headwater import FILE RUN`",
        run_of("-e"),
    ),
    Flag("-i", "--init_ckpt", "a run folder: training starts from its head and layer weights", run_of("-i")),
    Flag("-c", "--config", "a recipe; `downstream/emotion/config.yaml` becomes `superb/emotion`", recipe_of),
    Flag(
        "-d",
        "--downstream",
        "a task by s3prl's name: speech_commands is `ks`, ctc `pr` (libriphone.yaml) or `sf` (snips.yaml), …",
        task_of,
    ),
    Flag("-v", "--downstream_variant", "the fold: `-v fold1`, or `-v 1`"),
    Flag(
        "",
        "--hub",
        f"ignored if it says torch. {HUB}",
        left_out("torch", otherwise="Expected --hub torch, found --hub {}. " + HUB),
    ),
    Flag("-u", "--upstream", "the same names load the same models; load any other upstream of s3prl with `-u s3prl/NAME`"),
    Flag(
        "-k",
        "--upstream_ckpt",
        "a folder of transformers, or a .pt that s3prl converted; works with `-u hubert` and `-u hubert_local`",
    ),
    Flag(
        "-g",
        "--upstream_model_config",
        "Headwater does not read option files of s3prl: type `-u fbank`, `-u mfcc`, or `-u s3prl/NAME` for an upstream of s3prl",
        refused=True,
    ),
    Flag(
        "-r",
        "--upstream_refresh",
        "delete the folder of the model in the cache of the hub; the next run downloads it again",
        refused=True,
        is_switch=True,
    ),
    Flag(
        "-f",
        "--upstream_trainable",
        "the same; convolutions stay frozen as there, without `-o upstream.front_end=trained`",
        is_switch=True,
    ),
    Flag(
        "-s", "--upstream_feature_selection", "hidden_states or last_hidden_state; `hidden_state_3` becomes `-l 3`", selection_of
    ),
    Flag("-l", "--upstream_layer_selection", "the same numbers, negative ones too; `all` trains one head for each layer"),
    Flag("", "--upstream_feature_normalize", "the same: normalize each layer", is_switch=True),
    Flag("", "--upstream_model_name", "name the file of weights: `-u hubert -k FILE`", refused=True),
    Flag(
        "",
        "--upstream_revision",
        "download that revision with `hf download ORG/NAME --revision R --local-dir DIR`, then type `-k DIR`",
        refused=True,
    ),
    Flag("-n", "--expname", "the same: write to result/downstream/NAME"),
    Flag("-p", "--expdir", "the same: write to this folder"),
    Flag("-a", "--auto_resume", "accepted, but not needed: the same command always resumes", is_switch=True),
    Flag(
        "",
        "--push_to_hf_hub",
        "export the run with `headwater export RUN DIR`, then upload it with `hf upload ORG/NAME DIR`",
        refused=True,
    ),
    Flag(
        "",
        "--hf_hub_org",
        "export the run with `headwater export RUN DIR`, then upload it with `hf upload ORG/NAME DIR`",
        refused=True,
    ),
    Flag("", "--seed", "the same; the default is 1 (s3prl: 1337)"),
    Flag("", "--device", "the same; the default is cuda where a GPU is present"),
    Flag(
        "",
        "--cache_dir",
        "set HF_HOME (cache of models) and HEADWATER_CACHE (cache of features and demos) in the environment",
        refused=True,
    ),
    Flag("", "--verbose", "ignored: s3prl does not read it either", lambda *_: [], is_switch=True),
    Flag("", "--disable_cudnn", "leave it out, or run on the CPU with `--device cpu`", refused=True, is_switch=True),
)
FLAGS = {name: flag for flag in TABLE for name in flag.names}
FLAGS["--local-rank"] = FLAGS["--local_rank"]  # as torch's launcher of today spells it


def parted(word: str) -> list[str]:
    """Return a short flag and the value typed onto it (`-dsv`, `-fa`) as two words; any other word as it is."""
    flag = FLAGS.get(word[:2])
    if flag is None or word.startswith("--") or len(word) == 2 or (flag.kind == "accepted" and not flag.is_switch):
        return [word]
    if flag.is_switch:
        return [word[:2], *parted(f"-{word[2:]}")]
    return [word[:2], word[2:].removeprefix("=")]


def translated(words: Sequence[str]) -> list[str]:
    """Return a command with the flags of s3prl translated; refuse those without a counterpart, and say what to type instead."""
    ours: list[str] = []
    overrides: list[str] = []
    left = [part for word in words for part in parted(word)]
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        flag = FLAGS.get(name)
        if name in {"-o", "--override"}:
            values = [value] if equals else []
            while left and not left[0].startswith("-"):
                values.append(left.pop(0))
            if is_of_s3prl(values):
                overrides += values
            else:
                ours += [name, *values]
        elif flag is None or flag.kind == "accepted":
            ours.append(word)
        elif flag.refused:
            raise UserError(f"Expected Headwater's flags, found s3prl's {name}. {flag.here[0].upper()}{flag.here[1:]}.")
        elif flag.translate is not None and (flag.is_switch or equals or left):
            typed = [word] if equals or flag.is_switch else [word, left.pop(0)]
            value = value if equals else typed[-1]
            put = flag.translate(value, words)
            ours += typed if put[1:] == [value] else put  # as it was typed, where only the flag's spelling would differ
        else:  # its value is missing: reported with the other mistakes of a command
            ours.append(word)
    if overrides:
        flags, options = translate_override(overrides, ours)
        ours += [*translated(flags), *(["-o", *options] if options else [])]
    return ours


def translation_note(before: Sequence[str], after: Sequence[str], prog: str) -> list[str]:
    """Return the line that shows a translated command; none where nothing was translated."""
    return [] if [*before] == [*after] else [f"run as    {prog} {shlex.join(after)}"]
