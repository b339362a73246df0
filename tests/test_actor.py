from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pytest
from PIL import Image

from omnigen_actor import images, provenance, uri
from omnigen_actor.actor import OmniGenActor
from omnigen_actor.engine_settings import EngineSettings
from omnigen_actor.engines import EngineSpec
from omnigen_actor.errors import EngineLost, ErrorKind, ModelError, RowError, Stage
from omnigen_actor.fake import FAKE_SHA256, FakeEngine
from omnigen_actor.schema import FETCHED, RECORD, TIMING_COLUMNS, user_fields
from omnigen_actor.types import Engine, Failure, ModelInfo, Outcome, Request, Result, Wave


def fetched(*rows: dict[str, Any], **user_columns: pa.Array) -> pa.Table:
    defaults = {
        "sample": 0,
        "attempt": 1,
        "row_hash": "0" * 64,
        "task": "text_to_image",
        "instruction": "a cat",
        "prompt": "a cat",
        "images": [],
        "image_uris": [],
        "width": 32,
        "height": 48,
        "seed": 5,
        "steps": 4,
        "guidance_scale": 2.5,
        "img_guidance_scale": 1.6,
        "max_input_image_size": 1024,
        "image_sha256": [],
        "pixels": [],
        "pixel_sizes": [],
        "fetch_seconds": 0.25,
    }
    table = pa.Table.from_pylist([{"id": f"row{i}"} | defaults | row for i, row in enumerate(rows)], schema=FETCHED)
    for name, values in user_columns.items():
        table = table.append_column(name, values)
    return table


def run(
    tmp_path: Path, table: pa.Table, engine: Callable[[], Engine] = FakeEngine, **more: Any
) -> list[dict[str, Any]]:
    actor = OmniGenActor(engine, store_root=str(tmp_path), run_id="r1", **more)
    out = actor(table)
    actor.close()
    assert out.schema.names == [*RECORD.names, *(f.name for f in user_fields(table.schema))]
    assert out.select(RECORD.names).schema == RECORD
    return out.to_pylist()  # type: ignore[no-any-return]


def errors(records: list[dict[str, Any]]) -> list[tuple[str | None, str | None]]:
    return [(r["error_kind"], r["error_stage"]) for r in records]


class Scripted(FakeEngine):
    """An engine that misbehaves; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        self.calls.append([r.id for r in requests])
        yield from self.misbehave(requests)

    def misbehave(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        yield from super().generate(requests)


def test_a_record_describes_the_file_that_is_in_the_store(tmp_path: Path) -> None:
    (record,) = run(tmp_path, fetched({"width": 40, "height": 50}))
    data = (tmp_path / record["output_key"]).read_bytes()
    image = Image.open(io.BytesIO(data))
    assert record["status"] == "ok"
    assert (record["width"], record["height"]) == image.size == (32, 48)
    assert (record["format"], image.format) == ("png", "PNG")
    assert record["num_bytes"] == len(data)
    assert record["sha256"] == hashlib.sha256(data).hexdigest()
    assert (record["model"], record["model_sha256"]) == ("fake", FAKE_SHA256)
    assert (record["num_tokens"], record["run_id"], record["fetch_seconds"]) == (6, "r1", 0.25)
    assert record["error_kind"] is record["error_stage"] is record["error"] is None
    assert record["generate_seconds"] > 0
    assert record["write_seconds"] > 0


@pytest.mark.parametrize("image_format", ["png", "webp", "jpeg"])
def test_a_file_says_what_its_record_does_in_the_same_bytes_whatever_the_run_and_attempt(
    tmp_path: Path, image_format: str
) -> None:
    row = {"width": 40, "height": 50, "parents": [], "prompt": "a <cat> \0"}
    (record,) = run(tmp_path, fetched(row), image_format=image_format)
    data = (tmp_path / record["output_key"]).read_bytes()
    embedded = provenance.read_provenance(data)
    assert embedded == provenance.facts(record)
    assert embedded["width"] == 32
    actor = OmniGenActor(FakeEngine, store_root=str(tmp_path / "other"), run_id="r2", image_format=image_format)
    (again,) = actor(fetched(row | {"attempt": 3}, mine=pa.array(["x"]))).to_pylist()
    actor.close()
    assert again["sha256"] == record["sha256"]


def test_without_provenance_a_file_has_the_same_pixels_alone(tmp_path: Path) -> None:
    (record,) = run(tmp_path / "plain", fetched({}), embed_provenance=False)
    (marked,) = run(tmp_path / "marked", fetched({}))
    plain = (tmp_path / "plain" / record["output_key"]).read_bytes()
    assert provenance.read_provenance(plain) is None
    pictures = [Image.open(tmp_path / name / record["output_key"]).tobytes() for name in ("plain", "marked")]
    assert pictures[0] == pictures[1]
    assert (record["sha256"] != marked["sha256"], record["device"]) == (True, "cpu")


@pytest.mark.parametrize(("image_format", "extension"), [("png", ".png"), ("webp", ".webp"), ("jpeg", ".jpg")])
def test_every_format_decodes_under_its_extension(tmp_path: Path, image_format: str, extension: str) -> None:
    (record,) = run(tmp_path, fetched({}), image_format=image_format)
    assert record["output_key"].endswith(extension)
    with Image.open(tmp_path / record["output_key"]) as image:
        assert image.format == image_format.upper()


def test_rows_keep_their_order_and_user_columns_and_pixels_are_dropped(tmp_path: Path) -> None:
    table = fetched(
        {}, {"error_kind": "not_found", "error_stage": "fetch", "error": "gone"}, {"prompt": "[fail]"}, {},
        label=pa.array([3, None, 1, 2], pa.int16()),
        tags=pa.array([["x"], [], None, ["y", "z"]], pa.list_(pa.string())),
    )  # fmt: skip
    records = run(tmp_path, table)
    assert [r["id"] for r in records] == ["row0", "row1", "row2", "row3"]
    assert [r["label"] for r in records] == [3, None, 1, 2]
    assert [r["tags"] for r in records] == [["x"], [], None, ["y", "z"]]
    assert [r["status"] for r in records] == ["ok", "failed", "failed", "ok"]
    assert "pixels" not in records[0]


def test_an_earlier_error_passes_through_and_the_engine_never_sees_the_row(tmp_path: Path) -> None:
    engine = Scripted()
    broken = {
        "error_kind": "truncated_image",
        "error_stage": "fetch",
        "error": "cut short",
        "width": None,
        "seed": None,
    }
    bad, good = run(tmp_path, fetched(broken, {}), lambda: engine)
    assert (bad["status"], bad["error_kind"], bad["error_stage"], bad["error"]) == (
        "failed", "truncated_image", "fetch", "cut short",
    )  # fmt: skip
    assert (bad["output_key"], bad["sha256"], bad["num_bytes"]) == (None, None, None)
    assert (bad["model"], bad["run_id"]) == ("fake", "r1")
    assert good["status"] == "ok"
    assert engine.calls == [["row1"]]


def test_a_request_that_cannot_be_is_a_failed_record(tmp_path: Path) -> None:
    one_pixel = {"pixels": [b"\0\0"], "pixel_sizes": [1, 1]}
    records = run(tmp_path, fetched({"steps": 0}, {"width": 4000}, {"steps": None}, one_pixel, {}))
    assert errors(records) == [
        ("bad_parameter", "check"),
        ("bad_size", "check"),
        ("engine_failed", "generate"),
        ("engine_failed", "generate"),
        (None, None),
    ]
    assert "steps=0" in records[0]["error"]


def test_pixels_reach_the_engine_as_images_with_the_limit_they_were_fitted_to(tmp_path: Path) -> None:
    seen: list[Request] = []

    class Watching(FakeEngine):
        def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
            seen.extend(requests)
            yield from super().generate(requests)

    red, blue = Image.new("RGB", (32, 16), "red"), Image.new("RGB", (48, 64), "blue")
    pixels = {"pixels": [red.tobytes(), blue.tobytes()], "pixel_sizes": [32, 16, 48, 64]}
    (record,) = run(tmp_path, fetched(pixels | {"width": None, "height": None}), Watching, max_input_image_size=2048)
    assert [image.tobytes() for image in seen[0].images] == [red.tobytes(), blue.tobytes()]
    assert [image.size for image in seen[0].images] == [(32, 16), (48, 64)]
    assert seen[0].max_input_image_size == 2048
    assert (record["width"], record["height"]) == (32, 16)


def test_outcomes_may_come_in_any_order(tmp_path: Path) -> None:
    class Backwards(FakeEngine):
        def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
            yield from super().generate(requests[::-1])

    table = fetched({"prompt": "one"}, {"prompt": "[fail]"}, {"prompt": "three"}, {"id": "row0", "sample": 1})
    forwards, backwards = (
        [{k: v for k, v in r.items() if k not in TIMING_COLUMNS} for r in run(tmp_path / e.__name__, table, e)]
        for e in (FakeEngine, Backwards)
    )
    assert forwards == backwards


def test_an_engine_that_breaks_off_keeps_what_it_finished_and_each_other_row_is_tried_once_alone(
    tmp_path: Path,
) -> None:
    class Breaking(Scripted):
        def misbehave(self, requests: Sequence[Request]) -> Iterator[Outcome]:
            for request in requests:
                if request.prompt == "poison":
                    raise ZeroDivisionError("one\ntwo")
                yield from super().misbehave([request])

    engine = Breaking()
    records = run(tmp_path, fetched({}, {"prompt": "poison"}, {}, {"prompt": "poison"}), lambda: engine)
    assert [r["status"] for r in records] == ["ok", "failed", "ok", "failed"]
    assert errors(records)[1] == ("engine_failed", "generate")
    assert records[1]["error"] == "ZeroDivisionError: one two"
    assert engine.calls == [["row0", "row1", "row2", "row3"], ["row1"], ["row2"], ["row3"]]


def test_a_row_without_an_outcome_fails_and_a_second_or_foreign_outcome_is_ignored(tmp_path: Path) -> None:
    class Careless(Scripted):
        def misbehave(self, requests: Sequence[Request]) -> Iterator[Outcome]:
            (result,) = super().misbehave(requests[:1])
            assert isinstance(result, Result)
            yield result
            error = RowError(ErrorKind.NON_FINITE, Stage.GENERATE, "changed its mind")
            yield Failure(request=result.request, error=error)
            yield replace(result, request=replace(result.request, id="?"))

    records = run(tmp_path, fetched({}, {}), Careless)
    assert [r["status"] for r in records] == ["ok", "failed"]
    assert errors(records)[1] == ("engine_failed", "generate")
    assert "no outcome" in records[1]["error"]


def test_an_image_that_cannot_be_written_fails_its_row_alone(tmp_path: Path) -> None:
    (first,) = run(tmp_path, fetched({"id": "blocked"}))
    key = tmp_path / first["output_key"]
    key.unlink()
    key.mkdir()
    (key / "in the way").touch()
    bad, good = run(tmp_path, fetched({"id": "blocked"}, {}))
    assert errors([bad, good]) == [("write_failed", "write"), (None, None)]
    assert str(key) in bad["error"]
    assert bad["output_key"] is None


def test_a_store_that_takes_no_image_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(uri.UriFailed, match="cannot write"):
        run(tmp_path / "file" / "store", fetched({}))


def test_an_empty_table_gives_an_empty_table_and_writes_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, fetched()) == []
    assert list(tmp_path.iterdir()) == []


def test_what_the_engine_raises_when_opened_is_raised(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no\.such:Thing"):
        OmniGenActor(EngineSpec(model="no.such:Thing"), store_root=str(tmp_path), run_id="r1")


def metrics_of(tmp_path: Path) -> list[dict[str, Any]]:
    files = sorted((tmp_path / "metrics" / "r1").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_by_default_no_record_names_an_approximation_or_an_adapter(tmp_path: Path) -> None:
    records = run(tmp_path, fetched({}, {"prompt": "[fail]"}), EngineSpec(model="fake"))
    assert [r["status"] for r in records] == ["ok", "failed"]
    assert [(r["approximations"], r["adapters"]) for r in records] == [([], []), ([], [])]


def test_what_is_approximated_and_adapted_is_named_in_every_record_without_secrets(tmp_path: Path) -> None:
    adapters = ("style@0.5", "https://user:secret@example.com/lora?token=secret")
    settings = EngineSettings(fp8=True, guidance_to=0.75, adapters=adapters)
    earlier = {"error_kind": "not_found", "error_stage": "fetch", "error": "gone"}
    records = run(tmp_path, fetched({}, {"prompt": "[fail]"}, earlier), EngineSpec(model="fake", settings=settings))
    assert [r["status"] for r in records] == ["ok", "failed", "failed"]
    for record in records:
        assert record["approximations"] == ["fp8", "guidance_interval=0-0.75"]
        assert record["adapters"] == ["style@0.5", "https://example.com/lora"]


def test_what_the_waves_of_a_batch_took_is_in_the_store_and_heard(tmp_path: Path) -> None:
    heard: list[Wave] = []
    table = fetched({}, {"prompt": "[fail]"}, {"width": 64})
    records = run(tmp_path, table, EngineSpec(model="fake:0.01"), on_waves=heard.extend)
    lines = metrics_of(tmp_path)
    assert [line["num_tokens"] for line in lines] == [r["num_tokens"] for r in records if r["status"] == "ok"]
    assert [Wave(**{f.name: line[f.name] for f in fields(Wave)}) for line in lines] == heard
    assert len(heard) == 2


def test_each_batch_leaves_a_file_of_its_own_waves(tmp_path: Path) -> None:
    actor = OmniGenActor(FakeEngine, store_root=str(tmp_path), run_id="r1")
    for table in (fetched({}, {}), fetched(), fetched({}), fetched({"prompt": "[fail]"})):
        actor(table)
    actor.close()
    assert sorted(len(file.read_text().splitlines()) for file in (tmp_path / "metrics/r1").iterdir()) == [1, 2]


def test_metrics_that_cannot_be_written_fail_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics").write_text("in the way")
    heard: list[Wave] = []
    (record,) = run(tmp_path, fetched({}), on_waves=heard.extend)
    assert record["status"] == "ok"
    assert (tmp_path / record["output_key"]).exists()
    assert "the metrics of a batch are lost" in caplog.text
    assert len(heard) == 1


def test_an_engine_that_keeps_no_account_of_its_waves_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Plain:
        """As someone else's engine may be: no take_waves, and a ModelInfo without approximations."""

        def __init__(self) -> None:
            self.info = ModelInfo(name="plain", sha256="0" * 64, device="cpu", dtype="float32")

        def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
            yield from FakeEngine().generate(requests)

        def close(self) -> None:
            pass

    (record,) = run(tmp_path, fetched({}), Plain)  # type: ignore[arg-type]
    assert (record["status"], record["approximations"]) == ("ok", [])
    assert not (tmp_path / "metrics").exists()
    assert caplog.text == ""


# --- processes that die ---


class Died(BaseException):
    """In place of a process that ends: nothing in it catches this."""


class Dying(Scripted):
    """Its process dies with the row ``killer``."""

    def misbehave(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        for request in requests:
            if request.prompt == "killer":
                raise Died
            yield from super().misbehave([request])


def leave(code: int) -> NoReturn:
    raise Died(code)


def run_on(tmp_path: Path, table: pa.Table, **more: Any) -> tuple[list[dict[str, Any]], list[list[list[str]]]]:
    """As a cluster does: the batch again in a new process, until one lives. Also what each engine was asked for."""
    calls = []
    for _ in range(10):
        engine = Dying()
        calls.append(engine.calls)
        try:
            return run(tmp_path, table, lambda engine=engine: engine, **more), calls  # type: ignore[misc]
        except Died:
            continue
    raise AssertionError("no end")


def test_a_row_that_kills_its_process_fails_as_poison_and_its_neighbours_are_as_without_it(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": f"cat {n}"} for n in range(4)]
    alone, _ = run_on(tmp_path / "alone", fetched(*rows))
    rows.insert(2, {"id": "bad", "prompt": "killer"})
    records, calls = run_on(tmp_path / "all", fetched(*rows))
    (bad,) = (record for record in records if record["id"] == "bad")
    assert (bad["status"], bad["error_kind"], bad["error_stage"]) == ("failed", "poison", "generate")
    assert "died 2 times" in bad["error"]
    assert "--retry-failed poison" in bad["error"]
    assert bad["output_key"] is None
    assert calls == [
        [["r0", "r1", "bad", "r2", "r3"]],
        [["r0"], ["r1"], ["bad"]],
        [["r0"], ["r1"], ["bad"]],
        [["r0"], ["r1"], ["r2"], ["r3"]],
    ]
    assert [r["sha256"] for r in records if r["id"] != "bad"] == [r["sha256"] for r in alone]
    assert [r["id"] for r in records] == ["r0", "r1", "bad", "r2", "r3"]


@pytest.mark.parametrize("max_crashes", [1, 4])
def test_a_row_is_tried_alone_as_often_as_is_allowed(tmp_path: Path, max_crashes: int) -> None:
    ((record,), calls) = run_on(tmp_path, fetched({"prompt": "killer"}), max_crashes=max_crashes)
    assert record["error_kind"] == "poison"
    assert len(calls) == 1 + max_crashes + 1
    assert calls[-1] == []


def test_a_process_that_died_once_costs_no_row(tmp_path: Path) -> None:
    table = fetched({}, {"error_kind": "not_found", "error_stage": "fetch", "error": "gone"}, {"steps": 0}, {})
    with pytest.raises(Died):
        run(tmp_path, table, lambda: Leaving(Died()))
    engine = Scripted()
    records = run(tmp_path, table, lambda: engine)
    assert [r["status"] for r in records] == ["ok", "failed", "failed", "ok"]
    assert errors(records)[1:3] == [("not_found", "fetch"), ("bad_parameter", "check")]
    assert engine.calls == [["row0"], ["row3"]]


def test_a_batch_that_has_ended_leaves_no_diary(tmp_path: Path) -> None:
    run(tmp_path, fetched({}, {"prompt": "[fail]"}))
    assert [path for path in (tmp_path / "attempts").rglob("*") if path.is_file()] == []


def test_a_store_without_room_for_diaries_fails_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "attempts").write_text("in the way")
    (record,) = run(tmp_path, fetched({}))
    assert record["status"] == "ok"
    assert "diary" in caplog.text


class Leaving(Scripted):
    """Makes the first row and then breaks off with ``error``."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def misbehave(self, requests: Sequence[Request]) -> Iterator[Outcome]:
        yield from super().misbehave(requests[:1])
        raise self.error


def test_a_lost_engine_ends_the_process_once_what_it_made_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encode = images.encode

    def slowly(*args: Any) -> bytes:
        time.sleep(0.3)
        return encode(*args)

    monkeypatch.setattr(images, "encode", slowly)
    engine = Leaving(EngineLost("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(Died) as left:
        run(tmp_path, fetched({}, {}), lambda: engine, leave=leave)
    assert left.value.args == (1,)
    assert engine.calls == [["row0", "row1"]]  # no row is tried alone on a lost device
    assert len(list((tmp_path / "images").rglob("*.png"))) == 1
    assert "illegal memory access" in caplog.text
    assert len(list((tmp_path / "attempts" / "r1").iterdir())) == 1


def test_a_row_that_loses_the_engine_each_time_is_poison(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(Died):
            run(tmp_path, fetched({}, {"prompt": "[lost]"}), leave=leave)
    good, bad = run(tmp_path, fetched({}, {"prompt": "[lost]"}), leave=leave)
    assert errors([good, bad]) == [(None, None), ("poison", "generate")]


def test_a_batch_that_hangs_ends_the_process_and_steps_and_outcomes_put_that_off(tmp_path: Path) -> None:
    left = threading.Event()

    class Slow(FakeEngine):
        """Takes longer than is allowed for the first row, with signs of life, and hangs with the second."""

        def generate(self, requests: Sequence[Request]) -> Iterator[Outcome]:
            for _ in range(10):
                time.sleep(0.2)
                self.on_step()
            assert not left.is_set()
            yield from super().generate(requests[:1])
            assert left.wait(30)
            yield from super().generate(requests[1:])

    codes = []

    def note(code: int) -> None:
        codes.append(code)
        left.set()

    run(tmp_path, fetched({}, {}), Slow, stall_timeout_s=1.5, leave=note)
    assert codes == [1]


def test_once_the_run_winds_down_a_batch_is_handed_back_without_a_row(tmp_path: Path) -> None:
    engine = Scripted()
    (tmp_path / "plan" / "r1").mkdir(parents=True)
    (tmp_path / "plan" / "r1" / "stop").touch()
    assert run(tmp_path, fetched({}, label=pa.array([1])), lambda: engine) == []
    assert engine.calls == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan"]
