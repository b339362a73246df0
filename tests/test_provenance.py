from __future__ import annotations

import hashlib
import io
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from omnigen_actor import images, provenance
from omnigen_actor.images import EXTENSIONS
from omnigen_actor.provenance import Facts, facts, read_provenance, to_json, to_xmp
from omnigen_actor.schema import PROVENANCE_COLUMNS, RECORD, TIMING_COLUMNS

ROOT = Path(__file__).parent.parent
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
DESCRIPTION = "{http://purl.org/dc/elements/1.1/}description"
OWN = "{urn:omnigen-batch:1:}provenance"
FORMATS = sorted(EXTENSIONS)

HOSTILE = [
    "a cat",
    "ends ]]> a CDATA section & an &entity; <tag attribute='\"'/>",
    "nul \0, bell \7, escape \x1b, delete \x7f, next line \x85",
    "a lone surrogate \ud83d and its other half \ude00",
    "emoji \U0001f600, Han 猫, right to left \u202e, not a character \uffff",
    "<?xpacket end='w'?> <!-- -- --> {facts} %s {0}",
    "two\nlines\r\nand\ttabs",
    "",
]


def record(**changes: Any) -> dict[str, Any]:
    return {
        "id": "boat",
        "sample": 0,
        "row_hash": "0" * 64,
        "task": "text_to_image",
        "instruction": "a boat",
        "prompt": "a boat",
        "negative_prompt": None,
        "images": [],
        "image_sha256": [],
        "parents": [],
        "seed": 2**63 - 1,
        "steps": 4,
        "guidance_scale": 2.5,
        "img_guidance_scale": 1.6,
        "width": 32,
        "height": 48,
        "model": "fake",
        "model_sha256": "1" * 64,
        "approximations": ["step_cache=0.1"],
        "adapters": ["style@0.8#0123"],
    } | changes


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8))


def file_with(found: Facts, image_format: str) -> bytes:
    return images.encode(photo(), image_format, found)


def packet_of(data: bytes) -> ElementTree.Element:
    with Image.open(io.BytesIO(data)) as image:
        return ElementTree.fromstring(image.info["xmp"])


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_comes_back_from_every_format(text: str, image_format: str) -> None:
    found = facts(record(id=text, instruction=text, prompt=text, negative_prompt=text))
    data = file_with(found, image_format)
    assert read_provenance(data) == found
    assert found["prompt"] == text


@pytest.mark.parametrize("text", HOSTILE)
def test_the_xmp_packet_is_sound_xml_whatever_the_text_and_has_the_same_facts(text: str) -> None:
    found = facts(record(instruction=text, prompt=text))
    packet = packet_of(file_with(found, "png"))
    assert json.loads(packet.findtext(f".//{OWN}", "")) == found
    (described,) = packet.iter(f"{RDF}li")
    assert (described.text or "").split() == re.sub("[\0\x07\x1b\ud83d\ude00\uffff]", "\ufffd", text).split()


@pytest.mark.parametrize("image_format", FORMATS)
def test_no_pixel_changes(image_format: str) -> None:
    plain = images.encode(photo(), image_format)
    marked = file_with(facts(record()), image_format)
    assert plain != marked
    assert read_provenance(plain) is None
    decoded = [images.decode(data, max_pixels=10**6).tobytes() for data in (plain, marked)]
    assert decoded[0] == decoded[1]


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_same_facts_give_the_same_bytes(image_format: str) -> None:
    one, other = facts(record()), facts(dict(reversed(record().items())))
    assert file_with(one, image_format) == file_with(other, image_format)


@pytest.mark.parametrize(
    ("names", "kind"),
    [([], "trainedAlgorithmicMedia"), (["in.png"], "compositeWithTrainedAlgorithmicMedia")],
)
@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_has_the_digital_source_type_of_iptc(names: list[str], kind: str, image_format: str) -> None:
    packet = packet_of(file_with(facts(record(images=names, image_sha256=["2" * 64] * len(names))), image_format))
    assert packet.findtext(f".//{SOURCE_TYPE}") == f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}"


def test_nothing_of_a_run_or_a_machine_is_in_the_facts() -> None:
    own = record(
        images=["in.png", "/home/jo/private/a.png", "file:///home/jo/b%20c.png", "row:cat#1", "../d.png"],
        model="/home/jo/models/tiny/",
        adapters=["/home/jo/style@0.8#0123"],
    )
    found = facts(own | {"run_id": "r1", "attempt": 3, "finished_at": "now", "device": "cpu"})
    assert found["images"] == ["in.png", "a.png", "b c.png", "row:cat#1", "../d.png"]
    assert (found["model"], found["adapters"]) == ("tiny", ["style@0.8#0123"])
    assert set(found) == {*PROVENANCE_COLUMNS, "software"}
    assert not set(PROVENANCE_COLUMNS) & {*TIMING_COLUMNS, "attempt", "device"}
    assert set(PROVENANCE_COLUMNS) < set(RECORD.names)


def test_neither_a_secret_nor_an_image_within_its_reference_is_embedded() -> None:
    inline = "data:image/png;base64," + "QUJD" * 5000
    found = facts(record(images=["https://jo:hunter2@example.com/a.png?token=hunter2", inline]))
    assert found["images"] == ["https://example.com/a.png", "data:image/png;base64,…"]
    assert "shortened" not in found


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("character", ["&", "\0", "\U0001f600", "x"])
def test_a_huge_prompt_is_cut_with_its_sha256(character: str, image_format: str) -> None:
    text = character * 100_000
    found = facts(record(instruction=text, prompt=text, negative_prompt=text, task=text, model=text))
    assert found["prompt"] == character * provenance.LONGEST_TEXT
    assert found["shortened"]["prompt"] == hashlib.sha256(text.encode()).hexdigest()
    assert read_provenance(file_with(found, image_format)) == found


@pytest.mark.parametrize("image_format", FORMATS)
def test_lists_that_do_not_fit_are_emptied_with_their_sha256(image_format: str) -> None:
    names = [f"{number}-{'<' * 300}.png" for number in range(500)]
    found = facts(record(images=names, image_sha256=["3" * 64] * 500))
    assert (found["images"], found["prompt"]) == ([], "a boat")
    assert set(found["shortened"]) == {"images", "image_sha256", "approximations", "adapters"}
    data = file_with(found, image_format)
    assert read_provenance(data) == found
    assert packet_of(data).findtext(f".//{SOURCE_TYPE}") == provenance.COMPOSITE


def test_a_long_text_that_fits_is_kept_whole() -> None:
    text = "x" * 20_000
    assert facts(record(prompt=text))["prompt"] == text


def test_a_file_agrees_with_its_record_and_with_no_other() -> None:
    own = record(prompt="x" * 50_000)
    embedded = json.loads(to_json(facts(own)))
    assert provenance.differences(embedded, own) == []
    assert provenance.differences(embedded, own | {"seed": 1, "steps": 5}) == ["seed", "steps"]
    assert provenance.differences(embedded, own | {"prompt": "x" * 49_999 + "y"}) == ["shortened"]


def test_another_version_of_the_software_contradicts_nothing() -> None:
    other = facts(record(), software="omnigen-batch 9.9") | {"new_fact": 1}
    del other["parents"]
    assert provenance.differences(other, record()) == []


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\0\x08Exif\0\0"])
def test_what_is_no_image_has_no_provenance(data: bytes) -> None:
    assert read_provenance(data) is None


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_that_is_cut_off_or_damaged_anywhere_in_its_metadata_raises_nothing(image_format: str) -> None:
    found = facts(record())
    data = file_with(found, image_format)
    for place in range(0, len(data), 97):
        assert read_provenance(data[:place]) in (None, found)
        spoiled = bytearray(data)
        spoiled[place] ^= 0xFF
        read_provenance(bytes(spoiled))


@pytest.mark.parametrize("text", ["[]", "1", "null", "{", "NaN"])
def test_json_that_is_no_object_is_no_provenance(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "to_json", lambda _: text)
    assert read_provenance(file_with(facts(record()), "jpeg")) is None


def test_the_packet_has_no_padding_and_names_the_software() -> None:
    packet = to_xmp(facts(record()))
    assert 'xpacket end="r"' in packet
    assert provenance.SOFTWARE in packet
    assert "  " not in packet


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["name"], project["version"]) == (provenance.NAME, provenance.VERSION)
