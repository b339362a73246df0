"""EngineSettings: how an engine computes, beside what each row asks for. Plain values; knows no torch.

Whatever could change pixels beyond rounding is an approximation: off by default, and named in every record.
"""

from __future__ import annotations

from dataclasses import dataclass

EXACT_INTERVAL = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Settings of one engine. The documentation of each is that of the option of the same name (pipelines/config.py).

    ``wave_tokens`` None: as many packed image tokens as the device's free memory allows, up to 8192.
    ``rows_per_wave`` None: as many as fit; on a CPU one. 1 makes an image independent of other rows to the bit.
    ``compile``: whether the parts of a block are compiled: auto (on a GPU), on, off.
    ``attention``: auto, or the name of one kernel (omnigen_actor/model/attention.py).
    ``memory_gib``: most device memory that this engine may take; None: all that is free.
    ``adapters``: LoRA folders or hub ids, each with an optional ``@weight``, merged at load.
    ``fp8``, ``guidance_from``/``guidance_to`` and ``step_cache`` are approximations.
    """

    device: str = "auto"
    dtype: str = "auto"
    vae_dtype: str = "float32"
    cpu_threads: int = 1
    wave_tokens: int | None = None
    rows_per_wave: int | None = None
    compile: str = "auto"
    attention: str = "auto"
    memory_gib: float | None = None
    adapters: tuple[str, ...] = ()
    fp8: bool = False
    guidance_from: float = 0.0
    guidance_to: float = 1.0
    step_cache: float = 0.0

    def compiles_on(self, device_type: str) -> bool:
        """Whether blocks are compiled on a device of that type."""
        return self.compile == "on" or (self.compile == "auto" and device_type == "cuda")

    @property
    def approximations(self) -> tuple[str, ...]:
        """The approximations that are on, each with its setting, as records name them. Empty: exact."""
        found = []
        if self.fp8:
            found.append("fp8")
        if (self.guidance_from, self.guidance_to) != EXACT_INTERVAL:
            found.append(f"guidance_interval={self.guidance_from:g}-{self.guidance_to:g}")
        if self.step_cache:
            found.append(f"step_cache={self.step_cache:g}")
        return tuple(found)
