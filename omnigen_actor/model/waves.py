"""Which rows step together: requests in, rows whose last step is done out. Knows no pixels of outputs and no files.

A wave is a stretch of steps with the same rows. When a row is done, or its guidance changes, the next wave begins, and
whatever waits and fits the budget enters it. A wave that does not fit the memory is split, and the budget shrinks; the
rows keep what they have: a step either happens to a row or does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from omnigen_actor.errors import EngineLost, ErrorKind, RowError, Stage, first_line
from omnigen_actor.model.attention import Kernel
from omnigen_actor.model.budget import Budget, Need, Sizes
from omnigen_actor.model.pack import Pack
from omnigen_actor.model.prepare import Planned, Preparer
from omnigen_actor.model.sampler import Row
from omnigen_actor.model.step_cache import StepCache
from omnigen_actor.model.stopwatch import Lap, Stopwatch
from omnigen_actor.model.transformer import Transformer
from omnigen_actor.types import Failure, Request, Wave, ignore_step

_LOST = re.compile(
    r"(?:(?:CUDA|HIP)(?: driver)? error|Triton Error \[\w+\]): [^\n]*?"  # the lines after hint at device-side asserts
    r"(?:illegal memory access|illegal instruction|device-side assert|misaligned address|unspecified launch failure"
    r"|launch timed out|uncorrectable|hardware|invalid program counter|context is destroyed|unknown error)"
    r"|(?:CUBLAS|CUDNN)_STATUS_EXECUTION_FAILED",
)
"""What CUDA says of errors after which every call of the process fails (cudaError_t in the CUDA runtime's reference:
"the process must be terminated and relaunched"), and what its libraries make of them."""


@dataclass(slots=True, kw_only=True)
class OpenWave:
    """A wave whose times are not known yet: on a GPU they are read when somebody asks."""

    num_rows: int
    num_branches: int
    num_tokens: int
    capacity: int
    num_steps: int
    num_prefill_tokens: int
    steps: Lap
    encodes: list[Lap]
    prefills: list[Lap]
    decodes: list[Lap] = field(default_factory=list)

    def close(self) -> Wave:
        """Read the times. Waits for the device."""
        return Wave(
            num_rows=self.num_rows,
            num_branches=self.num_branches,
            num_tokens=self.num_tokens,
            capacity=self.capacity,
            num_steps=self.num_steps,
            num_prefill_tokens=self.num_prefill_tokens,
            encode_seconds=_seconds(self.encodes),
            prefill_seconds=_seconds(self.prefills),
            step_seconds=self.steps.seconds(),
            decode_seconds=_seconds(self.decodes),
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One planned request on its way. ``wave``: the one it ended with."""

    planned: Planned
    need: Need
    row: Row | None = None
    wave: OpenWave | None = None
    laps: list[tuple[Lap, float]] = field(default_factory=list)

    @property
    def request(self) -> Request:
        """What is made."""
        return self.planned.request

    def seconds(self) -> float:
        """The device's time for this row alone: its share of each wave goes by its tokens. Waits for the device."""
        return sum(lap.seconds() * share for lap, share in self.laps)


class Waves:
    """The rows of one engine."""

    def __init__(
        self,
        transformer: Transformer,
        preparer: Preparer,
        *,
        budget: Budget,
        sizes: Sizes,
        kernel: Kernel,
        stopwatch: Stopwatch,
        cache: StepCache | None = None,
        on_step: Callable[[], None] = ignore_step,
    ) -> None:
        self.budget = budget
        self._transformer = transformer
        self._preparer = preparer
        self._sizes = sizes
        self._kernel = kernel
        self._stopwatch = stopwatch
        self._cache = cache
        self._on_step = on_step
        self._waiting: list[Job] = []
        self._active: list[Job] = []
        self._record: list[OpenWave] = []

    def run(self, requests: Sequence[Request]) -> Iterator[Job | Failure]:
        """Yield every request once: as a job whose row has made all of its steps, or as a failure."""
        try:
            yield from self._plan(requests)
            while self._waiting or self._active:
                yield from self._admit()
                if self._active:
                    yield from self._run_wave()
        finally:  # also where the caller stops listening
            self._waiting, self._active = [], []

    def take(self) -> list[Wave]:
        """What the waves took since the last call. Waits for the device."""
        record, self._record = self._record, []
        return [wave.close() for wave in record]

    def _plan(self, requests: Sequence[Request]) -> Iterator[Failure]:
        for request in requests:
            try:
                planned = self._preparer.plan(request)
            except RowError as error:
                yield Failure(request=request, error=error)
            else:
                self._waiting.append(Job(planned=planned, need=self._sizes.need(planned)))

    def _admit(self) -> Iterator[Failure]:
        """Let in what fits, in order; a smaller row may pass a larger one that must wait."""
        for job in list(self._waiting):
            if not self.budget.fits((other.need for other in self._active), job.need):
                continue
            if self._enter(job):
                self._waiting.remove(job)
                self._active.append(job)
            elif self._active:
                return  # no memory now: these rows go on, and leave some
            else:
                self._waiting.remove(job)
                yield too_large(job.request)

    def _enter(self, job: Job) -> bool:
        """Prepare a row, with what is remembered and, if there is no room beside it, without."""
        if job.row is not None or self._prepare(job):
            return True
        self._forget()
        return self._prepare(job)

    def _forget(self) -> None:
        self._preparer.forget()
        free_cached_memory()

    @torch.inference_mode()
    def _prepare(self, job: Job) -> bool:
        lap = Lap(self._transformer.device)
        try:
            with lap.running():
                job.row = self._preparer.prepare(job.planned)
        except RuntimeError as error:
            check_memory_error(error)
            return False
        self._on_step()
        job.laps.append((lap, 1.0))
        return True

    def _run_wave(self) -> Iterator[Job | Failure]:
        """Steps until a row is done or changes its branches; or a split, where there is too little memory."""
        wave = self._step() or self._step_alone()
        if wave is None:
            yield from self._split()
            return
        self._record.append(wave)
        for job in self._active:
            job.laps.append((wave.steps, job.need.num_tokens / sum(j.need.num_tokens for j in self._active)))
            job.wave = wave
        finished = [job for job in self._active if job.row and job.row.is_finished]
        self._active = [job for job in self._active if job not in finished]
        yield from finished

    def _step_alone(self) -> OpenWave | None:
        """Once more, with nothing remembered, where the wave that did not fit is a single row."""
        if len(self._active) > 1:
            free_cached_memory()
            return None
        self._forget()
        return self._step()

    @torch.inference_mode()
    def _step(self) -> OpenWave | None:
        """All steps of one wave, or None where the memory is too small."""
        rows = [job.row for job in self._active if job.row]
        num_steps = min(row.stretch for row in rows)
        lap = Lap(self._transformer.device)
        try:
            pack = Pack(self._transformer, rows, self._kernel, self._cache)
            with lap.running():
                for _ in range(num_steps):
                    pack.step()
                    self._on_step()
        except RuntimeError as error:
            check_memory_error(error)
            return None
        prefilled, self._preparer.num_prefilled = self._preparer.num_prefilled, 0
        return OpenWave(
            num_rows=len(rows),
            num_branches=pack.num_branches,
            num_tokens=pack.num_tokens,
            capacity=self.budget.capacity(len(rows), pack.num_tokens),
            num_steps=num_steps,
            num_prefill_tokens=prefilled,
            steps=lap,
            encodes=self._stopwatch.take("encode"),
            prefills=self._stopwatch.take("prefill"),
        )

    def _split(self) -> Iterator[Failure]:
        """Half of the rows wait, with the steps that they have. A single row has nothing left to give up."""
        if len(self._active) == 1:
            yield too_large(self._active.pop().request)
            return
        self.budget.shrink(sum(job.need.num_tokens for job in self._active))
        half = len(self._active) // 2
        self._waiting = self._active[half:] + self._waiting
        self._active = self._active[:half]


def check_memory_error(error: RuntimeError) -> None:
    """Raise any error again that is not about memory: it is not ours to handle."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        raise error


def check_device(error: RuntimeError) -> None:
    """Raise EngineLost for an error after which the device takes no further work from this process.

    Too little memory is never one: the rows that do fit still run.
    """
    if not isinstance(error, torch.OutOfMemoryError) and _LOST.search(str(error)):
        raise EngineLost(f"the device is lost: {first_line(error)}") from error


def free_cached_memory() -> None:
    """Give the device what the allocator keeps. To be called when the error, which holds tensors, is gone."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def too_large(request: Request) -> Failure:
    """The failure of a row that does not fit even alone."""
    size = f"{request.width}×{request.height}" if request.width else "the input image's size"
    message = f"row does not fit the device's memory even alone, at {size} with {len(request.images)} input images"
    return Failure(request=request, error=RowError(ErrorKind.OUT_OF_MEMORY, Stage.GENERATE, message))


def _seconds(laps: Sequence[Lap]) -> float:
    return sum(lap.seconds() for lap in laps)
