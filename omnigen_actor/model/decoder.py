"""Latents to images beside the next wave: on a GPU in a thread of its own, on a stream of its own. Knows no rows."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from omnigen_actor.model.stopwatch import Lap
from omnigen_actor.model.vae import Vae, to_image


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image, or None where the latent or its pixels are not finite; and what it took."""

    image: Image | None
    lap: Lap


class Decoder:
    """Decodes one latent at a time. ``overlapped`` False: in the call itself, as a CPU has nothing to overlap with."""

    def __init__(self, vae: Vae, device: torch.device, *, overlapped: bool) -> None:
        self._vae = vae
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode") if overlapped else None
        self._stream = _stream(device) if overlapped and device.type == "cuda" else None

    def submit(self, latent: Tensor) -> Future[Decoded]:
        """Begin to decode (channels, h, w). The future raises what the autoencoder raises."""
        if self._thread is None:
            future: Future[Decoded] = Future()
            try:
                future.set_result(self._decode(latent))
            except Exception as error:  # as a thread would have it
                future.set_exception(error)
            return future
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            latent.record_stream(self._stream)
        return self._thread.submit(self._decode_beside, latent)

    def close(self) -> None:
        """End the thread, once it is done."""
        if self._thread is not None:
            self._thread.shutdown()

    def _decode_beside(self, latent: Tensor) -> Decoded:
        with torch.cuda.stream(self._stream):  # does nothing where there is no stream
            return self._decode(latent)

    @torch.inference_mode()
    def _decode(self, latent: Tensor) -> Decoded:
        lap = Lap(self._device)
        with lap.running():
            pixels = self._vae.decode(latent)
            finite = torch.isfinite(latent).all() & torch.isfinite(pixels).all()
        return Decoded(to_image(pixels) if finite.item() else None, lap)


def _stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
