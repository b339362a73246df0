"""The whole flow on a real local Ray cluster, with the engine that needs no weights."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from omnigen_actor.errors import ConfigError, ManifestError, ModelError, OutputError, RunStopped, StartupError
from omnigen_actor.fake import FAKE_SHA256
from omnigen_actor.schema import RECORD, TIMING_COLUMNS
from pipelines import lease
from pipelines.config import EngineConfig, GenerationConfig, RunConfig, WorkerConfig
from pipelines.generate import build_processor, run
from pipelines.lease import hold
from pipelines.records import WriteRecords
from pipelines.summary import Summary, Tally

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

CONFIG = RunConfig(
    model="fake",
    generation=GenerationConfig(width=48, height=32, steps=2, max_input_image_size=64),
    workers=WorkerConfig(batch_size=4, num_actors=1),
)

BAD = {"missing": "not_found", "unknown": "unknown_task", "engine": "engine_failed", "cut": "truncated_image"}


@dataclass(frozen=True)
class Finished:
    manifest: Path
    store: Path
    summary: Summary
    heard: list[object]


def manifest_rows(folder: Path) -> list[dict[str, Any]]:
    """16 good images of 14 rows, and 4 bad rows, each with a column of the user's own."""
    Image.radial_gradient("L").convert("RGB").save(folder / "input.png")
    (folder / "cut.png").write_bytes((folder / "input.png").read_bytes()[:2000])
    rows: list[dict[str, Any]] = [
        {"id": f"text-{i}", "task": "text_to_image", "instruction": f"picture number {i}"} for i in range(10)
    ]
    rows += [
        {"id": "a/b ü", "task": "text_to_image", "instruction": "an id that is no file name"},
        {"id": "edit", "task": "edit", "instruction": "make it blue", "images": ["input.png"]},
        {"id": "three", "task": "text_to_image", "instruction": "several", "num_samples": 3},
        {"id": "seeded", "task": "text_to_image", "instruction": "seeded", "seed": 7, "width": 70, "height": 32},
        {"id": "missing", "task": "edit", "instruction": "what", "images": ["no-such.png"]},
        {"id": "unknown", "task": "text_to_imagine", "instruction": "what"},
        {"id": "engine", "task": "text_to_image", "instruction": "please [fail]"},
        {"id": "cut", "task": "depth", "images": ["cut.png"]},
    ]
    return [row | {"mine": f"note {n}", "score": n / 4} for n, row in enumerate(rows)]


def write_manifest(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@pytest.fixture(scope="module")
def first(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One actor, batches of 4. Tests only read it."""
    folder = tmp_path_factory.mktemp("first")
    manifest = write_manifest(folder, "rows.jsonl", manifest_rows(folder))
    heard: list[object] = []
    summary = run(str(manifest), str(folder / "out"), CONFIG, on_start=heard.append, on_progress=heard.append)
    return Finished(manifest, folder / "out", summary, heard)


def records_of(store: Path) -> list[dict[str, Any]]:
    tables = [pq.read_table(file) for file in sorted((store / "records").iterdir())]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda r: (r["id"], r["sample"], r["attempt"]))


def lasting(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in r.items() if name not in TIMING_COLUMNS} for r in records]


def images_of(store: Path) -> dict[str, str]:
    files = [file for file in (store / "images").rglob("*") if file.is_file()]
    return {file.relative_to(store).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_every_row_ends_as_one_record_and_the_summary_adds_up(first: Finished) -> None:
    summary = first.summary
    assert summary.adds_up
    assert (summary.num_in, summary.num_ok, summary.num_failed, summary.num_skipped) == (20, 16, 4, 0)
    assert (summary.num_already_done, summary.num_generated) == (0, 20)
    assert {kind for kind, _, _ in summary.errors} == set(BAD.values())
    records = records_of(first.store)
    assert len(records) == len({(r["id"], r["sample"]) for r in records}) == 20
    assert json.loads((first.store / "summary.json").read_text())["adds_up"] is True


def test_a_bad_row_is_a_failed_record_with_its_kind_and_the_good_ones_are_complete(first: Finished) -> None:
    failed = {r["id"]: r for r in records_of(first.store) if r["status"] == "failed"}
    assert {row_id: r["error_kind"] for row_id, r in failed.items()} == BAD
    assert all(r["error"] and r["error_stage"] and r["output_key"] is None for r in failed.values())
    assert "no-such.png" in failed["missing"]["error"]


def test_every_image_is_where_its_record_says_and_there_is_no_other(first: Finished) -> None:
    good = [r for r in records_of(first.store) if r["status"] == "ok"]
    assert {r["output_key"]: r["sha256"] for r in good} == images_of(first.store)
    sizes = {r["id"]: (r["width"], r["height"]) for r in good}
    assert (sizes["text-0"], sizes["seeded"], sizes["edit"]) == ((48, 32), (64, 32), (64, 64))


def test_a_record_file_holds_the_declared_columns_and_the_users_and_no_python_objects(first: Finished) -> None:
    for file in (first.store / "records").iterdir():
        schema = pq.read_schema(file)
        assert schema.remove_metadata() == pa.schema([*RECORD, ("mine", pa.string()), ("score", pa.float64())])
        assert not any(isinstance(field.type, pa.BaseExtensionType) for field in schema)
    notes = {r["id"]: r["mine"] for r in records_of(first.store)}
    assert (notes["text-0"], notes["cut"]) == ("note 0", "note 17")


def test_progress_says_how_many_there_are_and_grows_to_the_summary(first: Finished) -> None:
    num_to_do, *tallies = first.heard
    assert num_to_do == 20
    assert len(tallies) >= 5
    done = [tally.num_done for tally in tallies if isinstance(tally, Tally)]
    assert done == sorted(done)
    assert tallies[-1] == Tally(num_done=20, num_ok=16, num_failed=4, errors=dict.fromkeys(BAD.values(), 1))


def test_run_json_tells_of_the_model_and_the_run(first: Finished) -> None:
    content = json.loads((first.store / "run.json").read_text())
    records = records_of(first.store)
    assert {r["model_sha256"] for r in records} == {content["fingerprint"]["model_sha256"]}
    assert {r["run_id"] for r in records} == {content["runs"][0]["run_id"]}


def test_by_default_every_image_is_exact_and_its_record_says_so(first: Finished) -> None:
    assert {(*r["approximations"], *r["adapters"]) for r in records_of(first.store)} == {()}
    fingerprint = json.loads((first.store / "run.json").read_text())["fingerprint"]
    assert (fingerprint["approximations"], fingerprint["adapters"]) == ([], [])


def test_an_approximation_is_named_in_every_record_and_no_exact_store_goes_on_with_it(
    first: Finished, tmp_path: Path
) -> None:
    approximate = replace(CONFIG, engine=EngineConfig(fp8=True, step_cache=0.1, adapters=("style@0.5",)))
    with pytest.raises(OutputError, match=r"approximations=\[\] \(now \['fp8', 'step_cache=0.1'\]\)"):
        run(str(first.manifest), str(first.store), approximate)
    rows = [row for row in manifest_rows(tmp_path) if row["id"] in {"text-0", *BAD}]
    run(str(write_manifest(tmp_path, "rows.jsonl", rows)), str(tmp_path / "out"), approximate)
    named = [(r["approximations"], r["adapters"]) for r in records_of(tmp_path / "out")]
    assert named == [(["fp8", "step_cache=0.1"], ["style@0.5"])] * 5


def test_the_summary_tells_what_the_engines_took(first: Finished) -> None:
    use = first.summary.engine
    assert use is not None
    assert use.num_waves == 16
    assert use.occupancy == pytest.approx(1.0)
    assert use.step_seconds + use.decode_seconds > 0
    assert json.loads((first.store / "summary.json").read_text())["engine"]["num_waves"] == 16
    run_id = json.loads((first.store / "run.json").read_text())["runs"][0]["run_id"]
    assert len(list((first.store / "metrics" / run_id).iterdir())) >= 4


def test_a_second_run_makes_nothing_and_does_not_start_ray(first: Finished) -> None:
    before = images_of(first.store), records_of(first.store)
    code = (
        "import sys; from tests.test_pipeline import CONFIG, run;"
        "summary = run(sys.argv[1], sys.argv[2], CONFIG);"
        "print(summary.num_generated, summary.num_already_done, summary.adds_up, 'ray' in sys.modules, summary.engine)"
    )
    argv = [sys.executable, "-c", code, str(first.manifest), str(first.store)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.split() == ["0", "20", "True", "False", "None"]
    assert (images_of(first.store), records_of(first.store)) == before


def test_two_actors_another_batch_size_shuffled_rows_and_two_runs_give_the_same_images_and_records(
    first: Finished, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in first.manifest.read_text().splitlines()]
    random.Random(1).shuffle(rows)
    workers = WorkerConfig(batch_size=3, num_actors=2)
    for name, part in (("half.jsonl", rows[:9]), ("all.jsonl", rows)):
        manifest = write_manifest(first.manifest.parent, name, part)
        summary = run(str(manifest), str(tmp_path / "out"), replace(CONFIG, workers=workers))
    assert summary.adds_up
    assert 0 < summary.num_already_done < summary.num_generated + summary.num_already_done == 20
    assert images_of(tmp_path / "out") == images_of(first.store)
    assert lasting(records_of(tmp_path / "out")) == lasting(records_of(first.store))


def test_rows_whose_records_are_lost_are_made_again_and_failed_ones_when_asked(first: Finished, tmp_path: Path) -> None:
    store = tmp_path / "out"
    run_id = json.loads((first.store / "run.json").read_text())["runs"][0]["run_id"]
    kept = [r for r in records_of(first.store) if not r["id"].startswith("text-")]
    table = pq.read_table(next((first.store / "records").iterdir()))
    WriteRecords(str(store), run_id)(pa.Table.from_pylist(kept, schema=table.schema))
    summary = run(str(first.manifest), str(store), replace(CONFIG, retry_failed=("all",)))
    assert (summary.num_generated, summary.num_already_done, summary.adds_up) == (14, 6, True)
    attempts = {(r["id"], r["attempt"]) for r in records_of(store)}
    assert {("missing", 1), ("missing", 2), ("text-0", 1), ("edit", 1)} <= attempts
    assert ("edit", 2) not in attempts


def test_a_part_of_the_rows_can_be_done_first_and_the_rest_later(first: Finished, tmp_path: Path) -> None:
    store = tmp_path / "out"
    some = run(str(first.manifest), str(store), replace(CONFIG, only=("id=text-*,edit",), limit=3))
    assert (some.num_in, some.num_ok, some.num_left_out, some.num_generated) == (20, 3, 17, 3)
    assert some.adds_up
    assert some.percent_without_image == 0.0
    assert json.loads((store / "summary.json").read_text())["num_left_out"] == 17
    rest = run(str(first.manifest), str(store), CONFIG)
    assert (rest.num_generated, rest.num_already_done, rest.num_left_out) == (17, 3, 0)
    assert lasting(records_of(store)) == lasting(records_of(first.store))
    last_run = json.loads((store / "run.json").read_text())["runs"][1]["run_id"]
    assert [path.name for path in (store / "plan").iterdir()] == [last_run]
    assert not (store / "lease.json").exists()


def test_a_store_that_another_run_writes_to_is_left_alone(first: Finished, tmp_path: Path) -> None:
    with hold(str(tmp_path / "out"), "other"), pytest.raises(OutputError, match="is being written by run other on"):
        run(str(first.manifest), str(tmp_path / "out"), CONFIG)
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_run_whose_store_was_taken_over_stops_and_writes_no_summary(
    first: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.05)

    def take(_: Tally) -> None:
        found = json.loads((tmp_path / "lease.json").read_text())
        (tmp_path / "lease.json").write_text(json.dumps(found | {"run_id": "other"}))

    with pytest.raises(RunStopped, match="lost its output to run other"):
        run(str(first.manifest), str(tmp_path), replace(CONFIG, workers=WorkerConfig(batch_size=1)), on_progress=take)
    assert not (tmp_path / "summary.json").exists()
    assert len(records_of(tmp_path)) < 20


def test_a_mixed_store_keeps_what_is_done_and_names_both_settings(first: Finished, tmp_path: Path) -> None:
    manifest, store = str(first.manifest), str(tmp_path / "out")
    run(manifest, store, replace(CONFIG, only=("id=three,seeded",)))
    before = images_of(tmp_path / "out")
    other = replace(CONFIG, generation=replace(CONFIG.generation, steps=3), allow_mixed=True)
    summary = run(manifest, store, replace(other, only=("id=three,edit",)))
    assert (summary.num_ok, summary.num_generated, summary.adds_up) == (5, 1, True)
    steps = {r["id"]: r["steps"] for r in records_of(tmp_path / "out")}
    assert steps == {"three": 2, "seeded": 2, "edit": 3}
    assert before.items() <= images_of(tmp_path / "out").items()
    content = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (content["fingerprint"]["steps"], [one["fingerprint"]["steps"] for one in content["earlier"]]) == (3, [2])


def test_the_processor_is_a_function_from_dataset_to_dataset(tmp_path: Path) -> None:
    import ray

    processor = build_processor(
        CONFIG,
        output=str(tmp_path),
        preprocess=lambda row: {
            "id": f"row{row['n']}", "task": "text_to_image", "instruction": row["text"], "n": row["n"]
        },
        postprocess=lambda row: {"id": row["id"], "n": row["n"], "key": row["output_key"], "kind": row["error_kind"]},
    )  # fmt: skip
    rows = [{"n": n, "text": "[fail]" if n == 3 else f"picture {n}"} for n in range(6)]
    done = sorted(processor(ray.data.from_items(rows)).take_all(), key=lambda row: int(row["n"]))
    assert [row["n"] for row in done] == list(range(6))
    assert [row["kind"] for row in done] == [None, None, None, "engine_failed", None, None]
    assert {row["key"] for row in done if row["key"]} == set(images_of(tmp_path))
    assert len(images_of(tmp_path)) == 5


def test_an_engine_that_cannot_be_opened_ends_the_job_with_one_line(first: Finished, tmp_path: Path) -> None:
    # Fraction takes none of an engine's arguments, on every worker.
    with pytest.raises(StartupError, match=r"no actor could open its engine: TypeError: .*'device'") as caught:
        run(str(first.manifest), str(tmp_path), replace(CONFIG, model="fractions:Fraction"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "summary.json").exists()


def test_nodes_with_other_weights_than_the_driver_are_refused(
    first: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnigen_actor.fake.FAKE_SHA256", "another version")  # here, and not in the workers
    with pytest.raises(StartupError, match=f"sha256 {FAKE_SHA256} on .*another version on the driver"):
        run(str(first.manifest), str(tmp_path), CONFIG)
    assert not (tmp_path / "images").exists()


def test_what_cannot_start_says_so_before_anything_is_made(first: Finished, tmp_path: Path) -> None:
    manifest, output = str(first.manifest), str(tmp_path / "out")
    (tmp_path / "file").touch()
    other_steps = replace(CONFIG, generation=replace(CONFIG.generation, steps=3))
    with pytest.raises(ManifestError, match=r"no-such\.jsonl"):
        run(str(tmp_path / "no-such.jsonl"), output, CONFIG)
    with pytest.raises(ModelError, match="no-such-model"):
        run(manifest, output, replace(CONFIG, model=str(tmp_path / "no-such-model")))
    with pytest.raises(OutputError, match="can't be written"):
        run(manifest, str(tmp_path / "file" / "out"), CONFIG)
    with pytest.raises(OutputError, match=r"steps=2 \(now 3\)"):
        run(manifest, str(first.store), other_steps)
    with pytest.raises(ConfigError, match="num_actors=4 on CPUs needs 5 CPUs"):
        run(manifest, output, replace(CONFIG, workers=WorkerConfig(num_actors=4)))
    assert not (tmp_path / "out" / "images").exists()
