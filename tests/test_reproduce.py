from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnigen_actor import store
from omnigen_actor.actor import OmniGenActor
from omnigen_actor.engines import EngineSpec, verify_model
from omnigen_actor.errors import ConfigError, ModelError, OutputError
from omnigen_actor.fake import FakeEngine
from omnigen_actor.images import EXTENSIONS
from omnigen_actor.provenance import read_provenance
from omnigen_actor.schema import MANIFEST
from pipelines import check, references, run_info
from pipelines.config import EngineConfig, GenerationConfig, ImageConfig, RunConfig
from pipelines.fetch import FetchImages
from pipelines.records import WriteRecords
from pipelines.reproduce import ReproduceConfig, ReproduceReport, reproduce
from pipelines.reproduce_compare import Verdict

CONFIG = RunConfig(model="fake", generation=GenerationConfig(width=32, height=32, steps=2, max_input_image_size=64))
RUN = "20260101T120000Z-0a0b0c"
ROWS: list[dict[str, Any]] = [
    *({"id": f"text-{number}", "task": "text_to_image", "instruction": f"thing {number}"} for number in range(17)),
    {"id": "edit", "task": "edit", "instruction": "make it blue", "images": ["in.png"]},
    {"id": "chained", "task": "edit", "instruction": "make it red", "images": ["row:text-3"]},
    {"id": "a/b c", "task": "text_to_image", "instruction": "an odd name", "negative_prompt": "blur"},
]


def picture(path: Path, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def make(folder: Path, rows: list[dict[str, Any]], config: RunConfig = CONFIG, run_id: str = RUN, **info: Any) -> Path:
    """What a run does, in this process: ``folder/store``, with input images from ``folder``."""
    root = str(folder / "store")
    made_with = run_info.fingerprint(config, verify_model(config.model))
    history = run_info.read_history(root, made_with, allow_mixed=True)
    info = {"manifest": str(folder / "rows.jsonl"), "image_base": str(folder)} | info
    run_info.write(root, made_with, history, run_id, config, **info)
    planned = check.check_table(pa.Table.from_pylist(rows, schema=MANIFEST), config.generation, str(folder))
    actor = OmniGenActor(
        EngineSpec(model=config.model, settings=config.engine_settings("cpu")),
        store_root=root,
        run_id=run_id,
        image_format=config.images.image_format,
        embed_provenance=config.images.embed_provenance,
        max_input_image_size=config.generation.max_input_image_size,
    )
    fetch = FetchImages(config.inputs, config.generation.max_input_image_size)
    for depth in (0, 1):
        level = planned.filter(pa.array([one == depth for one in planned["depth"].to_pylist()]))
        level = references.to_store(level, root, EXTENSIONS[config.images.image_format])
        if level.num_rows:
            records = actor(fetch(level))
            assert set(records["status"].to_pylist()) == {"ok"}, records["error"].to_pylist()
            WriteRecords(root, run_id)(records)
    actor.close()
    return Path(root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of 20 rows. Tests only read it."""
    folder = tmp_path_factory.mktemp("made")
    picture(folder / "in.png")
    return make(folder, ROWS)


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of it, with its input image, at another place."""
    shutil.copytree(made.parent, tmp_path / "moved")
    move_base(tmp_path / "moved" / "store", str(tmp_path / "moved"))
    return tmp_path / "moved" / "store"


def move_base(root: Path, folder: str | None) -> None:
    """Let run.json say that references start there; None: say nothing, as an older version."""
    change_runs(root, lambda run: run | {"image_base": folder, "manifest": folder and f"{folder}/rows.jsonl"})


def change_runs(root: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    content = json.loads((root / "run.json").read_text())
    content["runs"] = [change(run) for run in content["runs"]]
    (root / "run.json").write_text(json.dumps(content))


def image(root: Path, row_id: str) -> Path:
    return root / store.image_key(row_id, 0, ".png")


def change_record(root: Path, row_id: str, **values: Any) -> None:
    for file in (root / "records").iterdir():
        table = pq.read_table(file)
        rows = [row | values if row["id"] == row_id else row for row in table.to_pylist()]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def again(root: Path, *ids: str, **config: Any) -> ReproduceReport:
    return reproduce(str(root), ReproduceConfig(ids=ids, **config))


def verdict(root: Path, row_id: str, **config: Any) -> tuple[Verdict, str]:
    (found,) = again(root, row_id, **config).findings
    return found.verdict, found.message


def test_every_row_of_a_finished_store_is_identical(made: Path) -> None:
    report = again(made)
    assert report.counts == {Verdict.IDENTICAL: 20}
    assert report.num_bad == 0
    assert {one.id for one in report.findings} == {row["id"] for row in ROWS}
    assert all(one.sha256 == one.made_sha256 and one.made_on == one.device == "cpu" for one in report.findings)


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_rows_of_every_format_are_identical(tmp_path: Path, image_format: str) -> None:
    root = make(tmp_path, ROWS[:3], replace(CONFIG, images=ImageConfig(image_format=image_format)))
    assert again(root).counts == {Verdict.IDENTICAL: 3}


def test_a_store_without_provenance_in_its_files_is_identical_too(tmp_path: Path) -> None:
    root = make(tmp_path, ROWS[:3], replace(CONFIG, images=ImageConfig(embed_provenance=False)))
    assert read_provenance(image(root, "text-0").read_bytes()) is None
    assert again(root).counts == {Verdict.IDENTICAL: 3}
    change_record(root, "text-1", seed=1)
    change_runs(root, older)
    assert again(root).counts == {Verdict.IDENTICAL: 2, Verdict.DIFFERS: 1}


def older(run: dict[str, Any]) -> dict[str, Any]:
    """A run as the version before wrote it."""
    images = {"image_format": run["config"]["images"]["image_format"]}
    kept = {name: run[name] for name in ("run_id", "started_at", "versions")}
    return kept | {"config": run["config"] | {"images": images}}


def test_a_seed_draws_the_same_rows_however_the_records_lie(made: Path, root: Path) -> None:
    drawn = [one.id for one in again(made, num_rows=5, seed=1).findings]
    assert len(set(drawn)) == 5
    merged = pa.concat_tables([pq.read_table(file) for file in (root / "records").iterdir()])
    for file in (root / "records").iterdir():
        file.unlink()
    order = list(reversed(range(merged.num_rows)))
    pq.write_table(merged.take(order), root / "records" / "all.parquet")
    assert [one.id for one in again(root, num_rows=5, seed=1).findings] == drawn
    assert [one.id for one in again(made, num_rows=5, seed=2).findings] != drawn


def test_ids_name_rows_with_their_samples_or_one_of_them(tmp_path: Path) -> None:
    root = make(tmp_path, [ROWS[0] | {"num_samples": 3}, ROWS[1] | {"id": "odd#1"}])
    assert [(one.id, one.sample) for one in again(root, "text-0").findings] == [("text-0", n) for n in range(3)]
    assert [(one.id, one.sample) for one in again(root, "text-0#2", "odd#1").findings] == [("odd#1", 0), ("text-0", 2)]


def test_an_unknown_id_is_refused_with_its_name(made: Path) -> None:
    with pytest.raises(ConfigError, match="no row 'nobody' with an image"):
        again(made, "text-0", "nobody")
    with pytest.raises(ConfigError, match="no row 'text-0#1'"):
        again(made, "text-0#1")


def test_one_pixel_that_was_changed_is_found_and_what_it_was_is_known(root: Path, tmp_path: Path) -> None:
    before = image(root, "text-4").read_bytes()
    with Image.open(image(root, "text-4")) as picture:
        picture.putpixel((3, 3), (1, 2, 3))
        picture.save(image(root, "text-4"))
    found, message = verdict(root, "text-4", output=str(tmp_path / "kept"))
    assert found is Verdict.IMAGE_TAMPERED
    assert "the file that the record speaks of" in message
    assert (tmp_path / "kept" / "text-4-0.png").read_bytes() == before
    assert again(root).num_bad == 1


def test_a_lost_image_is_told(root: Path) -> None:
    image(root, "text-4").unlink()
    assert verdict(root, "text-4")[0] is Verdict.IMAGE_MISSING


@pytest.mark.parametrize(
    ("change", "name"),
    [({"seed": 1}, "seed"), ({"prompt": "another"}, "prompt"), ({"guidance_scale": 9.0}, "guidance_scale")],
)
def test_a_record_that_was_edited_contradicts_its_image(root: Path, change: dict[str, Any], name: str) -> None:
    change_record(root, "text-4", **change)
    found, message = verdict(root, "text-4")
    assert (found, f"other values of {name} than" in message) == (Verdict.RECORD_TAMPERED, True)
    assert again(root).num_bad == 1


@pytest.mark.parametrize("key", ["../secret.png", "/etc/hostname", "images/00/text-5-0.png", None])
def test_a_record_does_not_lead_out_of_the_store(root: Path, key: str | None) -> None:
    change_record(root, "text-4", output_key=key)
    assert verdict(root, "text-4")[0] is Verdict.RECORD_TAMPERED


def test_an_image_of_other_pixels_whose_record_agrees_differs_by_so_many_decibels(root: Path) -> None:
    other = image(root, "text-5").read_bytes()
    image(root, "text-4").write_bytes(other)
    (found,) = again(root, "text-5").findings
    change_record(root, "text-4", sha256=found.sha256, num_bytes=len(other))
    assert verdict(root, "text-4")[0] is Verdict.RECORD_TAMPERED  # the file says whose it is
    with Image.open(image(root, "text-5")) as picture:
        picture.save(image(root, "text-4"))
    spoil_hash(root, "text-4")
    (found,) = again(root, "text-4").findings
    assert found.verdict is Verdict.DIFFERS
    assert found.psnr_db is not None
    assert 0 < found.psnr_db < 30


def spoil_hash(root: Path, row_id: str) -> None:
    """Let the record agree with the file as it is now."""
    data = image(root, row_id).read_bytes()
    change_record(root, row_id, sha256=hashlib.sha256(data).hexdigest(), num_bytes=len(data))


@pytest.mark.parametrize(("device", "num_bad"), [("cpu", 1), ("NVIDIA H100 80GB HBM3", 0), (None, 0)])
def test_the_same_pixels_in_another_file_are_good_where_another_kind_of_device_made_it(
    root: Path, device: str | None, num_bad: int
) -> None:
    with Image.open(image(root, "text-4")) as picture:
        picture.save(image(root, "text-4"), compress_level=9)
    spoil_hash(root, "text-4")
    change_record(root, "text-4", device=device)
    report = again(root, "text-4")
    assert report.counts == {Verdict.SAME_PIXELS: 1}
    assert report.num_bad == num_bad


def test_an_input_that_was_changed_or_lost_is_told_by_its_name(root: Path) -> None:
    picture(root.parent / "in.png", seed=1)
    found, message = verdict(root, "edit")
    assert (found, "in.png" in message) == (Verdict.INPUT_CHANGED, True)
    (root.parent / "in.png").unlink()
    found, message = verdict(root, "edit")
    assert (found, "in.png" in message) == (Verdict.INPUT_MISSING, True)
    assert again(root).num_bad == 1


def test_a_row_is_made_from_the_image_of_the_row_that_it_refers_to(root: Path) -> None:
    assert verdict(root, "chained")[0] is Verdict.IDENTICAL
    image(root, "text-3").write_bytes(image(root, "text-2").read_bytes())
    found, message = verdict(root, "chained")
    assert (found, "row:text-3" in message) == (Verdict.INPUT_CHANGED, True)


def test_where_run_json_knows_no_folder_of_inputs_it_is_asked_for(root: Path) -> None:
    move_base(root, None)
    found, message = verdict(root, "edit")
    assert (found, "--image-root" in message) == (Verdict.INPUT_MISSING, True)
    assert verdict(root, "edit", image_root=str(root.parent))[0] is Verdict.IDENTICAL


def test_a_record_reads_no_file_beyond_what_its_run_allowed(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "private.png")
    change_record(root, "edit", images=[str(tmp_path / "private.png")])
    strip_provenance(root, "edit")
    found, message = verdict(root, "edit")
    assert (found, "outside of the folders" in message) == (Verdict.INPUT_MISSING, True)
    assert verdict(root, "edit", allow=(str(tmp_path),))[0] is Verdict.DIFFERS


def strip_provenance(root: Path, row_id: str) -> None:
    with Image.open(image(root, row_id)) as picture:
        plain = picture.convert("RGB")
    plain.info = {}
    plain.putpixel((0, 0), (0, 0, 0))
    plain.save(image(root, row_id))
    spoil_hash(root, row_id)


def test_other_weights_are_refused_with_the_remedy(root: Path, tiny_model: Path) -> None:
    found, message = verdict(root, "text-4", model=str(tiny_model))
    assert (found, "name a model with those with --model" in message) == (Verdict.MODEL_CHANGED, True)


def test_a_model_whose_name_leads_nowhere_is_told_unless_the_user_named_it(root: Path) -> None:
    change_runs(root, lambda run: run | {"config": run["config"] | {"model": "/gone/model"}})
    found, message = verdict(root, "text-4")
    assert (found, "--model" in message) == (Verdict.MODEL_MISSING, True)
    assert verdict(root, "text-4", model="fake")[0] is Verdict.IDENTICAL
    with pytest.raises(ModelError, match="/gone/too"):
        again(root, model="/gone/too")


class Loud(FakeEngine):
    """Someone's own engine: that it was opened must not go unnoticed."""

    opened = 0

    def __init__(self, **_: Any) -> None:
        super().__init__()
        Loud.opened += 1


def test_a_store_does_not_decide_which_class_is_opened(root: Path) -> None:
    name = f"{__name__}:Loud"
    change_runs(root, lambda run: run | {"config": run["config"] | {"model": name}})
    assert verdict(root, "text-4")[0] is Verdict.MODEL_MISSING
    assert Loud.opened == 0
    assert verdict(root, "text-4", model=name)[0] is Verdict.IDENTICAL


def test_rows_whose_run_is_not_known_are_told(root: Path) -> None:
    change_record(root, "text-4", run_id="20250101T000000Z-000000")
    assert again(root).counts == {Verdict.IDENTICAL: 19, Verdict.RUN_UNKNOWN: 1}


def test_rows_of_a_mixed_store_are_made_with_the_settings_of_their_own_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "in.png")
    smaller = replace(CONFIG, generation=replace(CONFIG.generation, max_input_image_size=32))
    make(tmp_path, [ROWS[17]])
    make(tmp_path, [ROWS[17] | {"id": "small"}], smaller, run_id="20260101T120001Z-0a0b0c")
    cached = replace(CONFIG, engine=EngineConfig(step_cache=0.5))
    root = make(tmp_path, [ROWS[0]], cached, run_id="20260101T120002Z-0a0b0c")
    opened: list[float] = []

    def open_engine(_: str, settings: Any) -> FakeEngine:
        opened.append(settings.step_cache)
        return FakeEngine(settings=settings)

    monkeypatch.setattr("pipelines.reproduce.open_engine", open_engine)
    assert again(root).counts == {Verdict.IDENTICAL: 3}
    assert Counter(opened) == {0.0: 1, 0.5: 1}


def test_a_row_that_fails_now_says_why(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: Any) -> Any:
        raise RuntimeError("no luck\ntoday")

    monkeypatch.setattr(FakeEngine, "generate", break_down)
    assert verdict(root, "text-4") == (Verdict.FAILED, "RuntimeError: no luck")


@pytest.mark.parametrize(("value", "message"), [({"num_rows": 0}, "num=0"), ({"device": "tpu"}, "device='tpu'")])
def test_settings_beyond_their_limits_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReproduceConfig(**value)


def test_a_store_without_images_or_runs_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no run store"):
        again(tmp_path)
    shutil.rmtree(root / "records")
    with pytest.raises(OutputError, match="no images"):
        again(root)
    (root / "run.json").write_text("{")
    with pytest.raises(OutputError, match=r"run\.json"):
        again(root)


def test_rows_of_the_engine_are_identical_with_and_without_inputs(tmp_path: Path, tiny_model: Path) -> None:
    picture(tmp_path / "in.png")
    config = replace(CONFIG, model=str(tiny_model))
    root = make(tmp_path, [ROWS[0], ROWS[3], *ROWS[17:]], config)
    report = again(root)
    assert report.counts == {Verdict.IDENTICAL: 5}, [one.message for one in report.findings]
