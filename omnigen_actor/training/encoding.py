"""Fetched rows -> prepared examples: pictures become latents, once for all epochs. Knows no Ray and no training.

The last picture of a row is its target, those before are its inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from omnigen_actor.checkpoint.opening import open_checkpoint
from omnigen_actor.errors import ErrorKind, Stage
from omnigen_actor.model.loading import pick_device
from omnigen_actor.model.vae import Vae
from omnigen_actor.schema import FETCHED, PREPARED

_KEPT = ("id", "sample", "row_hash", "error_kind", "error_stage", "error", "task", "prompt")


class EncodeExamples:
    """A callable that holds a checkpoint's autoencoder: a table of FETCHED rows in, one of PREPARED rows out."""

    def __init__(self, model: str, device: str = "auto", cpu_threads: int = 1) -> None:
        torch.set_num_threads(cpu_threads)
        self._vae = Vae.load(open_checkpoint(model).vae, pick_device(device))

    def __call__(self, table: pa.Table) -> pa.Table:
        """One row for one row, in order; a row with an error has no latents."""
        rows = [self._prepared(row) for row in table.select(FETCHED.names).to_pylist()]
        return pa.Table.from_pylist(rows, schema=PREPARED)

    @torch.inference_mode()
    def _prepared(self, row: dict[str, Any]) -> dict[str, Any]:
        kept = {name: row[name] for name in _KEPT}
        sizes = row["pixel_sizes"]
        pictures = [
            Image.frombytes("RGB", (width, height), pixels)
            for pixels, width, height in zip(row["pixels"], sizes[::2], sizes[1::2], strict=True)
        ]
        latents = [self._vae.encode(picture).half().cpu() for picture in pictures]
        if not all(bool(latent.isfinite().all()) for latent in latents):
            error = {"error_kind": ErrorKind.NON_FINITE.value, "error_stage": Stage.GENERATE.value}
            return {**kept, **error, "error": "a picture's latent is not finite", "latents": [], "latent_sizes": []}
        return {
            **kept,
            "latents": [latent.numpy().tobytes() for latent in latents],
            "latent_sizes": [side for latent in latents for side in latent.shape],
        }


def read_latents(row: dict[str, Any]) -> list[torch.Tensor]:
    """The latents of a PREPARED row, each (channels, h, w) in fp32."""
    sizes = np.array(row["latent_sizes"]).reshape(-1, 3).tolist()
    return [
        torch.from_numpy(np.frombuffer(data, np.float16).astype(np.float32)).reshape(size)
        for data, size in zip(row["latents"], sizes, strict=True)
    ]
