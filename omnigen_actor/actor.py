"""OmniGenActor: fetched rows in, records out, one for one; the images are in the store before it answers.

A plain callable from table to table, around any engine. Knows nothing of ray, clusters, manifests or other batches.
A row never raises: what went wrong with it is in its record. A process that can do nothing more is left: whoever
started it starts it again, and the diary of the batch keeps a row that kills its process from doing so for ever.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any, NoReturn

import pyarrow as pa

from omnigen_actor import images, store, uri
from omnigen_actor.attempts import Diary, row_name
from omnigen_actor.errors import EngineLost, ErrorKind, RowError, Stage
from omnigen_actor.image_writer import ImageWriter, describe
from omnigen_actor.schema import FETCHED, RECORD, Status, table_from_rows
from omnigen_actor.types import Engine, Failure, Outcome, Request
from omnigen_actor.watchdog import Watchdog
from omnigen_actor.wave_report import OnWaves, WaveReport

_log = logging.getLogger(__name__)

_PIXEL_COLUMNS = ("pixels", "pixel_sizes")
_CARRIED = [name for name in RECORD.names if name in FETCHED.names]
_PARAMETERS = (  # what a record and a Request have in common
    "id",
    "sample",
    "prompt",
    "width",
    "height",
    "seed",
    "steps",
    "guidance_scale",
    "img_guidance_scale",
    "negative_prompt",
)
_LAST_WRITES_S = 10.0
"""What images that are being written may take when the process is left."""

Record = dict[str, Any]


class OmniGenActor:
    """One engine and the store that its images go to.

    ``open_engine`` is called once, here, and what it raises is raised here. ``max_input_image_size`` is the limit that
    the pixels were fitted to. Images are encoded and written by ``write_threads`` threads while the engine goes on;
    with ``embed_provenance`` each says how it was made. ``on_waves`` hears after each batch what its waves took.

    A store that takes no image for ``store_timeout_s`` seconds ends the run: what it raises is raised.

    A row that ran alone when its process died ``max_crashes`` times is not run again. ``leave`` ends the process: when
    the engine is lost, and when a batch shows no sign of life for ``stall_timeout_s`` seconds.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        *,
        store_root: str,
        run_id: str,
        image_format: str = "png",
        embed_provenance: bool = True,
        max_input_image_size: int = 1024,
        write_threads: int = 2,
        on_waves: OnWaves | None = None,
        store_timeout_s: float = 300.0,
        max_crashes: int = 2,
        stall_timeout_s: float = 1800.0,
        leave: Callable[[int], NoReturn] = os._exit,
    ) -> None:
        self._store_root = store_root
        self._run_id = run_id
        self._write = ImageWriter(store_root, image_format, store_timeout_s, embeds=embed_provenance)
        self._max_input_image_size = max_input_image_size
        self._max_crashes = max_crashes
        self._leave = leave
        self._engine = open_engine()
        self._watchdog = Watchdog(stall_timeout_s, leave)
        if hasattr(self._engine, "on_step"):  # someone else's may have none: then outcomes alone are signs of life
            self._engine.on_step = self._watchdog.hear
        self._report_waves = WaveReport(store_root, run_id, on_waves)
        self._writers = ThreadPoolExecutor(write_threads, thread_name_prefix="write-image")

    def __call__(self, table: pa.Table) -> pa.Table:
        """FETCHED -> RECORD: one row for one row, in order, the user's columns untouched, no pixels.

        Every image is committed when this returns. Raises nothing for a row, and UriFailed for the store. No rows at
        all once the run winds down.
        """
        if not table.num_rows or self._winds_down():
            return table_from_rows([], RECORD, table.slice(0, 0))
        started_at = datetime.now(UTC)
        records = [self._start_record(row) for row in table.select(_CARRIED).to_pylist()]
        diary = Diary(self._store_root, self._run_id, [(r["id"], r["sample"], r["attempt"]) for r in records])
        writes: dict[int, Future[Record]] = {}
        with self._watchdog.watching([_name(record) for record in records]):
            try:
                self._run(records, table, diary, writes)
            except EngineLost as error:
                self._give_up(error, writes.values())
            self._report_waves(self._engine, started_at)  # while images are still being written
        for index, write in writes.items():
            _finish(records[index], write)
        diary.end()
        return table_from_rows(records, RECORD, table)

    def close(self) -> None:
        """Free the engine and the threads."""
        self._watchdog.close()
        self._writers.shutdown()
        self._engine.close()

    def _winds_down(self) -> bool:
        """Whether the run has been told to stop. A store that can't say so stops nothing."""
        try:
            return uri.exists(uri.join(self._store_root, store.stop_key(self._run_id)))
        except OSError:
            _log.warning("the store does not say whether the run goes on", exc_info=True)
            return False

    def _run(self, records: list[Record], table: pa.Table, diary: Diary, writes: dict[int, Future[Record]]) -> None:
        """Fill in the failures, and begin to write the images. Raises EngineLost."""
        found = self._one_by_one(records, table, diary) if diary.is_careful else self._together(records, table)
        for index, outcome in found:
            self._watchdog.hear()
            if isinstance(outcome, Failure):
                _fail(records[index], outcome.error)
                continue
            writes[index] = self._writers.submit(self._write, outcome, records[index])
            if diary.is_careful:  # what its image may do to the process is this row's, too
                wait([writes[index]])

    def _together(self, records: list[Record], table: pa.Table) -> Iterator[tuple[int, Outcome]]:
        yield from self._outcomes(self._requests(records, table, range(len(records))))

    def _one_by_one(self, records: list[Record], table: pa.Table, diary: Diary) -> Iterator[tuple[int, Outcome]]:
        """Rows of a batch with which a process died; those that were alone then are refused in the end."""
        _log.warning("a process died with this batch: %d rows are run one by one", len(records))
        for index, record in enumerate(records):
            if record["error_kind"] is not None:
                continue
            num_crashes = diary.num_crashes(_name(record))
            if num_crashes >= self._max_crashes:
                _fail(record, _poison(num_crashes))
                continue
            diary.begin(_name(record))
            yield from self._outcomes(self._requests(records, table, [index]))

    def _give_up(self, error: EngineLost, writes: Collection[Future[Record]]) -> NoReturn:
        """Leave the process, once the images that are done are written, if that is soon."""
        _log.error("the process ends: %s", error)
        wait(writes, timeout=_LAST_WRITES_S)
        self._leave(1)

    def _start_record(self, row: Record) -> Record:
        """A record of a failure, until the image is there: a row that nobody finishes can't pass for a good one."""
        info = self._engine.info
        return row | {
            "images": [_shown(image) for image in row["images"]],
            "status": Status.SKIPPED if row["error_kind"] == ErrorKind.PARENT_FAILED else Status.FAILED,
            "model": uri.redact(info.name),
            "model_sha256": info.sha256,
            "approximations": list(info.approximations),
            "adapters": list(info.adapters),
            "device": info.device,
            "generate_seconds": 0.0,
            "write_seconds": 0.0,
            "finished_at": datetime.now(UTC),
            "run_id": self._run_id,
        }

    def _requests(self, records: Sequence[Record], table: pa.Table, places: Sequence[int]) -> dict[int, Request]:
        """Of the rows at ``places`` those that can be tried, by place; the others become failures here."""
        requests = {}
        for index in places:
            record = records[index]
            if record["error_kind"] is not None:
                continue
            try:
                requests[index] = self._request(record, *(table[name][index].as_py() for name in _PIXEL_COLUMNS))
            except RowError as error:
                _fail(record, error)
            except Exception as error:
                _fail(record, RowError(ErrorKind.ENGINE_FAILED, Stage.GENERATE, describe(error)))
        return requests

    def _request(self, record: Record, pixels: list[bytes], sizes: list[int]) -> Request:
        return make_request(record, pixels, sizes, self._max_input_image_size)

    def _outcomes(self, requests: dict[int, Request]) -> Iterator[tuple[int, Outcome]]:
        """Exactly one outcome per request. What an engine that broke off left unfinished is tried once more, alone."""
        pending = dict(requests)
        broken = yield from self._try(pending)
        for index in list(pending) if broken else ():
            alone = {index: pending.pop(index)}
            error = yield from self._try(alone)
            yield from _unfinished(alone, error)
        yield from _unfinished(pending, None)

    def _try(self, pending: dict[int, Request]) -> Generator[tuple[int, Outcome], None, Exception | None]:
        """Yield what the engine finishes, and take it out of ``pending``; return what broke the engine, if anything."""
        places = {id(request): index for index, request in pending.items()}
        try:
            for outcome in self._engine.generate(list(pending.values())) if pending else ():
                index = places.get(id(outcome.request), -1)
                if pending.pop(index, None) is not None:
                    yield index, outcome
        except EngineLost:
            raise
        except Exception as error:
            _log.warning("the engine broke off with %d rows unfinished", len(pending), exc_info=True)
            return error
        return None


def make_request(
    record: Mapping[str, Any], pixels: Sequence[bytes], sizes: Sequence[int], max_input_image_size: int
) -> Request:
    """What a record asks of an engine, with its input images as ``images.from_pixels`` takes them. Raises RowError."""
    return Request(
        **{name: record[name] for name in _PARAMETERS},
        images=images.from_pixels(pixels, sizes),
        max_input_image_size=max_input_image_size,
    )


def _unfinished(requests: dict[int, Request], error: Exception | None) -> Iterator[tuple[int, Outcome]]:
    message = "the engine gave no outcome for this row" if error is None else describe(error)
    for index, request in requests.items():
        yield index, Failure(request=request, error=RowError(ErrorKind.ENGINE_FAILED, Stage.GENERATE, message))


def _name(record: Record) -> str:
    return row_name(record["id"], record["sample"])


def _poison(num_crashes: int) -> RowError:
    return RowError(
        ErrorKind.POISON,
        Stage.GENERATE,
        f"its worker died {num_crashes} times while it ran this row alone: not run again; to try it in another run: "
        "--retry-failed poison",
    )


def _finish(record: Record, write: Future[Record]) -> None:
    try:
        record.update(write.result())
    except RowError as error:
        _fail(record, error)


def _fail(record: Record, error: RowError) -> None:
    record.update(
        error_kind=error.kind.value,
        error_stage=error.stage.value,
        error=error.message,
        finished_at=datetime.now(UTC),
    )


def _shown(image: str) -> str:
    """A reference without its secrets; one to another row, and an image within the reference, stay whole."""
    return image if image.startswith(("row:", "data:")) else uri.redact(image)
