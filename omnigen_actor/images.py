"""Bytes to pixels and back: decode untrusted files, fit them to the model, encode results. Knows no URIs and no torch.

file bytes ─► decode (limits, EXIF turn, any mode to RGB) ─► fit (the model's sizes) ─► raw RGB bytes ─► from_pixels
finished image ─► encode ─► file bytes
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from omnigen_actor import provenance
from omnigen_actor.errors import ErrorKind, RowError, Stage
from omnigen_actor.types import MAX_SIDE, PIXELS_PER_TOKEN

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""What is read. A closed list, since manifests are untrusted and Pillow also has readers that run other programs."""

_Array = np.ndarray[Any, Any]

_PNG: dict[str, Any] = {"format": "PNG", "compress_level": 1}
_WEBP: dict[str, Any] = {"format": "WEBP", "lossless": True, "method": 0, "quality": 0, "exact": True}
_JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"}
_ENCODERS = {"png": _PNG, "webp": _WEBP, "jpeg": _JPEG}

EXTENSIONS = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
"""Image format (as in the configuration) to the extension of its files."""

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*")
_BAND_PIXELS = 1 << 20
_WIDE_INTEGERS = ("I;16", "I;16L", "I;16B", "I;16N", "I")

# Warning filters belong to the process, so two threads may not swap them at the same time. One decode at a time also
# bounds memory: pictures at the pixel limit never stand side by side.
_ONE_AT_A_TIME = threading.Lock()


def decode(data: bytes, *, max_pixels: int) -> Image.Image:
    """The first frame of an image file as RGB, turned as its EXIF orientation says, without any metadata.

    The size is read from the header and checked before a pixel is decoded; then everything is, so that a cut-off file
    is found here. Transparency is laid over white, as a page would show it: dropping the alpha channel would reveal the
    arbitrary colours that lie under it. 16-bit samples keep their high byte.

    Raises RowError (stage fetch): empty_file, not_an_image, image_too_large or truncated_image.
    """
    if not data:
        raise _bad(ErrorKind.EMPTY_FILE, "the file is empty (0 bytes)")
    with _quiet():
        with _open(data) as image:
            _check_pixels(image.size, max_pixels)
            upright = _turn(_load(image))
        return _to_rgb(upright)


def fit(image: Image.Image, max_side: int) -> Image.Image:
    """An RGB image at a size that the model takes: both sides multiples of 16, between 16 and 3072 pixels.

    The steps are those of OmniGen's own processor: halve with BOX while both sides are at least twice ``max_side``, go
    down to ``max_side`` with BICUBIC, up to 16 pixels where the short side is below, crop around the centre to
    multiples of 16. Two additions for extreme shapes, which that processor crashes on or makes too long: no side
    becomes 0, and the long side is cropped to 3072. Fitting a fitted image changes nothing.

    Raises ValueError unless 16 ≤ ``max_side`` ≤ 3072.
    """
    if not PIXELS_PER_TOKEN <= max_side <= MAX_SIDE:
        raise ValueError(f"max_side={max_side}: must be between {PIXELS_PER_TOKEN} and {MAX_SIDE} pixels")
    return image if _is_thin_and_fitted(image.size) else _crop(_grow(_shrink(image, max_side)))


def from_pixels(pixels: Sequence[bytes], sizes: Sequence[int]) -> tuple[Image.Image, ...]:
    """RGB images from raw bytes, row-major, three bytes per pixel; ``sizes`` is width, height of each, flattened.

    Raises ValueError when the lengths do not belong together.
    """
    if len(sizes) != 2 * len(pixels):
        raise ValueError(f"{len(pixels)} images with {len(sizes)} numbers of size; each has width and height")
    shapes = zip(sizes[::2], sizes[1::2], strict=True)
    return tuple(Image.frombytes("RGB", shape, data) for data, shape in zip(pixels, shapes, strict=True))


def encode(image: Image.Image, image_format: str, metadata: provenance.Facts | None = None) -> bytes:
    """The file of an RGB image: ``png`` and ``webp`` are lossless, ``jpeg`` is quality 95 with full colour resolution.

    The same pixels, ``metadata`` and library versions give the same bytes. ``metadata`` is what the file says of itself
    (``provenance.facts``), and changes no pixel; metadata of ``image`` is left out.

    PNG is the default as the one that every reader of data sets opens, at zlib level 1: Pillow's own default, level 6,
    takes three times as long for 4 % fewer bytes, on a core that may have to keep up with a GPU. Measured on one core,
    1024 × 1024: 14.5 images/s and 1.61 MB instead of 4.8 and 1.55 MB; lossless WebP 20.7 and 1.13 MB, JPEG 199 and
    0.44 MB (benchmarks/results/codecs-cpu.json).

    Raises ValueError for a format that is not known.
    """
    if image_format not in _ENCODERS:
        raise ValueError(f"image format {image_format!r} is not known; known: {', '.join(_ENCODERS)}")
    plain = image.convert("RGB")
    plain.info = {}  # Pillow would write an ICC profile or a comment that it finds here
    file = io.BytesIO()
    embedded = {} if metadata is None else provenance.save_options(metadata, image_format)
    plain.save(file, **_ENCODERS[image_format], **embedded)
    return file.getvalue()


def _bad(kind: ErrorKind, message: str) -> RowError:
    return RowError(kind, Stage.FETCH, message)


@contextmanager
def _quiet() -> Iterator[None]:
    # Pillow warns of odd metadata and of sizes that are checked here: neither may reach users, or fail under -W error.
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # AVIF is missing from some builds


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except (Image.DecompressionBombError, MemoryError) as error:
        raise _bad(ErrorKind.IMAGE_TOO_LARGE, f"the image is too large to open: {error}") from None
    except Exception:  # damaged headers raise nearly anything
        raise _unreadable(data) from None


def _unreadable(data: bytes) -> RowError:
    if data.startswith(_SIGNATURES) or data[8:12] == b"WEBP" or data[4:12] == b"ftypavif":
        return _bad(ErrorKind.TRUNCATED_IMAGE, f"the image is cut off or damaged within its header ({len(data)} bytes)")
    return _bad(ErrorKind.NOT_AN_IMAGE, f"not an image that can be read; it begins with {data[:16]!r}")


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        message = f"{width}x{height} is {width * height} pixels, and the limit is {max_pixels}"
        raise _bad(ErrorKind.IMAGE_TOO_LARGE, f"{message}; shrink the image or raise max_image_pixels")


def _load(image: Image.Image) -> Image.Image:
    try:
        _check_cover(image)
        image.load()
    except MemoryError:
        raise _bad(ErrorKind.IMAGE_TOO_LARGE, f"no memory to decode {image.width}x{image.height}") from None
    except Exception as error:  # a damaged body raises nearly anything
        raise _bad(ErrorKind.TRUNCATED_IMAGE, f"the image is cut off or damaged: {error}") from None
    return image


def _check_cover(image: Image.Image) -> None:
    """Pillow leaves the rows black that no strip of a TIFF holds."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tile:
        num_rows = image.tag_v2[TiffImagePlugin.IMAGELENGTH]  # as stored: its orientation may turn what `size` says
        if max(tile[1][3] for tile in image.tile if tile[1]) < num_rows:
            raise ValueError("its strips do not cover it")


def _turn(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # an EXIF block that can't be read says nothing of the orientation; the pixels are sound
        return image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    try:
        rgb = _over_white(_to_8_bit(image))
    except Exception as error:  # the formats hold modes that some builds of Pillow can't convert
        message = f"colour mode {image.mode!r} can't be converted to RGB: {error}"
        raise _bad(ErrorKind.NOT_AN_IMAGE, message) from None
    rgb.info = {}
    return rgb


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode in _WIDE_INTEGERS:
        return Image.fromarray(_in_bands(np.asarray(image), lambda band: (band.astype(np.int64) >> 8).clip(0, 255)))
    if image.mode == "F":
        return Image.fromarray(_float_to_8_bit(np.asarray(image)))
    return image


def _float_to_8_bit(values_HW: _Array) -> _Array:
    # Floating-point files count to 1 or to 255, and do not say which.
    highest = values_HW.max(where=np.isfinite(values_HW), initial=0.0)
    scale = 255.0 if highest <= 1.0 else 1.0

    def convert(band: _Array) -> _Array:
        return np.nan_to_num(band.astype(np.float64) * scale, posinf=255.0, neginf=0.0).round().clip(0, 255)

    return _in_bands(values_HW, convert)


def _in_bands(values_HW: _Array, convert: Callable[[_Array], _Array]) -> _Array:
    """Values to bytes, some rows at a time: a value takes eight bytes in between, much for a picture at the limit."""
    bytes_HW = np.empty(values_HW.shape, np.uint8)
    num_rows = max(1, _BAND_PIXELS // max(1, values_HW.shape[1]))
    for top in range(0, len(values_HW), num_rows):
        bytes_HW[top : top + num_rows] = convert(values_HW[top : top + num_rows])
    return bytes_HW


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(page, layer).convert("RGB")


def _is_thin_and_fitted(size: tuple[int, int]) -> bool:
    # Growing the short side to 16 may leave the long one above max_side. Such an image must not go through it again.
    return min(size) == PIXELS_PER_TOKEN and max(size) % PIXELS_PER_TOKEN == 0 and max(size) <= MAX_SIDE


def _shrink(image: Image.Image, max_side: int) -> Image.Image:
    while min(image.size) >= 2 * max_side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return _scale(image, max_side / max(image.size)) if max(image.size) > max_side else image


def _grow(image: Image.Image) -> Image.Image:
    shortest = min(image.size)
    return _scale(image, PIXELS_PER_TOKEN / shortest) if shortest < PIXELS_PER_TOKEN else image


def _scale(image: Image.Image, factor: float) -> Image.Image:
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _crop(image: Image.Image) -> Image.Image:
    left, width = _centre(image.width)
    top, height = _centre(image.height)
    return image.crop((left, top, left + width, top + height))


def _centre(side: int) -> tuple[int, int]:
    kept = min(side // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN, MAX_SIDE)
    return (side - kept) // 2, kept
