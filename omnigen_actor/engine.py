"""OmniGenEngine: a mixed list of requests in, one outcome for each out. Knows nothing of tables, files or clusters.

Rows of any sizes, steps and numbers of images step together in a wave, under a budget of tokens and memory. A row that
is done leaves, is decoded beside the next wave, and another enters. What does not fit is split; what fails is that
row's outcome and nobody else's.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import torch

from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.model import fp8
from omnigen_actor.model.attention import pick_kernel
from omnigen_actor.model.budget import Budget, Sizes, kept_bytes, limit_memory, make_budget
from omnigen_actor.model.decoder import Decoded, Decoder
from omnigen_actor.model.loading import (
    device_name,
    library_versions,
    load_model,
    load_tokenizer,
    pick_device,
    pick_dtype,
)
from omnigen_actor.model.prepare import Preparer
from omnigen_actor.model.prompt import Tokenize
from omnigen_actor.model.step_cache import StepCache
from omnigen_actor.model.stopwatch import Stopwatch
from omnigen_actor.model.transformer import Transformer
from omnigen_actor.model.vae import Vae
from omnigen_actor.model.waves import Job, Waves, check_device, check_memory_error, free_cached_memory, too_large
from omnigen_actor.types import Failure, ModelInfo, Outcome, Request, Result, Wave, ignore_step

Decoding = tuple[Job, "Future[Decoded]"]

_LARGEST_DECODE = 1024 * 1024
"""Pixels of an output that memory is kept for; a larger one is decoded when the wave beside it has ended."""


class OmniGenEngine:
    """One loaded model. Build it with ``from_pretrained``; not to be shared by threads."""

    def __init__(
        self,
        transformer: Transformer,
        vae: Vae,
        tokenize: Tokenize,
        *,
        shift: float,
        info: ModelInfo,
        settings: EngineSettings,
    ) -> None:
        """Take over loaded parts. ``shift`` is the scheduler's. Raises ModelError for settings that can't run here."""
        device = transformer.device
        self.info = dataclasses.replace(info, approximations=settings.approximations)
        self.on_step: Callable[[], None] = ignore_step
        self._transformer = transformer
        stopwatch = Stopwatch(device)
        preparer = Preparer(
            transformer,
            vae,
            tokenize,
            shift=shift,
            stopwatch=stopwatch,
            kept_bytes=kept_bytes(device),
            guided=(settings.guidance_from, settings.guidance_to),
        )
        self._waves = Waves(
            transformer,
            preparer,
            budget=make_budget(device, settings, _LARGEST_DECODE * vae.bytes_per_pixel),
            sizes=Sizes(transformer),
            kernel=pick_kernel(settings.attention, device, transformer.dtype, transformer.config.head_size),
            stopwatch=stopwatch,
            cache=StepCache(settings.step_cache) if settings.step_cache else None,
            on_step=self._tell_step,
        )
        self._decoder = Decoder(vae, device, overlapped=device.type == "cuda")

    @classmethod
    def from_pretrained(cls, model: str, settings: EngineSettings | None = None) -> OmniGenEngine:
        """Load a checkpoint: hub id, folder or URI. Raises ModelError."""
        settings = settings or EngineSettings()
        checkpoint = open_checkpoint(model)
        where = pick_device(settings.device)
        limit_memory(where, settings)
        if settings.fp8:
            fp8.require(where)
        loaded = load_model(
            checkpoint,
            where,
            pick_dtype(settings.dtype, where),
            vae_dtype=pick_dtype(settings.vae_dtype, where),
            adapters=settings.adapters,
            fp8=settings.fp8,
            compiled=settings.compiles_on(where.type),
        )
        info = ModelInfo(
            name=model,
            sha256=loaded.sha256,
            device=device_name(where),
            dtype=str(loaded.transformer.dtype).removeprefix("torch."),
            versions=library_versions(),
            adapters=loaded.adapters,
        )
        shift = float(checkpoint.scheduler.get("shift", 1.0))
        return cls(
            loaded.transformer, loaded.vae, load_tokenizer(checkpoint), shift=shift, info=info, settings=settings
        )

    def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Yield one Result or Failure per request, as they are done. Raises EngineLost."""
        try:
            yield from self._outcomes(requests)
        except RuntimeError as error:
            check_device(error)
            raise

    def _outcomes(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        decoding: deque[Decoding] = deque()
        postponed: list[Job] = []
        for job in self._waves.run(requests):
            if isinstance(job, Failure):
                yield job
                continue
            decoding.append((job, self._decode(job)))
            yield from self._decoded(decoding, postponed, wait=False)
        yield from self._decoded(decoding, postponed, wait=True)
        if postponed:  # there was no room beside a wave
            free_cached_memory()
        for job in postponed:
            yield from self._decoded(deque([(job, self._decode(job))]), None, wait=True)

    def latents(self, requests: Sequence[Request]) -> list[torch.Tensor]:
        """The final latents (channels, h, w), fp32, of requests that share waves whatever their number and size.

        What parity is measured on. Raises RowError for the first request that fails.
        """
        found: dict[int, torch.Tensor] = {}
        budget, self._waves.budget = self._waves.budget, Budget(sys.maxsize)
        try:
            for job in self._waves.run(requests):
                if isinstance(job, Failure):
                    raise job.error
                found[id(job.request)] = self._latent(job)
        finally:
            self._waves.budget = budget
        return [found[id(request)] for request in requests]

    def take_waves(self) -> list[Wave]:
        """What the waves took since the last call."""
        return self._waves.take()

    def close(self) -> None:
        """Let go of the device's memory."""
        self._decoder.close()
        del self._transformer, self._waves, self._decoder
        free_cached_memory()

    def _tell_step(self) -> None:
        self.on_step()  # whoever listens by now

    def _latent(self, job: Job) -> torch.Tensor:
        assert job.row
        return self._transformer.unpatch(job.row.patches, job.row.height, job.row.width)

    def _decode(self, job: Job) -> Future[Decoded]:
        return self._decoder.submit(self._latent(job))

    def _decoded(self, decoding: deque[Decoding], postponed: list[Job] | None, *, wait: bool) -> Iterator[Outcome]:
        """Outcomes of what is decoded, in order; what there is no memory for is put off, or fails where it was."""
        while decoding and (wait or decoding[0][1].done()):
            job, future = decoding.popleft()
            try:
                decoded = future.result()
            except RuntimeError as error:
                check_memory_error(error)
                if postponed is None:
                    yield too_large(job.request)
                else:
                    postponed.append(job)
                continue
            yield _outcome(job, decoded)


def _outcome(job: Job, decoded: Decoded) -> Outcome:
    request = job.request
    if decoded.image is None:
        message = f"the latent of row {request.id!r} is not finite after {request.steps} steps"
        return Failure(request=request, error=RowError(ErrorKind.NON_FINITE, Stage.GENERATE, message))
    if job.wave:
        job.wave.decodes.append(decoded.lap)
    seconds = job.seconds() + decoded.lap.seconds()
    return Result(request=request, image=decoded.image, num_tokens=job.need.num_tokens, seconds=seconds)
