"""What each worker of a training does: from the newest state, step by step, to the result. Runs inside Ray Train."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from omnigen_actor.images import encode
from pipelines.finetune.grid import grid
from pipelines.finetune.prepared import Order, Prepared, Row, read_rows
from pipelines.finetune.progress import TrainingFolder

if TYPE_CHECKING:
    from omnigen_actor.training.session import Session, SessionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSpec:
    """What a worker needs to know: plain values that travel to it."""

    session: SessionSpec
    root: str
    train: Prepared
    held_out: Prepared
    max_validation: int
    num_steps: int
    num_rows: int
    seed: int
    save_every: int
    validate_every: int
    sample_every: int
    num_samples: int
    told: dict[str, Any]


def run_worker(spec: LoopSpec) -> None:
    """Train until the last step. Worker 0 saves, measures, draws and writes the result."""
    import ray.train

    from omnigen_actor.training.distributed import average_gradients
    from omnigen_actor.training.session import Session

    context = ray.train.get_context()
    worker, num_workers = context.get_world_rank(), context.get_world_size()
    folder = TrainingFolder(spec.root)
    session = Session(spec.session, worker=worker, reduce=average_gradients if num_workers > 1 else None)
    state = folder.latest()
    if state is not None:
        session.restore(state)
    order = Order(prepared=spec.train, num_rows=spec.num_rows, seed=spec.seed, worker=worker, num_workers=num_workers)
    train(spec, session, folder, order, report=ray.train.report, is_first=worker == 0)


def train(
    spec: LoopSpec,
    session: Session,
    folder: TrainingFolder,
    order: Order,
    *,
    report: Callable[[dict[str, Any]], None],
    is_first: bool,
) -> None:
    """The loop itself, which needs no cluster."""
    held_out = _some_rows(spec.held_out, spec.max_validation)[: spec.max_validation] if is_first else []
    shown = _shown(spec, held_out) if is_first and spec.sample_every else []
    if shown:
        folder.name_samples([{name: row[name] for name in ("id", "sample", "task", "prompt")} for row in shown])
    if held_out and session.step == 0:
        folder.add_to_log({"step": 0, "held_out_loss": session.validate(held_out)})
    losses: list[float] = []
    started, first = time.monotonic(), session.step
    batches = order.batches(session.step)
    while session.step < spec.num_steps:
        losses.append(session.train(next(batches)))
        step = session.step
        is_last = step == spec.num_steps
        if is_first and (step % spec.validate_every == 0 or is_last):
            entry = _measured(session, held_out, losses, (time.monotonic() - started) / (step - first))
            folder.add_to_log(entry)
        if step % spec.validate_every == 0 or is_last:
            report({"step": step, "loss": sum(losses) / len(losses)})
            losses = []
        if shown and (step % spec.sample_every == 0 or is_last):
            folder.add_samples(step, encode(grid(session.draw(shown)), "png"))
        if is_first and (step % spec.save_every == 0 or is_last):
            folder.save(step, session.state())
    if is_first and not folder.is_finished():
        folder.write_result(session.write_result, {**spec.told, "steps": session.step, "log": folder.log()[-1:]})


def _some_rows(prepared: Prepared, wanted: int) -> list[Row]:
    """The rows of the first parts, of as many as it takes to have those that are wanted."""
    rows: list[Row] = []
    for part, _ in prepared.parts:
        if len(rows) >= wanted:
            break
        rows += read_rows(part)
    return rows


def _shown(spec: LoopSpec, held_out: Sequence[Row]) -> list[Row]:
    """What is drawn: the first row of each task, then the second of each, and so on."""
    rows = held_out
    if len(rows) < spec.num_samples:
        rows = _some_rows(spec.held_out if spec.held_out.num_rows else spec.train, spec.num_samples)
    by_task: dict[str | None, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row["task"], []).append(row)
    return [row for turn in zip_longest(*by_task.values()) for row in turn if row][: spec.num_samples]


def _measured(session: Session, held_out: Sequence[Row], losses: Sequence[float], step_s: float) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": session.step, "loss": sum(losses) / len(losses), "seconds_per_step": step_s}
    if held_out:
        entry["held_out_loss"] = session.validate(held_out)
    return entry
