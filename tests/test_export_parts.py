"""The parts of an export, one by one: wording, plain files, staging, plan, settings."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, PngImagePlugin

from omnigen_actor import images
from omnigen_actor.errors import ConfigError
from omnigen_actor.placeholders import placeholder
from omnigen_actor.tasks import TASKS
from pipelines.config import InputConfig
from pipelines.export.config import ExportConfig
from pipelines.export.examples import PAIRED, STAGED, published
from pipelines.export.omnigen2 import OmniGen2
from pipelines.export.plain_files import plain_extension
from pipelines.export.plan import make_plan
from pipelines.export.read import publish
from pipelines.export.staging import Staging
from pipelines.export.webdataset import key_of
from pipelines.export.wording import without_placeholders
from tests.export_store import picture

ONE, TWO = placeholder(1), placeholder(2)


# --- wording ---


@pytest.mark.parametrize(
    ("prompt", "instruction", "words"),
    [
        (f"{ONE} make it red", "make it red", "make it red"),
        (f"{ONE} {TWO} swap the hats", "swap the hats", "swap the hats"),
        (f"{ONE}\n Remove the dog.", f"{ONE}\n Remove the dog.", "Remove the dog."),
        (f"{ONE} wears {TWO}.", "", "The first image wears the second image."),
        (f"Detect the edges in this image: {ONE}.", "", "Detect the edges in the first image."),
        (f"Find a cup in the picture {ONE} and color it.", "a cup", "Find a cup in the first image and color it."),
        (f"A man in {ONE} waves. {TWO} is there.", "", "A man in the first image waves. The second image is there."),
        (f"Input: {ONE}\nOutput: {TWO}\n\nInput: ", "", "Input: the first image\nOutput: the second image\n\nInput:"),
        ("a boat", "a boat", "a boat"),
    ],
)  # fmt: skip
def test_placeholders_become_words_where_the_sentence_needs_them(prompt: str, instruction: str, words: str) -> None:
    assert without_placeholders(prompt, instruction) == words


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_no_task_keeps_a_placeholder(task: Any) -> None:
    count = max(1, task.min_images) if task.max_images else 0
    own = " ".join(map(placeholder, range(1, count + 1)))
    instruction = "turn it" if task.places_images else f"turn {own}"
    text = without_placeholders(task.prompt(instruction, count), instruction)
    assert text
    assert "<" not in text


@pytest.mark.parametrize(
    ("task", "number", "kind"),
    [("text_to_image", 0, "t2i"), ("edit", 1, "edit"), ("canny", 1, "edit"), ("subject", 1, "ic"), ("compose", 2, "ic"),
     ("my_own", 1, "edit"), ("custom", 1, "edit"), ("custom", 3, "ic"), ("custom", 0, "t2i")],
)  # fmt: skip
def test_the_kinds_of_omnigen2(task: str, number: int, kind: str) -> None:
    assert OmniGen2().group(task, number) == kind


# --- plain files ---


def saved(image: Image.Image, image_format: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **more)
    return file.getvalue()


def exif() -> Image.Exif:
    found = Image.Exif()
    found[0x0110] = "a camera"
    return found


def with_text() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "my own")
    return info


RGB = picture(1)


@pytest.mark.parametrize(
    ("data", "extension"),
    [
        (saved(RGB, "PNG"), ".png"),
        (saved(RGB.convert("L"), "PNG"), ".png"),
        (saved(RGB, "JPEG"), ".jpg"),
        (saved(RGB, "JPEG", progressive=True), ".jpg"),
        (saved(RGB.convert("L"), "JPEG"), ".jpg"),
        (saved(RGB, "WEBP"), ".webp"),
        (saved(RGB, "WEBP", lossless=True), ".webp"),
    ],
)
def test_a_picture_and_nothing_else_stays_as_it_is(data: bytes, extension: str) -> None:
    assert plain_extension(data) == extension
    assert publish(data, 10**6).data == data


@pytest.mark.parametrize(
    "data",
    [
        saved(RGB, "PNG", exif=exif()),
        saved(RGB, "PNG", pnginfo=with_text()),
        saved(picture(2, "RGBA"), "PNG"),
        saved(RGB.convert("P"), "PNG"),
        saved(RGB, "PNG") + b"hidden",
        saved(RGB, "JPEG", exif=exif()),
        saved(RGB, "JPEG", comment=b"my own"),
        saved(RGB, "JPEG", xmp=b"<x/>"),
        saved(RGB.convert("CMYK"), "JPEG"),
        saved(RGB, "JPEG") + saved(RGB, "JPEG"),
        saved(RGB, "WEBP", exif=exif()),
        saved(RGB, "WEBP", xmp=b"<x/>"),
        saved(picture(2, "RGBA"), "WEBP", lossless=True, exact=True),
        saved(picture(2, "RGBA"), "WEBP"),
        saved(RGB, "WEBP", save_all=True, append_images=[picture(3)]),
        saved(RGB, "BMP"),
        saved(RGB, "TIFF"),
    ],
)
def test_anything_more_becomes_a_png_of_the_pixels(data: bytes) -> None:
    assert plain_extension(data) is None
    file = publish(data, 10**6)
    assert plain_extension(file.data) == file.extension == ".png"
    assert Image.open(io.BytesIO(file.data)).tobytes() == images.decode(data, max_pixels=10**6).tobytes()


@pytest.mark.parametrize("data", [saved(RGB, "PNG"), saved(RGB, "JPEG"), saved(RGB, "WEBP")])
def test_a_file_that_is_cut_off_is_never_plain(data: bytes) -> None:
    assert [plain_extension(data[:length]) for length in range(len(data))] == [None] * len(data)


# --- names ---


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("row:boat#1", "row:boat#1"),
        ("photos/cat.png", "photos/cat.png"),
        ("/home/ada/cat.png", "cat.png"),
        ("file:///home/ada/cat.png", "cat.png"),
        ("https://user:word@example.org/cat.png?key=1", "https://example.org/cat.png"),
        ("data:image/png;base64,AAAA", "data:"),
    ],
)
def test_a_reference_tells_nothing_of_one_machine(reference: str, shown: str) -> None:
    assert published(reference) == shown


def test_keys_are_distinct_and_have_no_dots() -> None:
    ids = ["a", "a-0", "A", "a.b", "a_b", "x" * 200, "~a", "__a", "ä"]
    keys = {key_of(row_id, sample) for row_id in ids for sample in (0, 1, 10)}
    assert len(keys) == 3 * len(ids)
    assert all("." not in key and len(key) < 70 and not key.startswith("_") for key in keys)


# --- staging and plan ---


def staged(*rows: dict[str, Any]) -> pa.Table:
    types = {field.name: [] if pa.types.is_list(field.type) else None for field in STAGED}
    own = {"sample": 0, "split": "train", "group": "", "task": "edit", "num_bytes": 10}
    return pa.Table.from_pylist([types | own | row for row in rows], schema=STAGED)


def test_staging_gives_rows_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.export.staging._BATCH_ROWS", 3)
    with Staging(STAGED) as staging:
        for start in range(0, 20, 2):
            staging.add(staged(*({"id": f"row {number}"} for number in (start, start + 1))))
        staging.end()
        wanted = np.array([19, 0, 7, 7, 3, 12])
        assert staging.take(wanted)["id"].to_pylist() == [f"row {number}" for number in wanted]
        assert staging.take(np.array([], np.int64)).num_rows == 0


def plan_of(
    rows: list[dict[str, Any]], shard_bytes: int = 25, columns: Sequence[str] = (), **told: Any
) -> tuple[str, list[Any]]:
    with Staging(STAGED) as staging:
        for row in rows:
            staging.add(staged(row))
        staging.end()
        plan = make_plan(staging, shard_bytes, told, columns)
        ids = [staging.take(numbers)["id"].to_pylist() for numbers in plan.rows]
    return plan.digest, [
        (one.split, one.group, one.index, one.count, held) for one, held in zip(plan.shards, ids, strict=True)
    ]


ROWS: list[dict[str, Any]] = [
    {"id": "c"}, {"id": "a", "sample": 1}, {"id": "a"}, {"id": "b", "group": "x"}, {"id": "z", "split": "test"},
    {"id": "d", "image_uris": ["1", "2", "3"]}, {"id": "e", "task": "canny"},
]  # fmt: skip


def test_shards_are_of_one_split_and_group_and_about_as_large_as_asked() -> None:
    assert plan_of(ROWS)[1] == [
        ("test", "", 0, 1, ["z"]),
        ("train", "", 0, 3, ["e", "a"]),
        ("train", "", 1, 3, ["a", "c"]),
        ("train", "", 2, 3, ["d"]),
        ("train", "x", 0, 1, ["b"]),
    ]


def test_the_plan_hangs_on_content_alone() -> None:
    assert plan_of(ROWS) == plan_of(ROWS[::-1])
    assert plan_of(ROWS)[0] != plan_of([*ROWS[:-1], ROWS[-1] | {"output_sha256": "other"}])[0]
    assert plan_of(ROWS)[0] != plan_of(ROWS, format="hf")[0]


def test_a_pair_is_as_large_as_two_images_and_another_one_is_another_plan() -> None:
    pair = {"chosen_sample": 1, "chosen_key": "k", "chosen_sha256": "s", "rejected_for": "blank", "pair_margin": None}
    rows = [{"id": "a"} | pair, {"id": "b"} | pair]
    assert [held for *_, held in plan_of(rows)[1]] == [["a"], ["b"]]
    assert [held for *_, held in plan_of([{"id": "a"}, {"id": "b"}])[1]] == [["a", "b"]]
    for name, value in (("chosen_sha256", "other"), ("rejected_for", "burnt"), ("pair_margin", 0.5)):
        other = [rows[0], rows[1] | {name: value}]
        assert plan_of(other, columns=PAIRED.names)[0] != plan_of(rows, columns=PAIRED.names)[0]


def test_a_large_plan_is_taken_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan_of(ROWS)
    monkeypatch.setattr("pipelines.export.plan._ROWS_AT_A_TIME", 2)
    assert plan_of(ROWS) == whole


# --- settings ---


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"format": "zip"}, "format='zip'"),
        ({"selection": "../x"}, "selection='../x'"),
        ({"scores": "clip,../x"}, "scores='../x'"),
        ({"scores": "clip,clip"}, "twice"),
        ({"shard_mib": 0}, "shard_mib=0"),
        ({"path_prefix": "/data"}, "omnigen2"),
        ({"format": "pairs"}, "name one that has them"),
        ({"format": "pairs", "selection": "good", "scores": "clip"}, "a pair has two images"),
    ],
)
def test_a_setting_out_of_its_limits_is_refused(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ExportConfig(**values)


def test_the_command_names_no_place_of_this_machine() -> None:
    config = ExportConfig(
        selection="good", scores="clip, phash", inputs=InputConfig(image_root="/home/ada", allow=("/x",))
    )
    assert config.score_names == ["clip", "phash"]
    assert "ada" not in config.command
    assert "--selection good" in config.command
    assert json.dumps(config.command)
