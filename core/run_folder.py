"""The format of a run folder: its files, its lock, and the runs of a plan."""

from __future__ import annotations

import glob
import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from .errors import UserError, first_line
from .files import damaged_json, is_alive, made, plain_disk_errors, read_json, refuse_other_kinds, refuse_without, write_json
from .locks import holder_in, taken
from .options import read_yaml, write_yaml

TOGETHER = "together"  # in place of a role: a head on all layers of all roles at once
EVALUATIONS, TASKS = "evaluations", "tasks"  # folders below a run, with results of their own
ARCHITECTURES = {"audio": "upstream.json", "text": "text_upstream.json"}  # by role
Row = Mapping[str, Any]  # a run in a plan's result.json: name, setting, seed, fold


class FolderInUse(UserError):
    """A run folder in which another process is at work."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, of a plan of runs, or of a part of a run that has a result of its own."""

    path: Path

    @classmethod
    def open(cls, name: str | Path) -> RunFolder:
        """Return the folder of a run, or say what is there instead."""
        run = cls(Path(name).expanduser())
        if not run.config.is_file():
            below = sorted(map(str, run.below()))[:4]
            several, none = f"a plan with the runs {', '.join(below)}: name one of them", f"no {run.config.name}: check the path"
            raise UserError(f"Expected a run folder at '{run.path}', found {several if below else none}.")
        return run

    @property
    def config(self) -> Path:
        """The resolved recipe."""
        return self.path / "config.yaml"

    @property
    def identity(self) -> Path:
        """What makes the run this one: hashes of its config, corpus, upstreams and code; and its marks."""
        return self.path / "identity.json"

    @property
    def vocabulary(self) -> Path:
        """Each task's labels, and what dev decided."""
        return self.path / "vocabulary.json"

    @property
    def trained_on(self) -> Path:
        """Which utterances the run is trained on: no evaluation may use them again."""
        return self.path / "trained_on.json"

    @property
    def result(self) -> Path:
        """The scores, and how they came about; written last."""
        return self.path / "result.json"

    @property
    def layer_weights(self) -> Path:
        """The weighted sums, and the mean norms of their layers."""
        return self.path / "layer_weights.json"

    @property
    def layers(self) -> Path:
        """What each layer knows alone, and the mixture of all: of a run whose head is computed."""
        return self.path / "layers.json"

    def layer_outcomes(self, role: str, split: str) -> Path:
        """Return where the scores of a split stand that a head on each layer alone gives: (layer, utterance, output).

        The role TOGETHER stands for one head on all layers of all roles.
        """
        return self.path / f"layers-{role}-{split}.safetensors"

    @property
    def audit(self) -> Path:
        """What an audit found: controls, leaks, duplicates, doubtful labels."""
        return self.path / "audit.json"

    @property
    def doubtful_labels(self) -> Path:
        """The labels that an audit holds to be wrong: id, file, label, prediction, confidence."""
        return self.path / "audit-labels.csv"

    @property
    def checksums(self) -> Path:
        """The sha256 of each file of an exported run."""
        return self.path / "checksums.json"

    @property
    def metrics(self) -> Path:
        """The log of training and of each evaluation on dev, a line for each."""
        return self.path / "metrics.jsonl"

    @property
    def best(self) -> Path:
        """The weights of the step that dev chose."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def last(self) -> Path:
        """The weights of the last step, with all that training resumes from."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def plots(self) -> Path:
        """The folder of the pictures."""
        return self.path / "plots"

    @property
    def curves(self) -> Path:
        """The picture of losses and dev scores over steps; of a plan, of all its runs."""
        return self.plots / "curves.png"

    @property
    def run_scores(self) -> Path:
        """The picture of a plan's scores, run by run and of all together, with their intervals."""
        return self.plots / "scores.png"

    def confusion(self, split: str, task: str = "") -> Path:
        """Return where a split's confusion matrix is drawn; a joint run's pictures name their task."""
        return self.plots / f"confusion-{f'{task}-' * bool(task)}{split}.png"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's events."""
        return self.path / "tensorboard"

    @property
    def trackers(self) -> Path:
        """The ids by which trackers find the run again that they followed."""
        return self.path / "trackers.json"

    @property
    def stopped(self) -> Path:
        """What a process of a plan printed before it stopped without a result."""
        return self.path / "stopped.txt"

    @property
    def lock(self) -> Path:
        """The file that a process holds while it is at work here."""
        return self.path / ".lock"

    @property
    def plan(self) -> Path:
        """The record of a plan: its runs, and why some of them have no result."""
        return self.path / "plan.json"

    @property
    def cluster(self) -> RunFolder:
        """The folder of what a cluster needs of a plan, and of its logs."""
        return RunFolder(self.path / "slurm")

    @property
    def jobs(self) -> Path:
        """Which run of a plan is which job of a cluster."""
        return self.cluster.path / "jobs.json"

    def architecture(self, role: str) -> Path:
        """Return where an upstream's architecture stands: with the checkpoint, all that a finetuned upstream is."""
        return self.path / ARCHITECTURES[role]

    def predictions(self, split: str) -> Path:
        """Return where a split's predictions stand, beside the references."""
        return self.path / f"predictions-{split}.csv"

    def outcome(self, split: str) -> Path:
        """Return where a split's scores and embeddings stand."""
        return self.path / f"outcome-{split}.safetensors"

    def tables(self, split: str) -> Path:
        """Return where the corpus' tables stand that a split is scored with; of most tasks there are none."""
        return self.path / f"tables-{split}.json"

    def splits(self) -> list[str]:
        """Return the splits that have predictions here."""
        before, after = self.predictions("*").name.split("*")
        return sorted(path.name[len(before) : -len(after)] for path in self.path.glob(f"{before}*{after}"))

    def task(self, kept: str, name: str) -> RunFolder:
        """Return the part of a joint run that holds a task's result with the weights `kept` (last, best or own)."""
        return RunFolder(self.path / TASKS / kept / name)

    def evaluation(self, name: str) -> RunFolder:
        """Return the part of a run that holds its result on another split or corpus."""
        return RunFolder(self.path / EVALUATIONS / name)

    @property
    def home(self) -> RunFolder:
        """The run that this is a part of; a run is its own."""
        parents = self.path.parents
        if not self.config.is_file():
            if len(parents) > 1 and parents[0].name == EVALUATIONS:
                return RunFolder(parents[1])
            if len(parents) > 2 and parents[1].name == TASKS:
                return RunFolder(parents[2])
        return self

    def below(self) -> list[Path]:
        """Return the folders of all runs at or below this one, in the order of their names."""
        return sorted(path.parent for path in self.path.rglob(self.config.name))

    @property
    def is_finished(self) -> bool:
        """Whether a run stands here as a whole."""
        whole = (self.config, self.vocabulary, self.identity, self.layer_weights, self.result, self.best)
        return all(path.is_file() for path in whole)

    def read(self) -> Stored:
        """Return what stands here; each file is read when it is needed."""
        return Stored(self)

    def write(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        trained_on: Mapping[str, Any] | None = None,
        vocabulary: Mapping[str, Any] | None = None,
        architectures: Mapping[str, Mapping[str, Any]] | None = None,
        identity: Mapping[str, Any] | None = None,
        layer_weights: Mapping[str, Any] | None = None,
        layers: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the files that are given, each whole or not at all; last the result, which makes the run finished."""
        if config is not None:
            write_yaml(self.config, config)
        described = {self.architecture(role): content for role, content in (architectures or {}).items()}
        contents: dict[Path, Mapping[str, Any] | None] = {
            self.trained_on: trained_on,
            self.vocabulary: vocabulary,
            **described,
            self.identity: identity,
            self.layer_weights: layer_weights,
            self.layers: layers,
            self.result: result,
        }
        for path, content in contents.items():
            if content is not None:
                write_json(path, content)

    @contextmanager
    def usable_vocabulary(self) -> Iterator[None]:
        """Turn what a task makes of a vocabulary that was altered into one line."""
        try:
            yield
        except (KeyError, TypeError, IndexError, AttributeError) as problem:
            raise UserError(
                f"Expected what the run was trained to predict in '{self.vocabulary}', found a file that its task cannot use "
                f"({type(problem).__name__}: {first_line(problem)}). Put the file back, or train again."
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this process; a second process gets an error that names the holder."""
        with made(self.path):
            with plain_disk_errors(self.path):
                file = open(self.lock, "a+", encoding="utf-8")  # noqa: SIM115 (open while held)
            with file:
                self._take(file)
                try:
                    with plain_disk_errors(self.path):
                        file.truncate(0)
                        file.write(f"process {os.getpid()} on {socket.gethostname()}")
                        file.flush()
                    yield
                finally:
                    if [*self.path.iterdir()] == [self.lock]:  # stopped before anything was begun
                        self.lock.unlink()

    @contextmanager
    def recipes(self) -> Iterator[Path]:
        """Give a folder for the recipes of a plan's processes; those that killed processes of this machine left are removed."""
        begin = f".recipes.{socket.gethostname()}."
        own = self.path / f"{begin}{os.getpid()}"
        with made(self.path):
            for left in self.path.glob(f"{glob.escape(begin)}*"):
                number = left.name.removeprefix(begin)
                if number.isdigit() and not is_alive(int(number)):
                    shutil.rmtree(left, ignore_errors=True)
            with plain_disk_errors(own):
                own.mkdir(exist_ok=True)
            try:
                yield own
            finally:
                shutil.rmtree(own, ignore_errors=True)

    def refuse_in_use(self) -> None:
        """Raise FolderInUse where another process is at work here; nothing is written."""
        if self.lock.is_file():
            with self.lock.open("r+", encoding="utf-8") as file:
                self._take(file)  # closing it gives it back

    def _take(self, file: TextIO) -> None:
        if not taken(file) or not os.fstat(file.fileno()).st_nlink:  # or its holder has just taken it away
            raise FolderInUse(
                f"Expected the run folder '{self.path}' to be free, found that {holder_in(file)} holds it. "
                "Wait for it to end, or choose another folder with -n or -p."
            )

    def refuse_plan(self) -> None:
        """Refuse a folder in which the runs of a plan stand."""
        if self.result.is_file() and not self.identity.is_file() and "runs" in self.read().result():
            raise UserError(
                f"Expected a folder for one run, found a plan of several in '{self.path}'. Choose another with -n or -p."
            )

    def runs(self) -> list[Row] | None:
        """Return the runs that a finished plan reports, of a sweep those of the setting that dev chose; None: it is no plan."""
        if self.config.is_file() or not self.result.is_file():
            return None
        summary = self.read().result()
        if not isinstance(summary, dict) or "runs" not in summary:
            return None
        return [row for row in summary["runs"] if "chosen" not in summary or row["setting"] == summary["chosen"]]


@dataclass(frozen=True)
class Stored:
    """What a run folder holds; each file is read when it is needed, and once. `needed` names keys that it must have."""

    folder: RunFolder
    _contents: dict[Path, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def config(self) -> dict[str, Any]:
        """Return the resolved recipe."""
        path = self.folder.config
        if path not in self._contents:
            self._contents[path] = read_yaml(path)
        return self._contents[path]

    def identity(self, *needed: str) -> dict[str, Any]:
        """Return what makes the run this one, and its marks."""
        return self._json(self.folder.identity, needed, {"marks": list, "upstreams": dict, "code": dict})

    def vocabulary(self, *needed: str) -> dict[str, Any]:
        """Return each task's labels, and what dev decided."""
        return self._json(self.folder.vocabulary, needed, every=dict)

    def trained_on(self, *needed: str) -> dict[str, Any]:
        """Return which utterances the run is trained on."""
        return self._json(self.folder.trained_on, needed)

    def result(self, *needed: str) -> dict[str, Any]:
        """Return the scores, and how they came about."""
        kinds = {"scores": dict, "intervals": dict, "runs": list, "marks": list, "seed": int}
        return self._json(self.folder.result, needed, kinds)

    def layer_weights(self, *needed: str) -> dict[str, Any]:
        """Return the weighted sums, and the mean norms of their layers."""
        return self._json(self.folder.layer_weights, needed)

    def layers(self, *needed: str) -> dict[str, Any]:
        """Return what each layer knows alone, and the mixture of all."""
        content = self._json(self.folder.layers, needed, {"roles": dict, "select_by": str})
        for role in content.get("roles", {}).values():
            whole = isinstance(role, dict) and isinstance(role.get("mixture"), list) and isinstance(role.get("layers"), list)
            if not (whole and all(isinstance(one, dict) and isinstance(one.get("scores"), dict) for one in role["layers"])):
                raise damaged_json(self.folder.layers, "a role without its layers and their mixture")
        return content

    def audit(self) -> dict[str, Any]:
        """Return what an audit found."""
        return self._json(self.folder.audit, (), {"findings": list})

    def architecture(self, role: str) -> dict[str, Any]:
        """Return an upstream's architecture."""
        return self._json(self.folder.architecture(role), ())

    def _json(self, path: Path, needed: Sequence[str], kinds: Mapping[str, type] | None = None, every: type | None = None) -> Any:
        """Return what a file holds: a mapping whose values are of some kinds, or all of one."""
        if path not in self._contents:
            self._contents[path] = read_json(path)
        content = self._contents[path]
        refuse_without(path, content, needed)
        refuse_other_kinds(path, content, dict.fromkeys(content, every) if every is not None else kinds or {})
        return content


def counted(rows: Sequence[Row]) -> str:
    """Return `5 folds`, `3 seeds`, or both."""
    counts = {key: len({row[key] for row in rows}) for key in ("fold", "seed")}
    return " x ".join(f"{count} {key}s" for key, count in counts.items() if count > 1) or f"{len(rows)} runs"
