"""RunConfig: every setting of a run, each default in one place. Knows no argv and no files; the options derive from it.

A value outside its documented range raises ConfigError at construction, wherever it came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.errors import ConfigError, ErrorKind
from omnigen_actor.types import MAX_SEED, MAX_SIDE

ALL = "all"
"""Among error kinds: every one."""


def option(default: Any, doc: str, **limits: Any) -> Any:
    """A field with its one-line documentation, which is also the option's help, and its limits (see ``complaint``).

    ``bare``: of a tuple of names, what the option alone means, or ``true`` in a file; ``metavar`` shows one of them.
    """
    return field(default=default, metadata={"help": doc, **limits})


def complaint(value: object, limits: Mapping[str, Any]) -> str | None:
    """What ``value`` must be and is not, or None.

    Limits: ``choices`` (a tuple), ``at_least``, ``at_most``, ``above``. Numbers must be finite, text not empty. Of a
    tuple each item is meant.
    """
    if isinstance(value, tuple):
        return next((problem for item in value if (problem := complaint(item, limits))), None)
    choices = limits.get("choices")
    if choices and value not in choices:
        return f"must be one of {', '.join(choices)}"
    if value == "":
        return "must not be empty"
    if isinstance(value, int | float) and not _within(value, limits):
        return f"must be {_range(limits)}"
    return None


def _within(value: float, limits: Mapping[str, Any]) -> bool:
    return (
        math.isfinite(value)
        and value >= limits.get("at_least", -math.inf)
        and value <= limits.get("at_most", math.inf)
        and value > limits.get("above", -math.inf)
    )


def _range(limits: Mapping[str, Any]) -> str:
    low, high, above = limits.get("at_least"), limits.get("at_most"), limits.get("above")
    if above is not None:
        return f"finite and greater than {above}"
    if low is None:
        return "finite"
    return f"finite and {low} or greater" if high is None else f"between {low} and {high}"


class Checked:
    """Base of the sections: no value outside its limits."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for entry in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, entry.name)
            problem = None if value is None else complaint(value, entry.metadata)
            if problem:
                raise ConfigError(f"{entry.name}={value!r}: {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig(Checked):
    """Defaults of a row: what the manifest does not say. A row's own value wins; guidance falls back to the task's."""

    width: int = option(1024, "output width in pixels, rounded down to a multiple of 16", at_least=1, at_most=MAX_SIDE)
    height: int = option(
        1024, "output height in pixels, rounded down to a multiple of 16", at_least=1, at_most=MAX_SIDE
    )
    steps: int = option(50, "denoising steps", at_least=1, at_most=1000)
    guidance_scale: float | None = option(None, "text guidance; default: the task's own", at_least=0)
    img_guidance_scale: float | None = option(None, "image guidance; default: the task's own", at_least=0)
    max_input_image_size: int = option(
        1024, "longest side of an input image as the model sees it, in pixels", at_least=16, at_most=MAX_SIDE
    )
    seed: int = option(
        0, "seed of the run; a row's seed derives from it, the row's id and the sample", at_least=0, at_most=MAX_SEED
    )
    num_samples: int = option(1, "images per row", at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig(Checked):
    """How input images are fetched, and the limits that an untrusted manifest meets."""

    image_root: str | None = option(
        None, "where relative image references start, a folder or URI; default: the manifest's folder"
    )
    allow: tuple[str, ...] = option(
        (),
        "place that rows may read beside the manifest's own: a folder, or a URI of a bucket, host or what is below; "
        "give the option once for each",
    )
    max_image_bytes: int = option(64 * 2**20, "largest input file in bytes", at_least=1)
    max_image_pixels: int = option(
        64_000_000, "largest input image in pixels, checked before it is decoded", at_least=1
    )
    fetch_timeout_s: float = option(60.0, "seconds that one read may take", above=0)
    fetch_retries: int = option(6, "further tries of a read that failed in a way that can pass", at_least=0)
    fetch_threads: int = option(8, "input images fetched at the same time by one task", at_least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig(Checked):
    """How output images are encoded."""

    image_format: str = option(
        "png", "png (lossless), webp (lossless) or jpeg (quality 95)", choices=("png", "webp", "jpeg")
    )
    embed_provenance: bool = option(
        True,
        "each image file says how it was made (prompt, seed, model, ...) and that it is generated; no pixel changes",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(Checked):
    """The pool of actors, each with one engine."""

    num_actors: int | None = option(
        None, "size of the pool; default: one per GPU, or one on a machine without", at_least=1
    )
    gpus_per_actor: float | None = option(
        None, "GPUs of one actor; default: 1 where the cluster has GPUs, else 0", at_least=0
    )
    cpu_threads: int = option(
        1, "threads of an engine on a CPU; part of what makes images repeatable there", at_least=1
    )
    device: str = option("auto", "auto, cuda or cpu", choices=("auto", "cuda", "cpu"))
    dtype: str = option(
        "auto",
        "auto (bfloat16 on cuda, float32 on cpu), bfloat16 or float32",
        choices=("auto", "bfloat16", "float32"),
    )
    batch_size: int = option(8, "rows that an actor takes at a time", at_least=1)
    max_crashes: int = option(2, "a row that ran alone when its worker died this often is not run again", at_least=1)
    stall_timeout_s: float = option(
        1800.0, "seconds without a step or an outcome after which a worker with a batch is started anew", above=0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig(Checked):
    """How an engine computes, beside device, dtype and cpu_threads; approximations are named in every record."""

    vae_dtype: str = option("float32", "precision of the VAE, float32 or bfloat16", choices=("float32", "bfloat16"))
    wave_tokens: int | None = option(
        None, "most packed image tokens of one step; default: what free memory allows, up to 8192", at_least=1
    )
    rows_per_wave: int | None = option(
        None,
        "most rows of one step; default: as many as fit, on a CPU 1; 1 makes images independent of other rows",
        at_least=1,
    )
    compile: str = option("auto", "torch.compile: auto (on cuda), on or off", choices=("auto", "on", "off"))
    attention: str = option(
        "auto",
        "auto (the fastest that the device has), or one attention kernel",
        choices=("auto", "varlen", "cudnn", "flash", "efficient", "math"),
    )
    memory_gib: float | None = option(
        None, "most device memory of one engine, in GiB; default: all that is free", above=0
    )
    adapters: tuple[str, ...] = option(
        (), "LoRA folder, URI or hub id, with @WEIGHT or without, merged at load; give the option once for each"
    )
    fp8: bool = option(False, "approximation, off by default: linear layers in 8 bits, on devices that have them")
    guidance_from: float = option(
        0.0,
        "approximation, off by default: guidance begins at this time; 0 is noise, 1 the image",
        at_least=0,
        at_most=1,
    )
    guidance_to: float = option(
        1.0, "approximation, off by default: guidance ends at this time; 0 is noise, 1 the image", at_least=0, at_most=1
    )
    step_cache: float = option(
        0.0,
        "approximation, off by default: a step whose first block changed by less than this share leaves out the others",
        at_least=0,
    )

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if self.guidance_from >= self.guidance_to:
            raise ConfigError(
                f"guidance_from={self.guidance_from!r}: must be less than guidance_to={self.guidance_to!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Checked):
    """Everything that a run needs to know."""

    model: str = option(
        "Shitao/OmniGen-v1-diffusers",
        "hub id, folder or URI of a checkpoint; mini: the small trained one of the package; fake: none",
    )
    tasks: tuple[str, ...] = option(
        (), "tasks of your own: a YAML file or package.module:NAME; give the option once for each"
    )
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    inputs: InputConfig = field(default_factory=InputConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    workers: WorkerConfig = field(default_factory=WorkerConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    max_failed: float = option(
        0.0,
        "largest share of rows without an image (failed or skipped), in percent, that still exits with 0",
        at_least=0,
        at_most=100,
    )
    retry_failed: tuple[str, ...] = option(
        (),
        "run rows again that failed in an earlier run: all, or those with one of these error kinds",
        choices=(ALL, *(kind.value for kind in ErrorKind)),
        bare=(ALL,),
        metavar="KIND",
    )
    only: tuple[str, ...] = option(
        (),
        "do some rows alone: task=NAME,... or id=ID,...; ids may have the wildcards * ? [ ]; give the option once for "
        "each condition, all must hold",
    )
    limit: int | None = option(None, "most rows to do this time, with all their samples; default: all", at_least=1)
    allow_mixed: bool = option(
        False, "go on in an output made with another model or settings: what is done stays, the rest is made with these"
    )
    take_over: bool = option(False, "go on although another run says that it writes to the output")
    store_timeout_s: float = option(
        300.0, "seconds for which a store that takes no image or record is tried again before the run stops", above=0
    )
    grace_s: float = option(30.0, "seconds that batches which run may take after SIGTERM", at_least=0)
    ray_address: str | None = option(None, "cluster to join; default: RAY_ADDRESS, else a local one")
    progress_every_s: float = option(
        1.0, "seconds between two progress lines on a terminal; 30 times that elsewhere", at_least=0
    )

    def engine_settings(self, device: str | None = None) -> EngineSettings:
        """What an engine of this run is opened with, on ``device`` where that is known by now."""
        own = {entry.name: getattr(self.engine, entry.name) for entry in fields(self.engine)}
        return EngineSettings(
            device=device or self.workers.device,
            dtype=self.workers.dtype,
            cpu_threads=self.workers.cpu_threads,
            **own,
        )
