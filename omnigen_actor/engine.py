"""OmniGenEngine: a mixed list of requests in, one outcome for each out. Knows nothing of tables, files or clusters.

A wave of rows is: prepare each row (prompt, latents, conditions, noise) -> denoise all together -> decode each. On a
CPU a wave is one row, because packing rows together would change the rounding there; on a GPU rows share a wave up to a
token budget. What does not fit is split; what fails is that row's outcome and nobody else's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from omnigen_actor.checkpoint.opening import VAE, open_checkpoint
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.model import sampler
from omnigen_actor.model.loading import library_versions, load_tokenizer, load_transformer, pick_device, pick_dtype
from omnigen_actor.model.prepare import Preparer
from omnigen_actor.model.transformer import Transformer
from omnigen_actor.model.vae import Vae, to_image
from omnigen_actor.types import Failure, ModelInfo, Outcome, Request, Result

WAVE_TOKENS = 8192
"""Packed image tokens of a wave on a GPU: matrix products are at their full rate from about 4 to 8 thousand rows on."""


@dataclass(slots=True, kw_only=True)
class _Job:
    """One request in a wave. ``seconds`` grows as it goes."""

    request: Request
    row: sampler.Row
    seconds: float

    @property
    def wave_tokens(self) -> int:
        return self.row.num_tokens * len(self.row.branches)


class OmniGenEngine:
    """One loaded model. Build it with ``from_pretrained``; not to be shared by threads."""

    def __init__(self, transformer: Transformer, vae: Vae, preparer: Preparer, info: ModelInfo) -> None:
        """Take over loaded parts."""
        self.info = info
        self._transformer = transformer
        self._vae = vae
        self._preparer = preparer
        self._wave_tokens = WAVE_TOKENS if transformer.device.type == "cuda" else 1

    @classmethod
    def from_pretrained(cls, model: str, *, device: str = "auto", dtype: str = "auto") -> OmniGenEngine:
        """Load a diffusers-layout checkpoint: hub id, folder or URI. Raises ModelError."""
        checkpoint = open_checkpoint(model)
        where = pick_device(device)
        transformer = load_transformer(checkpoint, where, pick_dtype(dtype, where))
        vae = Vae.load(checkpoint.folder / VAE, where)
        shift = float(checkpoint.scheduler.get("shift", 1.0))
        info = ModelInfo(
            name=model,
            sha256=checkpoint.identity,
            device=str(where),
            dtype=str(transformer.dtype).removeprefix("torch."),
            versions=library_versions(),
        )
        return cls(transformer, vae, Preparer(transformer, vae, load_tokenizer(checkpoint), shift), info)

    def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        """Yield one Result or Failure per request, as they are done. Request order is kept but for rows that fail."""
        wave: list[_Job] = []
        for request in requests:
            prepared = self._prepare(request)
            if isinstance(prepared, Failure) and prepared.error.kind is ErrorKind.OUT_OF_MEMORY and wave:
                yield from self._run(wave)  # what waits holds memory: finish it, then try once more
                wave = []
                prepared = self._prepare(request)
            if isinstance(prepared, Failure):
                yield prepared
                continue
            wave.append(prepared)
            if sum(job.wave_tokens for job in wave) >= self._wave_tokens:
                yield from self._run(wave)
                wave = []
        yield from self._run(wave)

    def latents(self, requests: Sequence[Request]) -> list[torch.Tensor]:
        """The final latents (channels, h, w), fp32, of requests packed into one wave: what parity is measured on.

        Raises RowError for the first request that fails.
        """
        jobs = []
        for request in requests:
            prepared = self._prepare(request)
            if isinstance(prepared, Failure):
                raise prepared.error
            jobs.append(prepared)
        for failure in self._denoise(jobs).values():
            raise failure.error
        return [job.row.latent for job in jobs]

    def close(self) -> None:
        """Let go of the device's memory."""
        del self._transformer, self._vae, self._preparer
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _prepare(self, request: Request) -> _Job | Failure:
        started = time.perf_counter()
        try:
            row = self._preparer.prepare(request)
        except RowError as error:
            return Failure(request=request, error=error)
        except RuntimeError as error:
            _free_memory(error)
            return _too_large(request)
        return _Job(request=request, row=row, seconds=time.perf_counter() - started)

    def _run(self, wave: list[_Job]) -> Iterator[Outcome]:
        """Denoise and decode one wave."""
        started = time.perf_counter()
        failed = self._denoise(wave)
        elapsed = time.perf_counter() - started
        work = sum(job.wave_tokens * job.request.steps for job in wave)
        for job in wave:
            job.seconds += elapsed * job.wave_tokens * job.request.steps / work
            yield failed.get(id(job)) or self._decode(job)

    @torch.inference_mode()
    def _denoise(self, wave: list[_Job]) -> dict[int, Failure]:
        """Integrate in place; a wave that does not fit goes on as two. Returns what did not fit even alone."""
        try:
            sampler.denoise(self._transformer, [job.row for job in wave])
        except RuntimeError as error:
            _free_memory(error)
            if len(wave) == 1:
                return {id(wave[0]): _too_large(wave[0].request)}
        else:
            return {}
        half = len(wave) // 2
        return self._denoise(wave[:half]) | self._denoise(wave[half:])

    @torch.inference_mode()
    def _decode(self, job: _Job) -> Outcome:
        started = time.perf_counter()
        try:
            pixels = self._vae.decode(job.row.latent)
        except RuntimeError as error:
            _free_memory(error)
            return _too_large(job.request)
        if not (torch.isfinite(job.row.latent).all() and torch.isfinite(pixels).all()):
            message = f"the latent of row {job.request.id!r} is not finite after {job.request.steps} steps"
            return Failure(request=job.request, error=RowError(ErrorKind.NON_FINITE, Stage.GENERATE, message))
        image = to_image(pixels)
        seconds = job.seconds + time.perf_counter() - started
        return Result(request=job.request, image=image, num_tokens=job.wave_tokens, seconds=seconds)


def _free_memory(error: RuntimeError) -> None:
    """Make room after an error of memory. Raises any other error again: it is not ours to handle."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        raise error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _too_large(request: Request) -> Failure:
    """The failure of a row that does not fit even alone."""
    size = f"{request.width}×{request.height}" if request.width else "the input image's size"
    message = f"row does not fit the device's memory even alone, at {size} with {len(request.images)} input images"
    return Failure(request=request, error=RowError(ErrorKind.OUT_OF_MEMORY, Stage.GENERATE, message))
