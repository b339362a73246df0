"""Decoding beside other work gives the same image, and whatever goes wrong comes out of the future."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from omnigen_actor.model.decoder import Decoder
from omnigen_actor.model.vae import Vae

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vae(tiny_model: Path) -> Vae:
    return Vae.load(tiny_model / "vae", CPU)


@pytest.fixture(params=[False, True], ids=["in the call", "overlapped"])
def decoder(vae: Vae, request: pytest.FixtureRequest) -> Iterator[Decoder]:
    decoder = Decoder(vae, CPU, overlapped=request.param)
    yield decoder
    decoder.close()


def latent(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(4, height, width, generator=torch.Generator().manual_seed(seed))


def test_an_overlapped_image_is_the_one_made_in_the_call_to_the_byte(vae: Vae):
    latents = [latent(8, 4), latent(2, 12, 1), latent(8, 4, 2)]
    in_the_call, overlapped = Decoder(vae, CPU, overlapped=False), Decoder(vae, CPU, overlapped=True)
    beside = [overlapped.submit(one) for one in latents]  # all of them, before the first is asked for
    for one, future in zip(latents, beside, strict=True):
        expected, found = in_the_call.submit(one).result().image, future.result().image
        assert found.size == (8 * one.shape[2], 8 * one.shape[1])
        assert found.tobytes() == expected.tobytes()
    overlapped.close()


def test_in_the_call_it_is_done_when_the_call_returns(vae: Vae):
    assert Decoder(vae, CPU, overlapped=False).submit(latent(4, 4)).done()


def test_a_decode_tells_what_it_took(decoder: Decoder):
    assert decoder.submit(latent(4, 4)).result().lap.seconds() > 0


def test_an_error_of_the_autoencoder_comes_out_of_the_future(decoder: Decoder):
    failed = decoder.submit(torch.zeros(5, 4, 4))  # five channels
    with pytest.raises(RuntimeError, match="channels"):
        failed.result()
    assert decoder.submit(latent(4, 4)).result().image  # and the next one is decoded


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_what_is_not_finite_is_no_image(decoder: Decoder, value: float):
    """3e38 is finite as a latent, but not as a pixel."""
    broken = latent(4, 4)
    broken[1, 2, 3] = value
    assert decoder.submit(broken).result().image is None
    assert decoder.submit(latent(4, 4)).result().image


def test_the_latent_is_left_as_it_was(decoder: Decoder):
    given = latent(4, 4)
    decoder.submit(given).result()
    assert torch.equal(given, latent(4, 4))


def test_close_waits_for_what_was_submitted(vae: Vae):
    decoder = Decoder(vae, CPU, overlapped=True)
    futures = [decoder.submit(latent(16, 16, seed)) for seed in range(3)]
    decoder.close()
    assert all(future.done() and future.result().image for future in futures)
