"""An emotion checkpoint of s3prl's `run_downstream.py`, made into a run folder that predicts."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.files import folder_aside, hash_file
from ..core.options import read_yaml
from ..core.run_folder import RunFolder
from ..core.tensors import save_tensors
from ..downstream.emotion.question import QUESTION
from ..downstream.load import load_task
from ..runs.config.identity import identity_of
from ..runs.config.recipes import find_recipe
from ..runs.config.resolve import resolve
from ..runs.config.schema import RunConfig, to_mapping
from ..runs.prepare import build_expert, marks_of
from ..runs.results import environment
from ..runs.run import weights_of
from ..training.model import Model
from ..upstream.base import Upstream, UpstreamConfig
from ..upstream.load import find_upstream, list_upstreams, load_upstream
from ..upstream.s3prl.conversion import FAMILIES, LOCAL, Checkpoint, renamed

PARTS = {"Downstream", "Featurizer", "Args", "Config"}
# in the order of s3prl's tables of IEMOCAP: the checkpoint holds no names
CLASSES = ("neu", "hap", "ang", "sad")
# s3prl's names of the head's weights -> ours
HEAD = {
    "projector.weight": "experts.emotion.fusion.branches.audio.projector.weight",
    "projector.bias": "experts.emotion.fusion.branches.audio.projector.bias",
    "model.post_net.linear.weight": "experts.emotion.classifier.weight",
    "model.post_net.linear.bias": "experts.emotion.classifier.bias",
}
NOT_OF_THE_HEAD = {"best_score"}  # the best accuracy on dev so far
LAYER_WEIGHTS = "sums.emotion.audio.logits"


@dataclass(frozen=True)
class Downstream:
    """What such a checkpoint holds that a prediction needs."""

    path: Path
    args: Mapping[str, Any]
    config: Mapping[str, Any]
    head: Mapping[str, Tensor]
    logits: Tensor | None  # of the layers; None: one layer alone was used
    finetuned: Mapping[str, Tensor]  # the upstream's weights; empty where it was frozen
    step: int

    @property
    def fold(self) -> int:
        """The session of IEMOCAP that was tested, by its number."""
        named = section(self.config, "downstream_expert", "datarc").get("test_fold") or self.args.get("downstream_variant")
        match = re.fullmatch(r"fold([1-5])", str(named or "fold1"))
        if match is None:
            raise UserError(f"Expected fold1 to fold5 in '{self.path}', found '{named}'. Only IEMOCAP's folds are imported.")
        return int(match[1])


def recognise_head(path: Path, content: Mapping[str, Any]) -> Downstream:
    """Return what a checkpoint of s3prl's emotion task holds; another task or head is refused."""
    args, config = content["Args"], content["Config"]
    states = (content["Downstream"], content["Featurizer"], content.get("Upstream", {}))
    if not isinstance(args, Namespace) or not isinstance(config, Mapping) or not all(map(is_state, states)):
        raise UserError(
            f"Expected s3prl's Args and Config beside tensors in '{path}', found other content. Give the checkpoint as s3prl "
            "wrote it."
        )
    if getattr(args, "downstream", None) != "emotion":
        task = getattr(args, "downstream", None)
        raise UserError(
            f"Expected a checkpoint of s3prl's task emotion in '{path}', found one of '{task}'. Only emotion is imported: train "
            "the others anew (`headwater downstream -d …`)."
        )
    head = {key: value for key, value in content["Downstream"].items() if key not in NOT_OF_THE_HEAD}
    options = section(config, "downstream_expert", "modelrc")
    kind = str(options.get("select"))
    pooling = section(options, kind).get("pooling", "MeanPooling")
    if {*head} != {*HEAD} or (kind, pooling) != ("UtteranceLevel", "MeanPooling"):
        odd = ", ".join(sorted({*head} ^ {*HEAD})[:4])
        raise UserError(
            f"Expected SUPERB's head (UtteranceLevel with MeanPooling) in '{path}', found {kind} with {pooling}"
            f"{f' and other weights ({odd})' if odd else ''}. That is another function: train anew, `-d emotion`."
        )
    featurizer = dict(content["Featurizer"])
    logits = featurizer.pop("weights", None)
    vectors = {"layer weights": logits, **{key: head[key] for key in HEAD if key.endswith(".bias")}}
    shapeless = [name for name, value in vectors.items() if value is not None and value.ndim != 1]
    shapeless += [key for key in HEAD if key.endswith(".weight") and head[key].ndim != 2]
    if featurizer or shapeless:
        found = f"{', '.join(featurizer)} beside" if featurizer else f"{', '.join(shapeless)} of another shape"
        raise UserError(f"Expected layer weights and a head in '{path}', found {found}. Give the checkpoint as s3prl wrote it.")
    step = content.get("Step")
    return Downstream(path, vars(args), config, head, logits, content.get("Upstream", {}), step if isinstance(step, int) else 0)


def is_state(content: Any) -> bool:
    """Tell whether something is a state_dict: tensors by name."""
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def section(config: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return a part of a config, empty where it is not there."""
    for key in keys:
        below = config.get(key)
        config = below if isinstance(below, Mapping) else {}
    return config


def upstream_config(found: Downstream, name: str | None, weights: str | None) -> UpstreamConfig:
    """Return which upstream the head used, and how its layers were used, in our words."""
    args, theirs = found.args, name or str(found.args.get("upstream"))
    if name is None and (args.get("from_hf_hub") or args.get("hub") == "huggingface"):
        raise UserError(
            f"Expected an upstream of s3prl's own in '{found.path}', found code of the hub ({theirs}), which is not run. "
            "Name the model that it stands for: -u NAME."
        )
    if theirs.endswith(("_local", "_custom")) and weights is None:
        kept = args.get("upstream_ckpt")
        weights = str(kept) if kept and Path(str(kept)).expanduser().is_file() else None
    known = theirs in LOCAL or "/" in theirs or Path(theirs).is_dir() or theirs in {row.name for row in list_upstreams()}
    config = UpstreamConfig(name=theirs if known else f"s3prl/{theirs}", path=weights and os.path.abspath(weights))
    layer = chosen_layer(found)
    normalize = bool(args.get("upstream_feature_normalize")) and found.logits is not None
    padding = "s3prl" if "padding" in find_upstream(config, "audio").options else "exact"
    return UpstreamConfig(config.name, config.path, bool(found.finetuned), layer, normalize, padding=padding)  # type: ignore[arg-type]


def chosen_layer(found: Downstream) -> int | None:
    """Return the one layer that was used; None where all were mixed."""
    key, layer = str(found.args.get("upstream_feature_selection") or "hidden_states"), found.args.get("upstream_layer_selection")
    one = re.fullmatch(r"hidden_state_(\d+)", key)
    if key == "hidden_states":
        return layer if isinstance(layer, int) else None
    if one or key == "last_hidden_state":
        return int(one[1]) if one else -1
    raise UserError(
        f"Expected hidden_states, hidden_state_N or last_hidden_state in '{found.path}', found -s {key}. Nothing here stands for "
        "it: train anew."
    )


def load_trained_upstream(found: Downstream, config: UpstreamConfig) -> Upstream:
    """Return the head's upstream, with the finetuned weights where it was finetuned."""
    upstream = load_upstream(config, "audio")
    count, layers = upstream.spec.num_layers, 1 if found.logits is None else len(found.logits)
    alone = config.layer is not None or count == 1
    if layers != (1 if alone else count) or (alone and found.logits is not None):
        raise UserError(
            f"Expected weights of {count} layers of '{config.name}' in '{found.path}', found {layers}. Where s3prl counts "
            f"otherwise add -u s3prl/{found.args.get('upstream')}, or name the right upstream."
        )
    if config.layer is not None and count > 1 and not -count <= config.layer < count:
        raise UserError(
            f"Expected one of {count} layers of '{config.name}', found layer {config.layer}. Name the right upstream: -u"
        )
    dim = found.head["projector.weight"].shape[1]
    if dim != upstream.spec.dim:
        raise UserError(
            f"Expected the head of '{found.path}' to take {upstream.spec.dim} dims, as '{config.name}' has, found {dim}. "
            "Name the right upstream: -u NAME, -k WEIGHTS."
        )
    if found.finetuned:
        finetune(found, upstream)
    return upstream


def finetune(found: Downstream, upstream: Upstream) -> None:
    """Give an upstream the weights that s3prl's `-f` made of it."""
    theirs = {key.removeprefix("model."): value for key, value in found.finetuned.items()}
    settings: Any = getattr(getattr(upstream, "model", None), "config", None)
    if upstream.name.startswith("s3prl/"):
        ours = {f"model.{key}": value for key, value in found.finetuned.items()}
    elif getattr(settings, "model_type", None) in FAMILIES and len(theirs) == len(found.finetuned):
        model = Checkpoint(found.path, FAMILIES[settings.model_type], {}, upstream.spec.normalize, theirs)
        ours = {f"model.{key}": value for key, value in renamed(model, settings)[0].items()}
    else:
        ours = {}
    if {key: value.shape for key, value in ours.items()} != {key: value.shape for key, value in upstream.state_dict().items()}:
        raise UserError(
            f"Expected the finetuned weights of '{upstream.name}' in '{found.path}', found others. "
            f"Let s3prl's code hold them: add -u s3prl/{found.args.get('upstream')}"
        )
    upstream.load_state_dict(ours)


def run_config(found: Downstream, upstream: UpstreamConfig) -> RunConfig:
    """Return SUPERB's recipe with the options in the checkpoint."""
    runner, data = section(found.config, "runner"), section(found.config, "downstream_expert", "datarc")
    size = [
        part if isinstance(part, int) else 0 for part in (data.get("train_batch_size"), runner.get("gradient_accumulate_steps"))
    ]
    training = {"steps": runner.get("total_steps"), "batch_size": size[0] * size[1]}
    used = {"trainable": upstream.trainable, "layer": upstream.layer, "normalize_layers": upstream.normalize_layers}
    own = {
        "upstream": {"name": upstream.name, "path": upstream.path, "padding": upstream.padding, **used},
        "corpus": {"fold": found.fold},
        "emotion": {"projector_dim": len(found.head["projector.bias"])},
        "optimizer": {"lr": lr} if (lr := section(found.config, "optimizer").get("lr")) else {},
        "training": {key: value for key, value in training.items() if value},
        "seed": found.args.get("seed") or 1,
    }
    return resolve([read_yaml(find_recipe("superb/emotion")), own, {"folds": [], "reference": []}])


def import_head(
    found: Downstream, folder: Path, name: str | None, weights: str | None, classes: Sequence[str] | None
) -> RunConfig:
    """Write the run folder of a checkpoint, whole or not at all, and return its config."""
    names, count = tuple(classes or CLASSES), len(found.head["model.post_net.linear.bias"])
    if len({*names}) != count:
        raise UserError(
            f"Expected {count} classes for the head of '{found.path}', found {len({*names})} ({', '.join(names)}). "
            "Name them in the order of s3prl's labels: --classes neu,hap,…"
        )
    section_found = upstream_config(found, name, weights)
    upstream = load_trained_upstream(found, section_found)
    if upstream.spec.num_layers == 1:  # s3prl looks at -l only where there are several
        section_found = replace(section_found, layer=None)
    config = run_config(found, section_found)
    vocabulary = {"classes": list(names), "merge": {"exc": "hap"} if names == CLASSES else {}, "key": "emotion", "counts": {}}
    expert = build_expert(config.seed, config.only, load_task("emotion"), vocabulary, {"audio": upstream})
    model = Model({"audio": upstream}, {"emotion": expert}, {"audio": config.upstream})
    logits = torch.zeros(1) if found.logits is None else found.logits
    given = {**{ours: found.head[theirs] for theirs, ours in HEAD.items()}, LAYER_WEIGHTS: logits}
    model.load_trained_state({**model.trained_state(), **given}, str(found.path))
    marks = marks_of([False], {"audio": upstream})
    digest = hash_file(found.path)
    identity = {"config": identity_of(config), "corpus": f"of {digest}", "upstreams": {"audio": upstream.weights_hash()}}
    with folder_aside(folder) as aside:
        # which utterances is not known; of SUPERB's folds it is all other sessions
        sessions = [f"Ses0{number}" for number in range(1, 6) if number != found.fold]
        layers = {"emotion/audio": layers_of(model)}
        architecture = upstream.architecture() if section_found.trainable else None
        save_tensors(RunFolder(aside).best, model.trained_state(), {"imported": digest})
        RunFolder(aside).write(
            config=to_mapping(config),
            vocabulary={"emotion": vocabulary},
            identity={**identity, "marks": list(marks)},
            trained_on={"corpus": config.only.corpus.name, "heard": [], "sessions": sessions},
            architectures={} if architecture is None else {"audio": architecture},
            layer_weights={"upstream": upstream.name, "marks": list(marks), "layers": layers},
            result=result_of(found, config, model, marks, digest),
        )
    return config


def layers_of(model: Model) -> dict[str, Any]:
    """Return the layer weights as layer_weights.json has them; the layers' norms are not known here."""
    weights = model.weighted_sum("emotion", "audio").weights.tolist()
    return {"weights": weights, "norms": [None] * len(weights), "upstream": model.upstream("audio").name}


def result_of(found: Downstream, config: RunConfig, model: Model, marks: Sequence[str], digest: str) -> dict[str, Any]:
    """Return what result.json says of a run that was trained elsewhere: no score, since none was computed here."""
    upstream = model.upstream("audio")
    return {
        "task": "emotion",
        "upstream": upstream.name,
        "source": upstream.source,
        "trainable": config.upstream.trainable,
        "weights": {"audio": weights_of(upstream), "head": weights_of(model.experts) + weights_of(model.sums)},
        "corpus": config.only.corpus.name,
        "protocol": config.only.corpus.protocol,
        "fold": config.only.corpus.fold,
        "seed": config.seed,
        "marks": list(marks),
        "steps": found.step,
        "best_step": found.step,
        "select_by": config.only.select_by,
        "metrics": dict(QUESTION.metrics),
        **{key: {} for key in ("scores", "intervals", "num_speakers", "num_utterances")},
        "classes": list(QUESTION.answer(model.expert("emotion").vocabulary).classes),
        "imported": {"file": found.path.name, "sha256": digest},
        "notes": [f"trained by s3prl on IEMOCAP without session {config.only.corpus.fold}; no score is in its checkpoint"],
        "environment": environment(torch.device("cpu"), 0.0),
    }
