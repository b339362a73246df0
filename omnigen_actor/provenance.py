"""What an image file says of itself: how it was made, and that a model made it. Knows no stores and no pixels.

Only what follows from the row and the weights: the same row gives the same bytes whatever the run, the worker or the
attempt. So there is no run id here, no time, no device and no folder of a machine.

    record ─► facts ─► save_options ─► the file ─► read_provenance ─► the same facts

The facts are one line of JSON in ASCII, in an iTXt chunk ``omnigen-batch`` (PNG) or the EXIF ``UserComment`` (JPEG,
WebP), and again in an XMP packet beside the IPTC digital source type, by which others tell generated images.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from PIL import ExifTags, Image, PngImagePlugin

from omnigen_actor.schema import PROVENANCE_COLUMNS
from omnigen_actor.uri_names import is_local, local_path, redact

NAME, VERSION = "omnigen-batch", "0.1.0"
SOFTWARE = f"{NAME} {VERSION}"
"""A constant, not what is installed: a checkout on one worker must not write other files than a package on another."""

GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""Digital source types of IPTC: from a prompt alone, and with input images."""

MAX_JSON_BYTES = 48_000
"""As escaped for XML. A JPEG holds a packet in one segment of 64 KiB, and so does its EXIF block."""
LONGEST_TEXT = 500
"""Characters of a text that are kept where all facts together are too long."""

Facts = dict[str, Any]

_LONGEST_DESCRIPTION = 200
_ASCII = b"ASCII\0\0\0"
"""EXIF's mark of the characters of a ``UserComment``."""
_FORMATS = ("PNG", "JPEG", "WEBP")
_NO_XML = re.compile("[^\\t\\n\\r\\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XMP = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:omnigen="urn:omnigen-batch:1:">
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
<xmp:CreatorTool>{software}</xmp:CreatorTool>
<Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
<omnigen:provenance>{facts}</omnigen:provenance>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


def facts(record: Mapping[str, Any], software: str = SOFTWARE) -> Facts:
    """What the file of a record's image says. ``record`` has PROVENANCE_COLUMNS, the size being that of the image.

    References are without secrets, an image within its reference is left out, and of a place on a machine the last
    name alone is kept. Where all this is longer than MAX_JSON_BYTES, texts are cut to LONGEST_TEXT characters, and if
    that is not enough, lists are emptied; ``shortened`` has the sha256 of each whole value by name.
    """
    found = {name: record[name] for name in PROVENANCE_COLUMNS} | {
        "images": [_shown(image) for image in record["images"]],
        "model": _shown(record["model"]),
        "adapters": [_shown(adapter) for adapter in record["adapters"]],
        "software": software,
    }
    for shorten in (_cut_texts, _empty_lists):
        if len(escape(to_json(found))) > MAX_JSON_BYTES:
            found = shorten(found)
    return found


def differences(embedded: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """The names of the facts in which an image file contradicts a record. Those that only one of them has don't count:
    another version may have written the file.
    """
    expected = facts(record, str(embedded.get("software")))
    return sorted(name for name in expected.keys() & embedded.keys() if expected[name] != embedded[name])


def to_json(found: Mapping[str, Any]) -> str:
    """One line of ASCII, the same for the same facts."""
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def save_options(found: Facts, image_format: str) -> dict[str, Any]:
    """Pillow's arguments that put the facts into a file of that format (png, webp or jpeg)."""
    text, packet = to_json(found), to_xmp(found)
    if image_format == "png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", packet)
        chunks.add_itxt(NAME, text)
        return {"pnginfo": chunks}
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = found["software"]
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _ASCII + text.encode()
    return {"exif": exif.tobytes(), "xmp": packet.encode()}


def to_xmp(found: Facts) -> str:
    """The XMP packet. Source: IPTC Photo Metadata Standard, property Digital Source Type."""
    described = " ".join(str(found["instruction"] or found["prompt"] or "").split())[:_LONGEST_DESCRIPTION]
    return _XMP.format(
        description=escape(_NO_XML.sub("\ufffd", described)),
        software=escape(found["software"]),
        source_type=COMPOSITE if found["images"] or "images" in found.get("shortened", ()) else GENERATED,
        facts=escape(to_json(found)),
    )


def read_provenance(data: bytes) -> Facts | None:
    """The facts in an image file; None where there are none, or where the file is damaged or of another format."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            found = json.loads(_embedded(image))
    except Exception:  # a file of anyone's, and its metadata
        return None
    return found if isinstance(found, dict) else None


def _embedded(image: Image.Image) -> str | bytes:
    if image.format == "PNG":
        return str(image.info[NAME])
    comment: bytes = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    return comment.removeprefix(_ASCII)


def _shown(name: str) -> str:
    """A reference or model without what concerns one machine or person alone."""
    if name.startswith("row:"):
        return name
    if not is_local(name):
        return redact(name)
    path = local_path(name)
    return path.name if path.is_absolute() else name


def _cut_texts(found: Facts) -> Facts:
    return _shorten(found, str, lambda text: len(text) > LONGEST_TEXT, lambda text: text[:LONGEST_TEXT])


def _empty_lists(found: Facts) -> Facts:
    return _shorten(found, list, bool, lambda _: [])


def _shorten(found: Facts, kind: type, is_long: Callable[[Any], bool], cut: Callable[[Any], Any]) -> Facts:
    long: Facts = {name: value for name, value in found.items() if isinstance(value, kind) and is_long(value)}
    shortened = found.get("shortened", {}) | {name: _sha256(value) for name, value in long.items()}
    return found | {name: cut(value) for name, value in long.items()} | {"shortened": shortened}


def _sha256(value: str | list[str]) -> str:
    """Of a text its UTF-8, of a list its JSON."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
