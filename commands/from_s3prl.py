"""s3prl's words, recognised and answered with ours."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import UserError

# s3prl's names on the left
TRANSLATED = {
    "config.runner.total_steps": "training.steps",
    "config.runner.eval_step": "training.eval_every",
    "config.runner.log_step": "training.log_every",
    "config.runner.save_step": "training.save_every",
    "config.runner.gradient_clipping": "optimizer.clip",
    "config.optimizer.lr": "optimizer.lr",
    "config.optimizer.name": "optimizer.name",
    "config.downstream_expert.datarc.train_batch_size": "training.batch_size",
    "config.downstream_expert.datarc.test_fold": "corpus.fold",
    "config.downstream_expert.datarc.root": "corpus.data",
    "config.downstream_expert.modelrc.projector_dim": "emotion.projector_dim",
    "args.seed": "seed",
    "args.upstream": "upstream.name",
    "args.upstream_trainable": "upstream.trainable",
}


def refuse_s3prl_override(overrides: Sequence[str]) -> None:
    """Recognise s3prl's `-o "config.x=1,,args.y=2"` and answer with the command in our words."""
    text = ",,".join(overrides)
    if not re.search(r"(^|,,)(config|args)\.", text):
        return
    known: list[str] = []
    unknown: list[str] = []
    for pair in filter(None, text.split(",,")):
        key, _, value = pair.partition("=")
        target = TRANSLATED.get(key, "")
        value = re.sub(r"^'?fold(\d+)'?$", r"\1", value) if target == "corpus.fold" else value.strip("'\"")
        (known if target else unknown).append(f"{target}={value}" if target else key)
    here = f" Here it is: -o {' '.join(known)}" if known else ""
    missing = f" Leave out {', '.join(unknown)}: nothing here stands for it." if unknown else ""
    raise UserError(f"Expected `-o key=value …`, found s3prl's spelling.{missing}{here}")
