"""Whether an image file holds a picture and nothing else: no EXIF, no comment, no thumbnail, nothing behind its end.

Read from the file's own structure, by lists of what is allowed: a kind of metadata that nobody here has heard of does
not pass either. Knows nothing of pixels.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS = frozenset({b"IHDR", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"sBIT", b"bKGD"})
_WEBP_CHUNKS = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ICCP"})
_SOI, _EOI, _SOS, _APP0, _APP2, _APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE2, 0xEE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TABLES = frozenset({0xC4, 0xDB, 0xDD})  # Huffman, quantisation, restart interval
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JFIF_BYTES = 14
"""Of an APP0 segment without a thumbnail."""
_HAS_ALPHA = 0x10
"""In the fifth byte of lossless WebP."""


def plain_extension(data: bytes) -> str | None:
    """The extension of a PNG, JPEG or WebP file of 8-bit RGB or grey that is nothing but its picture, else None."""
    try:
        if data.startswith(_PNG):
            return ".png" if _is_plain_png(data) else None
        if data.startswith(b"\xff\xd8"):
            return ".jpg" if _is_plain_jpeg(data) else None
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return ".webp" if _is_plain_webp(data) else None
    except (IndexError, struct.error):  # cut off
        return None
    return None


def _is_plain_png(data: bytes) -> bool:
    chunks = list(_png_chunks(data))
    depth, colour = data[24], data[25]
    is_known = all(kind in _PNG_CHUNKS for kind, _ in chunks)
    return is_known and depth == 8 and colour in (0, 2) and chunks[-1] == (b"IEND", len(data))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The kind of each chunk, and where it ends."""
    place = len(_PNG)
    while place < len(data):
        (num_bytes,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        place += 12 + num_bytes
        yield kind, place
        if kind == b"IEND":
            return


def _is_plain_jpeg(data: bytes) -> bool:
    place = 2
    while True:
        marker = _NEXT_MARKER.match(data, place)
        if marker is None:
            return False
        kind = data[place + 1]
        if kind == _EOI:
            return place + 2 == len(data)
        (num_bytes,) = struct.unpack_from(">H", data, place + 2)
        if not _is_plain_segment(kind, data[place + 4 : place + 2 + num_bytes]):
            return False
        place += 2 + num_bytes
        if kind == _SOS:
            following = _NEXT_MARKER.search(data, place)
            if following is None:
                return False
            place = following.start()


def _is_plain_segment(kind: int, content: bytes) -> bool:
    if kind in _FRAMES:
        return content[0] == 8 and content[5] in (1, 3)
    if kind == _APP0:
        return content.startswith(b"JFIF\0") and len(content) == _JFIF_BYTES
    if kind == _APP2:
        return content.startswith(b"ICC_PROFILE\0")
    return kind in (_SOS, _APP14) or kind in _TABLES


def _is_plain_webp(data: bytes) -> bool:
    place, end = 12, 8 + _number(data, 4)
    while place < end:
        kind, num_bytes = data[place : place + 4], _number(data, place + 4)
        if kind not in _WEBP_CHUNKS or (kind == b"VP8L" and data[place + 12] & _HAS_ALPHA):
            return False
        place += 8 + num_bytes + num_bytes % 2
    return place == end == len(data)


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "little")
