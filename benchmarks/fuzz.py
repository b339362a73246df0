"""Hostile rows through the check and damaged files through the decoder: each must end in a value or a typed error.

Rows are made of cells that nobody would write, files of small images of every format with bytes changed, cut, doubled
and moved; of damaged PNGs half have their checksums mended, so that what is damaged is also looked at. All of it hangs
on the seed. The work is done in a process of its own with a cap on its memory. tests/test_fuzz.py runs a few of each.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
from PIL import Image, features

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import report
from omnigen_actor import images, schema, uri
from omnigen_actor.allowed import Allowed
from omnigen_actor.errors import ErrorKind, RowError
from pipelines.check import check_table, refuse_places
from pipelines.config import GenerationConfig, InputConfig
from pipelines.values import AS_JSON

BASE = "/base"
MAX_PIXELS = InputConfig().max_image_pixels
MEMORY_CAP_BYTES = 4 << 30

_TEXTS = (
    "", " ", "a.png", "nan", "-0", "0x10", "1e400", "[", "[1]", '["a.png", "b.png"]', "edit", "custom", "text_to_image",
    "in_context", "<|image_1|>", "<img><|image_2|></img>", "<|image_99999999999999999999|>", "\0", "\ud800", "ä" * 300,
    "{i}", "{img1}", "%s%n", "../../etc/passwd", "/etc/passwd", "//host/share", "~", "C:\\a", "file:///etc/passwd",
    "file:a", "s3://", "s3://b/../c", "http://", "http://[", "http://127.0.0.1/", "http://[::1]/a", "http://2130706433/",
    "http://a@b@c/", "https://example.com/a.png", "data:,", "data:image/png;base64,AAAA", "zip://a::/etc/x.zip", "a::b",
    "row:", "row:a", "row:a#1", "row:#", "memory://x", "A" * 5000, "=cmd()", "\u202e", "1" * 400,
)  # fmt: skip
_NUMBERS = (0, -1, 1, 2, 15, 16, 3072, 3073, 2**31, 2**63 - 1, 2**63, 10**400, 0.0, -0.0, 1e-320, 1e308, 2.5)

Outcomes = Counter[str]


def main() -> None:
    """Print one JSON object, and save it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--in-child", choices=("rows", "images"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_child:
        print(json.dumps(measure(options.in_child, getattr(options, options.in_child), options.seed)))
        return
    found = {what: run_child(what, getattr(options, what), options.seed) for what in ("rows", "images")}
    formats = {name: features.version(name) for name in ("zlib", "webp", "libjpeg_turbo", "avif", "libtiff")}
    result = {"seed": options.seed, "memory_cap_bytes": MEMORY_CAP_BYTES, "max_pixels": MAX_PIXELS, **found}
    print(json.dumps(result, indent=2))
    report.save(options.output, {"libraries": formats} | result)


def run_child(what: str, number: int, seed: int) -> dict[str, Any]:
    """What a process of its own measures. Raises CalledProcessError when it dies."""
    command = [sys.executable, __file__, "--in-child", what, f"--{what}", str(number), "--seed", str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # libtiff tells of each fault
    return dict(json.loads(done.stdout))


def measure(what: str, number: int, seed: int) -> dict[str, Any]:
    """Outcomes by kind, the longest one, and the memory that was taken beyond what there was before the first."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_CAP_BYTES, MEMORY_CAP_BYTES))
    judge: Callable[[Random], str] = check_one if what == "rows" else decode_one
    judge(Random(seed))  # what is imported and built once
    before_bytes, outcomes, longest = peak_bytes(), Outcomes(), (0.0, -1)
    started = time.perf_counter()
    for index in range(number):
        begun = time.perf_counter()
        outcomes[judge(Random(f"{what} {seed} {index}"))] += 1
        longest = max(longest, (time.perf_counter() - begun, index))
    return {
        "number": number,
        "outcomes": dict(outcomes.most_common()),
        "seconds": time.perf_counter() - started,
        "longest_s": longest[0],
        "longest_index": longest[1],
        "peak_bytes": peak_bytes(),
        "grown_bytes": peak_bytes() - before_bytes,
    }


def peak_bytes() -> int:
    """The largest memory of this process so far; that of getrusage would begin with its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


# --- rows ---


def cell(rng: Random, depth: int = 0) -> Any:
    """A value of any type that JSON has, NaN and halves of surrogate pairs among them."""
    kind = rng.randrange(9 if depth < 2 else 6)
    if kind < 3:
        return rng.choice(_TEXTS)
    if kind == 3:
        return rng.choice(_NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False, float("nan"), float("inf"), -float("inf")))
    if kind == 5:
        return "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x11000)))) for _ in range(rng.randrange(12)))
    if kind == 6:
        return {rng.choice(_TEXTS): cell(rng, depth + 1) for _ in range(rng.randrange(3))}
    return [cell(rng, depth + 1) for _ in range(rng.randrange(4))]


def row(rng: Random) -> dict[str, Any]:
    """A manifest row: a good one in which some cells are none, so that the rules behind the first are met too."""
    good: dict[str, Any] = {
        "id": "a",
        "task": "edit",
        "instruction": "x",
        "images": ["a.png"],
        "width": 64,
        "height": 64,
    }
    if rng.random() < 0.3:
        good = {}
    names = rng.choices([*schema.MANIFEST.names, *["images"] * 12], k=rng.randrange(1, 3))
    return good | {name: cell(rng) for name in names} | ({"note": cell(rng)} if rng.random() < 0.3 else {})


def check_one(rng: Random) -> str:
    """The outcome of one row: ok, or its error's kind. AssertionError where it is neither one nor the other."""
    given = row(rng)
    names = sorted(given)
    fields = [pa.field(name, pa.string(), metadata=AS_JSON) for name in names]
    columns = [pa.array([json.dumps(given[name])], pa.string()) for name in names]
    allowed = Allowed((BASE,))
    checked = check_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), GenerationConfig(), BASE)
    planned = refuse_places(checked, allowed)
    planned.validate(full=True)
    kinds = {_judged(found) for found in planned.slice(0, 20).to_pylist()}
    return min(kinds - {"ok"}, default="ok")  # of a sweep some combinations may be good


def _judged(found: dict[str, Any]) -> str:
    told = [found["error_kind"], found["error_stage"], found["error"]]
    assert found["id"], found
    assert len(found["row_hash"]) == 64, found
    if told == [None] * 3:
        assert found["prompt"] is not None, found
        assert found["seed"] is not None, found
        assert all(map(_is_harmless, found["image_uris"])), found["image_uris"]
        return "ok"
    assert found["error_stage"] == "check", found
    assert found["error"], found
    assert not found["image_uris"], found
    return ErrorKind(found["error_kind"]).value


def _is_harmless(image_uri: str) -> bool:
    """Said again in another way than by `Allowed`: below BASE, public by its looks, or no place at all."""
    if uri.is_local(image_uri):
        return image_uri.startswith(BASE + "/") or image_uri == BASE
    return image_uri.startswith(("https://example.com/", "data:", "row:", "http://a@b@c", "http://["))


# --- images ---


def originals() -> list[bytes]:
    """A small image in every format and many of their kinds."""
    picture = Image.linear_gradient("L").resize((24, 20)).convert("RGB")
    turned = picture.transpose(Image.Transpose.ROTATE_180)
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = picture.convert("RGBA")
    alpha.putalpha(128)
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((picture.convert(mode), "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        (picture, "PNG", {"exif": exif}),
        (picture, "PNG", {"save_all": True, "append_images": [turned]}),
        *((picture.convert(mode), "JPEG", {}) for mode in ("L", "RGB", "CMYK")),
        (picture, "JPEG", {"exif": exif, "progressive": True}),
        (picture, "WEBP", {"lossless": True}),
        (alpha, "WEBP", {"quality": 50}),
        (picture, "WEBP", {"save_all": True, "append_images": [turned]}),
        (picture, "GIF", {"save_all": True, "append_images": [turned]}),
        (picture.convert("P"), "GIF", {"transparency": 3}),
        *((picture.convert(mode), "BMP", {}) for mode in ("1", "P", "RGB", "RGBA")),
        *((picture, "TIFF", {"compression": name}) for name in (None, "tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        (picture.convert("F"), "TIFF", {}),
        *((picture.convert(mode), "PPM", {}) for mode in ("1", "L", "RGB")),
    ]
    if features.check("avif"):
        kinds.append((picture, "AVIF", {}))
    return [_saved(*kind) for kind in kinds]


def _saved(image: Image.Image, image_format: str, options: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def damaged(rng: Random) -> bytes:
    """One of the originals after one to eight changes, most of them near the start, where headers are."""
    data = bytearray(rng.choice(_ORIGINALS))
    for _ in range(rng.randrange(1, 9)):
        limit = len(data) if rng.random() < 0.5 else min(len(data), 64)
        start = rng.randrange(limit) if limit else 0
        end = min(len(data), start + rng.choice((1, 2, 4, 16, 200)))
        match rng.randrange(7):
            case 0:
                data[start:end] = rng.randbytes(end - start)
            case 1:
                data[start:end] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * (end - start)
            case 2 if start < len(data):
                data[start] ^= 1 << rng.randrange(8)
            case 3 if rng.random() < 0.3:
                del data[start:]
            case 4:
                del data[start:end]
            case 5:
                data[start:start] = data[start:end] * rng.choice((1, 2, 300))
            case _:
                number = rng.choice((0, 1, 255, 16_383, 65_535, 2**24 - 1, 2**31 - 1, 2**32 - 1))
                data[start : start + 4] = struct.pack(rng.choice("<>") + "I", number)
    is_png = data.startswith(b"\x89PNG\r\n\x1a\n")
    return b"".join(_mended(bytes(data))) if is_png and rng.random() < 0.5 else bytes(data)


def _mended(data: bytes) -> Iterator[bytes]:
    """A PNG whose chunks have the checksums of what they hold now."""
    yield data[:8]
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        yield data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length


def decode_one(rng: Random) -> str:
    """The outcome of one file: ok, or its error's kind. What is not a RowError passes through."""
    try:
        image = images.fit(images.decode(damaged(rng), max_pixels=MAX_PIXELS), 1024)
    except RowError as error:
        return error.kind.value
    assert image.mode == "RGB", image.mode
    return "ok"


_ORIGINALS = originals()


if __name__ == "__main__":
    main()
