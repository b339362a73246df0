"""Sets of others: what is read, what is found in sets as broken as published ones are, and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from omnigen_actor import images
from omnigen_actor.errors import OutputError
from omnigen_actor.placeholders import placeholder
from omnigen_actor.provenance import facts
from pipelines.verify.report import Report
from pipelines.verify.sets.check import verify_set
from pipelines.verify.sets.config import SetConfig
from tests.export_store import picture
from tests.verify_sets import write_lines


def check(root: Path, **settings: Any) -> Report:
    return verify_set(str(root), SetConfig(**settings))


def kinds(report: Report) -> dict[str, int]:
    return {kind.value: number for kind, number in report.counts.items()}


def png(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def edit(source: str, target: str, text: str = f"{placeholder(1)} make it red") -> dict[str, Any]:
    return {"task_type": "edit", "instruction": text, "input_images": [source], "output_image": target}


def photos(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))


def test_a_sound_training_file_passes_with_its_images_elsewhere(tmp_path: Path) -> None:
    photos(tmp_path / "pictures", "in/a.png", "out/a.png", "out/b.png")
    rows = [edit("in/a.png", "out/a.png"), {**edit("", "out/b.png", "a boat"), "input_images": []}]
    write_lines(tmp_path / "rows.jsonl", rows)
    report = check(tmp_path / "rows.jsonl", image_root=str(tmp_path / "pictures"))
    assert kinds(report) == {}
    assert (report.kind, report.num_records, report.num_images) == ("JSON lines", 2, 3)
    assert kinds(check(tmp_path / "rows.jsonl")) == {"image_missing": 3}


def test_a_set_as_broken_as_published_ones_gets_a_report_that_says_what_is_wrong(tmp_path: Path) -> None:
    photos(tmp_path, "images/in/a.png", "images/out/a.png", "images/out/b.png", "images/out/cut.png")
    cut = tmp_path / "images" / "out" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:-50])
    copy = tmp_path / "images" / "out" / "copy.png"
    copy.write_bytes((tmp_path / "images" / "in" / "a.png").read_bytes())
    home = "/share/project/someone/X2I"
    write_lines(
        tmp_path / "edit.jsonl",
        [
            {**edit("", f"{home}/images/out/b.png", "a boat"), "input_images": []},
            edit(f"{home}/images/in/a.png", f"{home}/images/out/a.png"),
            edit("images/in/a.png", "images/out/cut.png"),
            edit("images/in/a.png", "images/out/gone.png"),
            edit("images/in/a.png", "images/out/copy.png"),
            edit("images/in/a.png", "C:\\data\\a.png", ""),
            edit("images/in/a.png", "../../etc/passwd", f"{placeholder(2)} and"),
            {"instruction": "nothing else"},
        ],
    )
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(cut, "cut.png")
    (tmp_path / "images.tar").write_bytes((tmp_path / "images.tar").read_bytes()[:700])
    report = check(tmp_path)
    assert kinds(report) == {
        "absolute_path": 4,
        "first_row_empty": 1,
        "image_undecodable": 1,
        "image_missing": 1,
        "copy_through": 1,
        "no_instruction": 1,
        "path_outside": 1,
        "bad_placeholders": 1,
        "keys_differ": 1,
        "no_output": 1,
        "file_unreadable": 2,
    }, report.to_json()
    assert report.num_left == report.counts.total() - 1
    absolute = report.examples[next(kind for kind in report.counts if kind == "absolute_path")]
    assert absolute.key == "edit.jsonl:1"
    assert home in absolute.message


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    photos(tmp_path, "secret.png", "set/a.png")
    (tmp_path / "set" / "b.png").symlink_to(tmp_path / "secret.png")
    write_lines(tmp_path / "set" / "rows.jsonl", [edit("a.png", "b.png")])
    assert kinds(check(tmp_path / "set")) == {"path_outside": 1}


def test_images_that_say_what_they_were_made_from_tell_of_swapped_instructions(tmp_path: Path) -> None:
    for name in ("boat", "house"):
        told = {
            "id": name,
            "sample": 0,
            "row_hash": "",
            "task": "text_to_image",
            "instruction": f"a {name}",
            "prompt": f"a {name}",
            "negative_prompt": None,
            "images": [],
            "image_sha256": [],
            "parents": [],
            "seed": 1,
            "steps": 1,
            "guidance_scale": 1.0,
            "img_guidance_scale": 1.0,
            "width": 48,
            "height": 32,
            "model": "m",
            "model_sha256": "",
            "approximations": [],
            "adapters": [],
        }
        (tmp_path / f"{name}.png").write_bytes(images.encode(picture(len(name)), "png", facts(told)))
    rows = [{"instruction": f"a {name}", "output_image": f"{name}.png"} for name in ("boat", "house")]
    write_lines(tmp_path / "rows.jsonl", rows)
    assert kinds(check(tmp_path)) == {}
    rows[0]["instruction"], rows[1]["instruction"] = rows[1]["instruction"], rows[0]["instruction"]
    write_lines(tmp_path / "rows.jsonl", rows)
    assert kinds(check(tmp_path)) == {"mismatch": 2}


def test_files_that_a_yaml_lists_are_read_without_placeholders(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "b.png")
    (tmp_path / "jsons").mkdir()
    write_lines(tmp_path / "jsons" / "edit.jsonl", [edit("a.png", "b.png", "red")])
    listed = [{"path": "jsons/edit.jsonl", "type": "edit"}, {"path": "/home/me/gone.jsonl", "type": "t2i"}]
    (tmp_path / "mix.yml").write_text(yaml.safe_dump({"data": listed[:1]}))
    report = check(tmp_path / "mix.yml")
    assert (kinds(report), report.kind) == ({}, "OmniGen2 training files")
    (tmp_path / "mix.yml").write_text(yaml.safe_dump({"data": listed}))
    assert kinds(check(tmp_path)) == {"file_missing": 1}


def test_foreign_parquet_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [
        {"source_img": {"bytes": png(1)}, "target_img": {"bytes": png(2)}, "instruction": "make it red"},
        {"source_img": {"bytes": png(3)}, "target_img": {"bytes": png(3)}, "instruction": ""},
    ]
    schema = pa.schema([("source_img", image), ("target_img", image), ("instruction", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "train.parquet")
    report = check(tmp_path / "train.parquet")
    assert kinds(report) == {"no_features": 1, "no_instruction": 1, "copy_through": 1}
    assert report.num_to_do == report.num_records == 2


def test_parquet_that_names_images_that_were_never_published_is_found(tmp_path: Path) -> None:
    photos(tmp_path, "a.png")
    rows = [{"input_images": ["a.png"], "output_image": name, "instruction": "x"} for name in ("a.png", "b.png")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert kinds(check(tmp_path)) == {"copy_through": 1, "image_missing": 1}


def test_foreign_tars_are_read_by_the_names_of_their_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(3):
            for name, data in (("input.png", png(number)), ("output.png", png(number + 9)), ("txt", b"make it red")):
                header = tarfile.TarInfo(f"{number}.{name}")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
    report = check(tmp_path)
    assert (kinds(report), report.kind, report.num_records, report.num_images) == ({}, "WebDataset", 3, 6)


def test_an_image_over_the_limits_is_not_decoded(tmp_path: Path) -> None:
    Image.new("RGB", (400, 400)).save(tmp_path / "a.png")
    write_lines(tmp_path / "rows.jsonl", [{"instruction": "x", "output_image": "a.png"}])
    assert kinds(check(tmp_path, max_image_pixels=100 * 100)) == {"image_undecodable": 1}
    assert kinds(check(tmp_path, max_image_bytes=100)) == {"image_unreadable": 1}


@pytest.mark.parametrize("name", ["", "none", "none.jsonl"])
def test_what_is_no_set_is_refused_with_what_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="no run store and no data set: looked for run"):
        check(tmp_path / name)
