"""decode, fit, encode and from_pixels, on files that Pillow wrote and on files that nobody should have written."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from omnigen_actor import images
from omnigen_actor.errors import ErrorKind, RowError, Stage

LIMIT = 1_000_000


def photo(width: int = 40, height: int = 24, seed: int = 0) -> Image.Image:
    """A smooth colour picture without any symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def decode(data: bytes) -> np.ndarray[Any, Any]:
    image = images.decode(data, max_pixels=LIMIT)
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image).astype(int)


def failure(data: bytes, max_pixels: int = LIMIT) -> RowError:
    with pytest.raises(RowError) as caught:
        images.decode(data, max_pixels=max_pixels)
    assert caught.value.stage is Stage.FETCH
    return caught.value


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_decode_to_the_same_pixels(image_format: str) -> None:
    assert np.array_equal(decode(saved(photo(), image_format)), np.asarray(photo()))


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "AVIF", "GIF"])
def test_lossy_formats_decode_to_nearly_the_same_pixels(image_format: str) -> None:
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    assert np.abs(decode(saved(photo(), image_format)) - np.asarray(photo())).mean() < 12


def test_formats_outside_the_list_are_not_images() -> None:
    for image_format in ("TGA", "ICO", "JPEG2000", "EPS", "PCX"):
        assert failure(saved(photo(), image_format)).kind is ErrorKind.NOT_AN_IMAGE


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_the_exif_orientation_is_applied(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90° clockwise to see it upright
    data = saved(photo(), image_format, exif=exif)
    upright = np.asarray(photo().transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert decode(data).shape == upright.shape == (40, 24, 3)
    assert np.abs(decode(data) - upright).mean() < 12


def test_an_unreadable_exif_block_leaves_the_picture_as_it_is() -> None:
    data = saved(photo(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(data).shape == (24, 40, 3)


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_counts(image_format: str) -> None:
    frames = [Image.new("RGB", (32, 16), colour) for colour in ("red", "blue", "lime")]
    data = saved(frames[0], image_format, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as file:
        assert getattr(file, "n_frames", 1) == 3
    assert np.abs(decode(data) - (255, 0, 0)).max() <= 6


def test_palette_grey_and_bilevel_become_rgb() -> None:
    grey = photo().convert("L")
    assert np.array_equal(decode(saved(grey)), np.asarray(grey.convert("RGB")))
    palette = photo().quantize(16)
    assert np.array_equal(decode(saved(palette)), np.asarray(palette.convert("RGB")))
    bilevel = photo().convert("1")
    assert np.array_equal(decode(saved(bilevel)), np.asarray(bilevel.convert("RGB")))


def test_lab_becomes_rgb() -> None:
    decoded = decode(saved(Image.new("LAB", (16, 16), (255, 128, 128)), "TIFF"))
    assert decoded.min() > 250


def test_cmyk_jpeg_becomes_rgb_with_the_same_colours() -> None:
    data = saved(photo().convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decode(data) - np.asarray(photo())).mean() < 6


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(image_format: str) -> None:
    ramp = np.linspace(0, 65535, 40 * 24).astype(np.uint16).reshape(24, 40)
    decoded = decode(saved(Image.fromarray(ramp), image_format))
    assert np.array_equal(decoded, np.repeat((ramp // 256)[:, :, None], 3, axis=2))


def test_16_bit_colour_png_keeps_the_high_byte() -> None:
    assert decode(png_16_bit_colour(0x12FF, 0x8000, 0xFE01)).tolist() == [[[0x12, 0x80, 0xFE]]]


def png_16_bit_colour(*samples: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">3H", *samples))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_floating_point_counts_to_1_or_to_255(top: float) -> None:
    ramp = np.linspace(0, 255, 40 * 24, dtype=np.float32).round().reshape(24, 40)
    values = ramp * np.float32(top / 255)
    values[0, 0] = np.nan
    decoded = decode(saved(Image.fromarray(values), "TIFF"))
    assert np.array_equal(decoded[:, :, 0], ramp)


def test_transparency_lies_over_white_and_hidden_colours_stay_hidden() -> None:
    layer = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    layer.putpixel((1, 0), (0, 0, 0, 128))
    assert decode(saved(layer)).tolist() == [[[255, 255, 255], [127, 127, 127]]]
    assert decode(saved(layer.convert("LA"))).tolist() == [[[255, 255, 255], [127, 127, 127]]]


def test_a_transparent_palette_colour_lies_over_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for image_format in ("PNG", "GIF"):
        assert decode(saved(palette, image_format, transparency=0)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_a_transparent_colour_of_an_rgb_png_lies_over_white() -> None:
    picture = Image.new("RGB", (1, 1), (10, 20, 30))
    assert decode(saved(picture, transparency=(10, 20, 30))).tolist() == [[[255, 255, 255]]]


# -- what is refused --------------------------------------------------------------------------------------------------


def test_an_empty_file_says_so() -> None:
    assert failure(b"").kind is ErrorKind.EMPTY_FILE


@pytest.mark.parametrize("data", [b"<html>404</html>", b"P4ssw0rd", b"BMW is a car", b"%!PS-Adobe", b"\0" * 64])
def test_what_is_no_image_says_what_it_begins_with(data: bytes) -> None:
    error = failure(data)
    assert error.kind is ErrorKind.NOT_AN_IMAGE
    assert repr(data[:16]) in error.message


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_found(image_format: str, share: float) -> None:
    data = saved(photo(200, 160), image_format)
    assert failure(data[: int(len(data) * share)]).kind is ErrorKind.TRUNCATED_IMAGE


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_file_cut_within_its_header_is_truncated_too(image_format: str) -> None:
    assert failure(saved(photo(), image_format)[:14]).kind is ErrorKind.TRUNCATED_IMAGE


def test_the_size_is_checked_before_a_pixel_is_decoded() -> None:
    data = saved(photo(200, 160))
    header_only = data[: data.index(b"IDAT") + 4]  # decoding it would be truncated_image
    error = failure(header_only, max_pixels=200 * 160 - 1)
    assert error.kind is ErrorKind.IMAGE_TOO_LARGE
    assert "200x160" in error.message
    assert "31999" in error.message
    assert images.decode(data, max_pixels=200 * 160).size == (200, 160)


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_without_a_warning(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + b"\0\0\0\1IDAT"
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert failure(bomb, max_pixels=64_000_000).kind is ErrorKind.IMAGE_TOO_LARGE
    assert seen == []


def test_the_warning_filters_of_the_process_survive_threads() -> None:
    before = list(warnings.filters)
    data = saved(photo(200, 160), "JPEG")
    threads = [threading.Thread(target=images.decode, args=(data,), kwargs={"max_pixels": LIMIT}) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_row_errors(data: bytes) -> None:
    assert_decodes_or_row_error(data)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_damaged_files_raise_nothing_but_row_errors(image_format: str) -> None:
    if image_format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    rng = random.Random(image_format)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    originals = [saved(photo(), image_format, **({} if image_format in ("GIF", "BMP", "PPM") else {"exif": exif}))]
    originals.append(saved(photo().convert("L"), image_format))
    for number in range(400):
        assert_decodes_or_row_error(damaged(originals[number % 2], rng))


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 2, 8, 32])):
        changed[rng.randrange(min(len(changed), rng.choice([40, 200, len(changed)])))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.2 else changed)


def assert_decodes_or_row_error(data: bytes) -> None:
    with contextlib.suppress(RowError):
        assert images.decode(data, max_pixels=LIMIT).mode == "RGB"


# -- fit --------------------------------------------------------------------------------------------------------------


def crop_image(pil_image: Image.Image, max_image_size: int) -> Image.Image:
    """Verbatim from diffusers 0.42.1, pipelines/omnigen/processor_omnigen.py (Apache-2.0): the reference.

    Copied, as that module imports torch, and torchvision where it is installed.
    """
    while min(*pil_image.size) >= 2 * max_image_size:
        pil_image = pil_image.resize(tuple(x // 2 for x in pil_image.size), resample=Image.BOX)

    if max(*pil_image.size) > max_image_size:
        scale = max_image_size / max(*pil_image.size)
        pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.BICUBIC)

    if min(*pil_image.size) < 16:
        scale = 16 / min(*pil_image.size)
        pil_image = pil_image.resize(tuple(round(x * scale) for x in pil_image.size), resample=Image.BICUBIC)

    arr = np.array(pil_image)
    crop_y1 = (arr.shape[0] % 16) // 2
    crop_y2 = arr.shape[0] % 16 - crop_y1

    crop_x1 = (arr.shape[1] % 16) // 2
    crop_x2 = arr.shape[1] % 16 - crop_x1

    arr = arr[crop_y1 : arr.shape[0] - crop_y2, crop_x1 : arr.shape[1] - crop_x2]
    return Image.fromarray(arr)


SIDES = st.one_of(st.integers(1, 40), st.integers(1, 700))
LIMITS = st.integers(16, 300)


def is_thin_and_fitted(width: int, height: int, max_side: int) -> bool:
    """A size that fit itself gives for long strips; the reference would scale it down and up again."""
    return min(width, height) == 16 and max(width, height) % 16 == 0 and max(width, height) > max_side


@settings(max_examples=150, deadline=None)
@given(width=SIDES, height=SIDES, max_side=LIMITS)
def test_fit_gives_the_bytes_of_the_authors_processing(width: int, height: int, max_side: int) -> None:
    picture = photo(width, height)
    try:
        expected = crop_image(picture, max_side)
    except ValueError:  # it rounds a side of an extreme shape to 0
        return
    if max(expected.size) <= 3072 and not is_thin_and_fitted(width, height, max_side):
        fitted = images.fit(picture, max_side)
        assert fitted.size == expected.size
        assert fitted.tobytes() == expected.tobytes()


@settings(max_examples=150, deadline=None)
@given(width=SIDES, height=SIDES, max_side=LIMITS)
def test_a_fitted_image_fits_the_model_and_stays_as_it_is(width: int, height: int, max_side: int) -> None:
    fitted = images.fit(photo(width, height), max_side)
    assert all(side % 16 == 0 and 16 <= side <= 3072 for side in fitted.size)
    assert min(fitted.size) == 16 or max(fitted.size) <= max_side
    again = images.fit(fitted, max_side)
    assert again.size == fitted.size
    assert again.tobytes() == fitted.tobytes()


@pytest.mark.parametrize(
    ("size", "max_side", "fitted"),
    [
        ((4096, 3000), 1024, (1024, 736)),
        ((1000, 750), 1024, (992, 736)),
        ((5000, 1), 1024, (3072, 16)),  # diffusers: a side of 0
        ((1, 5000), 1024, (16, 3072)),
        ((1024, 3), 1024, (3072, 16)),  # diffusers: 5456 × 16, beyond the position table
        ((15, 15), 1024, (16, 16)),
        ((3072, 3072), 3072, (3072, 3072)),
    ],
)
def test_sizes_of_fit(size: tuple[int, int], max_side: int, fitted: tuple[int, int]) -> None:
    assert images.fit(Image.new("RGB", size), max_side).size == fitted


def test_an_extreme_shape_keeps_its_centre() -> None:
    strip = Image.new("RGB", (4000, 4), "black")
    strip.paste("white", (1990, 0, 2010, 4))
    row = np.asarray(images.fit(strip, 1024))[8, :, 0]
    assert row[len(row) // 2] > 200
    assert abs(int(np.flatnonzero(row > 128).mean()) - len(row) // 2) <= 1


@pytest.mark.parametrize("max_side", [-1, 0, 15, 3073])
def test_a_limit_that_the_model_does_not_take_is_refused(max_side: int) -> None:
    with pytest.raises(ValueError, match=f"max_side={max_side}"):
        images.fit(photo(), max_side)


# -- encode and from_pixels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_lossless_encoding_gives_every_pixel_back(image_format: str) -> None:
    assert np.array_equal(decode(images.encode(photo(), image_format)), np.asarray(photo()))


def test_jpeg_encoding_is_close_and_keeps_full_colour_resolution() -> None:
    data = images.encode(photo(), "jpeg")
    assert np.abs(decode(data) - np.asarray(photo())).mean() < 2
    with Image.open(io.BytesIO(data)) as file:
        assert [layer[1:3] for layer in file.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("image_format", images.EXTENSIONS)
def test_encoding_is_deterministic_and_leaves_metadata_out(image_format: str) -> None:
    marked = photo()
    marked.info = {"icc_profile": b"profile" * 99, "comment": b"hello", "exif": b"Exif\0\0"}
    assert images.encode(marked, image_format) == images.encode(photo(), image_format)
    assert marked.info


def test_extensions_and_encoders_name_the_same_formats() -> None:
    assert all(images.encode(photo(), name) for name in images.EXTENSIONS)


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'bmp' is not known; known: png, webp, jpeg"):
        images.encode(photo(), "bmp")


def test_pixels_come_back_as_images() -> None:
    pictures = [photo(32, 16), photo(16, 48, seed=1)]
    back = images.from_pixels([picture.tobytes() for picture in pictures], [32, 16, 16, 48])
    assert [image.size for image in back] == [(32, 16), (16, 48)]
    assert [image.tobytes() for image in back] == [picture.tobytes() for picture in pictures]
    assert images.from_pixels([], []) == ()


@pytest.mark.parametrize(
    "call",
    [lambda: images.from_pixels([b"x"], [1]), lambda: images.from_pixels([b"xx"], [1, 1])],
    ids=["sizes", "bytes"],
)
def test_pixels_that_do_not_match_their_sizes_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"size|not enough"):
        call()


def test_the_module_imports_neither_torch_nor_ray() -> None:
    code = "import sys, omnigen_actor.images; sys.exit(bool({'torch', 'ray', 'diffusers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("mode", ["F", "I;16", "I"])
def test_that_wide_values_are_converted_some_rows_at_a_time_does_not_show(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, (37, 24))
    kinds = {"F": values.astype(np.float32), "I;16": values.astype(np.uint16), "I": values.astype(np.int32)}
    file = io.BytesIO()
    Image.fromarray(kinds[mode]).save(file, "TIFF")
    whole = images.decode(file.getvalue(), max_pixels=10**6)
    monkeypatch.setattr(images, "_BAND_PIXELS", 50)
    assert images.decode(file.getvalue(), max_pixels=10**6).tobytes() == whole.tobytes()
    assert np.asarray(whole).std() > 1
