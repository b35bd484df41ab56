"""Execute the runs of a plan: each after those it starts from, several at once with --jobs, finished ones skipped."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from ..core import process as children
from ..core.errors import UserError
from ..core.files import write_text
from ..core.options import merge, write_yaml
from ..core.run_folder import FolderInUse, RunFolder
from ..core.trust import CHECKPOINTS
from ..plugins.code import flags_for_another_process, refuse_edited
from ..plugins.registry import SECTIONS
from ..runs.config.identity import identity_of, refuse_other
from ..runs.config.schema import RunConfig, roles_of, to_mapping
from ..runs.run import refuse_missing_groups, run
from ..runs.runtime import Runtime, print_progress
from .progress import PlanProgress
from .record import PlannedRun, recorded

Result = dict[str, Any]  # what result.json holds
SECONDS_TO_A_FREE_ONE = 5.0  # between looks at the runs that other processes hold
SECONDS_TO_LOOK = 1.0  # between looks at how far our own are
ROLES = (*SECTIONS.values(),)  # sections of a config that may name another run of the plan
STAGE, PART = "stage:", "part:"
SINGLE = "part:single"  # in a task's init_head: the head of its single-task run
KEPT = ("trainable", "layer", "normalize_layers")  # how an upstream is used; its other options belong to its model


@dataclass(frozen=True)
class Part:
    """One run of a plan, in a folder below the plan's."""

    setting: str  # of the sweep: "optimizer.lr=0.001"; "": there is none
    seed: int
    fold: int
    config: RunConfig  # may name other runs of the plan: `stage:NAME`, `part:NAME`
    name: str  # folder below the plan's; ".": the plan is this one run
    stage: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)  # such a name -> the folder of its run, below the plan's


def named_runs(config: RunConfig) -> list[str]:
    """Return the other runs of its plan that a config names, as `stage:NAME` or `part:NAME`."""
    return [place for place in starts_of(to_mapping(config)) if place.startswith((STAGE, PART))]


def with_differences(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with what is different in one part; an upstream that is a run has that run's options alone."""
    for role in ROLES:
        section = over.get(role)
        if isinstance(section, Mapping) and str(section.get("name", "")).startswith((STAGE, PART)):
            below = base.get(role) or {}
            base = {**base, role: {key: below[key] for key in KEPT if key in below}}
    return merge(base, over)


def located(part: Part, folder: Path) -> RunConfig:
    """Return a part's config with the folders of the runs that it names, and what it takes from them."""
    if not part.needs:
        return part.config
    config, places = part.config, {name: os.path.abspath(folder / below) for name, below in part.needs.items()}
    named = {role: getattr(config, role) for role in ROLES}
    upstreams = {role: replace(section, name=places.get(section.name, section.name)) for role, section in named.items()}
    heads = {name: PART + name if task.init_head == SINGLE else task.init_head or "" for name, task in config.tasks.items()}
    tasks = {name: replace(task, init_head=places.get(heads[name], task.init_head)) for name, task in config.tasks.items()}
    singles = {name: Path(places[PART + name]) for name in config.tasks if PART + name in places}
    if config.select == "gain":
        config = replace(config, baselines={name: dev_score(place, tasks[name].select_by) for name, place in singles.items()})
    return replace(config, **upstreams, tasks=tasks)


def dev_score(place: Path, metric: str) -> float:
    """Return the dev score of a single-task run, which a joint run is to gain over."""
    return RunFolder(place).read().result("scores")["scores"]["dev"][metric]


def run_parts(
    parts: Sequence[Part], folder: Path, runtime: Runtime, jobs: int = 1, passed_over: Mapping[str, str] | None = None
) -> tuple[dict[str, Result], dict[str, str]]:
    """Run every part that is not done; return results by name, and why there is none of the others.

    A part's mistake ends the plan; with `passed_over` (parts not to be run, with the reason) only that part and those that
    start from it.
    """
    go_on, failed = passed_over is not None, dict(passed_over or {})
    with recorded(folder, planned(parts), failed):
        if jobs > 1:
            return in_processes(parts, folder, runtime, jobs, failed, go_on=go_on)
        return in_turn(parts, folder, runtime, failed, go_on=go_on)


def planned(parts: Sequence[Part]) -> list[PlannedRun]:
    """Return the runs of a plan as its record names them; an exact head is computed in one step."""
    return [
        PlannedRun(part.name, part.config.training.steps if part.config.solver == "adam" else 1, [*part.needs.values()])
        for part in parts
    ]


def in_turn(
    parts: Sequence[Part], folder: Path, runtime: Runtime, failed: dict[str, str], *, go_on: bool
) -> tuple[dict[str, Result], dict[str, str]]:
    """Run one part after the other in this process."""
    results: dict[str, Result] = {}
    waiting = [part for part in parts if part.name not in failed]
    progress = PlanProgress({part.name: part.config for part in waiting}, folder, runtime)
    while waiting:
        begun = len(waiting)
        for part in waiting[:1] if children.in_launch() else waiting:
            if has_lost_its_start(part, failed) or not {*part.needs.values()} <= {*results}:
                continue
            try:
                results[part.name] = run_here(part, folder, progress.begin(part.name))
                progress.end(part.name, results[part.name])
            except FolderInUse as problem:  # by another machine, say, which runs the same plan: on to the next free one
                if not go_on:
                    raise
                print_progress(runtime, f"passed by: {problem}")
            except UserError as problem:
                failed[part.name] = str(problem)
                if not go_on:
                    raise
                print_progress(runtime, f"passed over: {problem}")
        for name in failed:
            progress.lose(name)
        waiting = [part for part in waiting if part.name not in results and part.name not in failed]
        if len(waiting) == begun:
            time.sleep(SECONDS_TO_A_FREE_ONE)
    return results, failed


def run_here(part: Part, folder: Path, runtime: Runtime) -> Result:
    """Return a part's result: at hand, or run now."""
    if runtime.named and RunFolder(folder / part.name).is_finished:
        result = at_hand(part, folder)
        refuse_missing_groups(result, folder / part.name, runtime.by)
        return result
    print_progress(runtime, f"run {runtime.place.number} of {runtime.place.count}: {part.name}")
    return run(
        located(part, folder),
        folder / part.name,
        replace(runtime, named=False, plan=runtime.plan if part.name == "." else str(folder)),
    )


def has_lost_its_start(part: Part, failed: dict[str, str]) -> bool:
    """Tell whether a part cannot start since another failed, and note it among these."""
    lost = next((name for name in part.needs.values() if name in failed), None)
    if lost is not None:
        failed[part.name] = f"starts from {lost}, which is not there: {failed[lost]}"
    return lost is not None


def in_processes(
    parts: Sequence[Part], folder: Path, runtime: Runtime, jobs: int, failed: dict[str, str], *, go_on: bool
) -> tuple[dict[str, Result], dict[str, str]]:
    """Run several parts at once, each in a process with its share of the cores, as soon as what it needs is there."""
    if children.in_launch():
        raise UserError("Expected one process for --jobs, found torchrun. Use --jobs alone, or torchrun with --jobs 1.")
    results: dict[str, Result] = {}
    waiting, running = [part for part in parts if part.name not in failed], dict[Future[Result], Part]()
    progress = PlanProgress({part.name: part.config for part in waiting}, folder, runtime, jobs)
    held: dict[str, float] = {}  # a part that another machine is at, which runs the same plan -> when to look again
    with RunFolder(folder).recipes() as recipes, children.lifeline() as line:
        pool, start = ThreadPoolExecutor(jobs), starter(parts, folder, runtime, jobs, recipes, line, progress)
        try:
            while waiting or running:
                waiting = [part for part in waiting if not has_lost_its_start(part, failed)]
                now = time.monotonic()
                ready = [part for part in waiting if {*part.needs.values()} <= {*results} and held.get(part.name, now) <= now]
                running |= {pool.submit(start, part): part for part in ready}
                waiting = [part for part in waiting if part not in ready]
                progress.look()
                for future in ended(running, waiting, held):
                    part = running.pop(future)
                    try:
                        results[part.name] = future.result()
                        progress.end(part.name, results[part.name])
                    except UserError as problem:
                        if not isinstance(problem, FolderInUse):
                            failed[part.name] = str(problem)
                        if not go_on:
                            raise
                        if isinstance(problem, FolderInUse):  # on to the next free one
                            waiting.append(part)
                        if part.name not in held:
                            print_progress(runtime, f"passed {'by' if part in waiting else 'over'}: {problem}")
                        held[part.name] = time.monotonic() + SECONDS_TO_A_FREE_ONE
                for name in failed:
                    progress.lose(name)
        except KeyboardInterrupt:
            line.cut()
            raise
        finally:
            progress.bar.close()
            pool.shutdown(cancel_futures=True)  # after a mistake or Ctrl-C no other run is begun
    return results, failed


def ended(running: Mapping[Future[Result], Part], waiting: Sequence[Part], busy: Mapping[str, float]) -> list[Future[Result]]:
    """Return the runs that came to an end, once there is one, or once it is time to look at all of them again."""
    resting = any(part.name in busy for part in waiting)
    assert running or resting or not waiting, f"{waiting[0].name} waits for a run that is not in the plan"
    if not running:
        time.sleep(SECONDS_TO_A_FREE_ONE if waiting else 0.0)
        return []
    seconds = min(SECONDS_TO_LOOK, SECONDS_TO_A_FREE_ONE) if resting else SECONDS_TO_LOOK
    return [*wait(running, timeout=seconds, return_when=FIRST_COMPLETED).done]


def refuse_foreign(part: Part, folder: Path) -> None:
    """Refuse a part's folder in which a run with other options stands, finished or not."""
    refuse_other(folder / part.name, {"config": identity_of(located(part, folder))})


def at_hand(part: Part, folder: Path) -> Result:
    """Return the result of a finished run, once it is found to be the requested one."""
    place, stored = folder / part.name, RunFolder(folder / part.name).read()
    refuse_foreign(part, folder)
    # a folder's identity has the last part of a path alone, which runs of several parts share
    began = starts_of(stored.config())
    for start, found in zip(starts_of(to_mapping(part.config)), began, strict=True):
        if start in part.needs and not str(found).endswith(part.needs[start]):
            raise UserError(
                f"Expected the run in '{place}' to start from {part.needs[start]}, found that it started from {found}. "
                "Remove it, or choose another folder with -p."
            )
    return stored.result("tasks" if part.config.is_joint else "scores", "marks")


def starts_of(mapping: Mapping[str, Any]) -> list[str]:
    """Return what a resolved recipe starts from: its upstreams and the runs whose heads it takes."""
    tasks = mapping["tasks"].values() if "tasks" in mapping else [mapping]
    heads = [section.get("init_head") or "" for section in tasks]
    return [*((mapping.get(role) or {}).get("name") or "" for role in ROLES), *heads]


def why_stopped(name: str, output: str, place: Path) -> str:
    """Return in one line why a process stopped, from its output; the output of a crash is kept beside the run."""
    lines = output.strip().splitlines() or ["it printed nothing"]
    mistake = next((number for number, line in enumerate(lines) if line.startswith("error: ")), None)
    if mistake is not None:
        return f"Run '{name}' stopped: {in_one_line(lines[mistake:]).removeprefix('error: ')}"
    kept = RunFolder(place).stopped
    write_text(kept, output)
    return f"Run '{name}' stopped: {lines[-1].strip()} (its whole output: {kept})"


def in_one_line(lines: Sequence[str]) -> str:
    """Return a message of several lines as one."""
    joined = ""
    for line in (line.strip() for line in lines if line.strip()):
        joined += ("" if not joined else " " if joined.endswith((":", ".")) else "; ") + line
    return joined


def typed_checkpoints(config: RunConfig) -> list[str]:
    """Return the checkpoint of s3prl's that a run reads, where the user typed it: it is read only then."""
    section = roles_of(config).get("audio")
    if section is None or not section.path or not section.name.startswith("s3prl/"):
        return []
    return [str(section.path)] * CHECKPOINTS.allows(section.path)


def devices_of(device: str, jobs: int) -> list[str]:
    """Return where each of the runs at once computes: on GPUs in turn, where there are several and none is named."""
    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    return [f"cuda:{job % count}" if count > 1 else device for job in range(jobs)]


def starter(
    parts: Sequence[Part],
    folder: Path,
    runtime: Runtime,
    jobs: int,
    recipes: Path,
    line: children.Lifeline,
    progress: PlanProgress,
) -> Callable[[Part], Result]:
    """Return what runs one part in a process of its own, which ends with this one."""
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    free: SimpleQueue[str] = SimpleQueue()
    for device in devices_of(runtime.device, jobs):
        free.put(device)

    def start(part: Part) -> Result:
        """Run one part to its end on a device that is free, and return its result."""
        device = free.get()
        try:
            return run_apart(part, device)
        finally:
            free.put(device)

    def run_apart(part: Part, device: str) -> Result:
        """Run one part in a process of its own."""
        place = folder / part.name
        there = RunFolder(place)
        there.refuse_in_use()
        config = located(part, folder)
        if runtime.named and there.is_finished:  # nothing to compute: no process is worth its start
            return run_here(part, folder, runtime)
        progress.begin(part.name)
        # what this process resolved is what that one runs
        recipe = recipes / f"{parts.index(part)}.yaml"
        write_yaml(recipe, to_mapping(config))
        verb = children.command("headwater", "downstream")
        flags = ["-c", str(recipe), "-p", str(place), "--device", device, *["--share-layers"] * runtime.share_layers]
        flags += ["--by", ",".join(runtime.by)] if runtime.by else []
        flags += ["-v", str(part.fold)] if config.folds else []  # the recipe's folds are the plan's, of which this is one
        refuse_edited()
        command = [
            *verb,
            *flags,
            *flags_for_another_process(),
            *(word for place in typed_checkpoints(config) for word in ("-k", place)),
        ]
        environment = children.environment(**{"OMP_NUM_THREADS": threads, children.LIFELINE: "1", children.PLAN: str(folder)})
        done = subprocess.run(command, env=environment, stdin=line.reading, capture_output=True, text=True, check=False)
        if done.returncode:
            there.refuse_in_use()  # another machine was quicker
            raise UserError(why_stopped(part.name, done.stderr, place))
        return there.read().result()

    return start
