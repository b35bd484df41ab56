"""Translate the keys of s3prl's `-o "config.x=1,,args.y=2"`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...core.errors import UserError, nearest

DATA = "config.downstream_expert.datarc"
# s3prl's keys -> ours
KEYS = {
    "config.runner.total_steps": "training.steps",
    "config.runner.eval_step": "training.eval_every",
    "config.runner.log_step": "training.log_every",
    "config.runner.save_step": "training.save_every",
    "config.runner.gradient_clipping": "optimizer.clip",
    "config.optimizer.lr": "optimizer.lr",
    f"{DATA}.root": "corpus.data",
    "config.downstream_expert.modelrc.projector_dim": "TASK.projector_dim",
    f"{DATA}.dataset_root": "corpus.data",  # of -d quesst14_dtw, as the following
    "config.downstream_expert.dtwrc.dist_method": "distance",
    "config.downstream_expert.dtwrc.minmax_norm": "minmax",
    "config.downstream_expert.feature_normalization": "normalize_frames",
}
FOLD = f"{DATA}.test_fold"  # -v
# a step's utterances are the product of these two
SIZE, PIECES = f"{DATA}.train_batch_size", "config.runner.gradient_accumulate_steps"
# no number depends on these
LEFT_OUT = (f"{DATA}.num_workers", f"{DATA}.pre_load", "config.runner.max_keep", "config.downstream_expert.max_workers")
OPTIMIZER = ("config.optimizer.name", "config.optimizer.torch_optim_name")
WITH_TORCH = "TorchOptim"  # the first where the second one names it
TORCH_DECAY = 0.01  # of torch's AdamW, where nobody says another; s3prl's own AdamW has 0
ALL = (*KEYS, FOLD, SIZE, PIECES, *OPTIMIZER, *LEFT_OUT)


def is_of_s3prl(values: Sequence[str]) -> bool:
    """Tell whether what stands behind -o is in s3prl's words."""
    text = ",,".join(values)
    return text.lower() == "none" or bool(re.search(r"(^|,,)(config|args)\.", text))


def translate_override(values: Sequence[str], others: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the flags and options that stand for what is behind -o; `others` are the command's other words, in ours."""
    pairs = [pair.partition("=") for pair in ",,".join(values).split(",,") if pair and pair.lower() != "none"]
    ours = ["".join(pair) for pair in pairs if not pair[0].strip().startswith(("config.", "args."))]
    given = {pair[0].strip(): pair[2].strip().strip("'\"") for pair in pairs if "".join(pair) not in ours}
    unknown = [key for key in given if key not in ALL and not key.startswith("args.")]
    if unknown:
        close = nearest(unknown[0].rpartition(".")[2], [key.rpartition(".")[2] for key in ALL])
        raise UserError(
            f"Expected keys of s3prl that have a counterpart here, found {', '.join(unknown)}.{close} Leave out what has none "
            "(docs/from_s3prl.md lists those that do), or give ours: -o optimizer.lr=1e-4"
        )
    flags = [word for key, value in given.items() if key.startswith("args.") for word in as_flag(key, value)]
    flags += ["-v", given[FOLD]] if FOLD in given else []
    options = [f"{KEYS[key]}={value}" for key, value in given.items() if key in KEYS]
    name = given.get("config.optimizer.torch_optim_name", given.get("config.optimizer.name", WITH_TORCH))
    options += [f"optimizer.name={name.lower()}"] if name != WITH_TORCH else []
    if given.get(OPTIMIZER[1]) == "AdamW":
        options.append(f"optimizer.weight_decay={TORCH_DECAY}")
    rate = given.get("config.optimizer.lr")
    if rate and {"-f", "--upstream_trainable"} & {*others, *flags}:
        options.append(f"optimizer.upstream_lr={rate}")  # s3prl has one rate for all
    tasks = [others[place + 1] for place, word in enumerate(others[:-1]) if word in {"-d", "--downstream"}]
    tasks += [word.partition("=")[2] for word in others if word.startswith("--downstream=")]
    task = tasks[0] if tasks else "emotion"
    return flags, [*(re.sub("^TASK", task, option) for option in options), *batch_size(given), *ours]


def as_flag(key: str, value: str) -> list[str]:
    """Return `args.seed=2` as a flag; a switch stands alone, or not at all."""
    name = f"--{key.removeprefix('args.')}"
    if value in {"None", "False", "null", "false"}:
        return []
    return [name] if value in {"True", "true"} else [name, value]


def batch_size(given: dict[str, str]) -> list[str]:
    """Return the utterances of a step, which s3prl takes in pieces and adds up."""
    there = [given[key] for key in (SIZE, PIECES) if key in given]
    if not there:
        return []
    if len(there) < 2 or not all(number.isdecimal() for number in there):
        raise UserError(
            f"Expected train_batch_size and gradient_accumulate_steps as numbers together, found {' and '.join(there)} alone: a "
            "step here has their product. Give both, or ours: -o training.batch_size=32"
        )
    return [f"training.batch_size={int(there[0]) * int(there[1])}"]
