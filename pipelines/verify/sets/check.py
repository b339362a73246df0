"""Everything that is checked of a data set, in its order. Each check is a module of its own.

Rows stream through: in memory are those that are looked at, and some bytes of each one for what they must not share.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice

import pyarrow as pa

from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, OutputError, first_line
from pipelines.locations import locate
from pipelines.verify.findings import Finding, FindingKind, Remove
from pipelines.verify.pool import in_order
from pipelines.verify.report import Report
from pipelines.verify.sets import declared, loading
from pipelines.verify.sets.across import Across
from pipelines.verify.sets.config import SetConfig
from pipelines.verify.sets.declared import Index
from pipelines.verify.sets.jsonl import read_jsonl
from pipelines.verify.sets.member import Member, Read
from pipelines.verify.sets.paths import Paths
from pipelines.verify.sets.pictures import LookAt
from pipelines.verify.sets.provenance import Provenance
from pipelines.verify.sets.rows import Checked, CheckRow
from pipelines.verify.sets.source import Rows, RowsFile, Source, find_set
from pipelines.verify.sets.tables import num_rows, read_parquet
from pipelines.verify.sets.tars import check_archive, read_tar

_JOINED_AT_ONCE = 256

OnProgress = Callable[[Report], None]


def verify_set(
    location: str, config: SetConfig, *, fix: bool = False, on_progress: OnProgress = lambda _: None
) -> Report:
    """Check a data set; with ``fix`` remove what writes that were cut off left behind.

    Raises OutputError where there is no set or it can't be listed, ConfigError for settings that it can't have.
    """
    started = time.monotonic()
    root = locate(location, OutputError, "set ")
    image_root = config.image_root and locate(config.image_root, ConfigError, "image_root=")
    try:
        source = find_set(root, image_root)
        if image_root and source.marker:
            raise ConfigError(f"image_root={config.image_root!r}: an export has its images with it; leave it out")
        if config.has_load:
            loading.check_can_load(source.root)
        report = _verify(root, source, config, on_progress, fix=fix)
    except OSError as error:  # of one file it would be a finding
        raise OutputError(f"{uri.redact(root)!r} can't be read: {error}") from None
    report.seconds = time.monotonic() - started
    return report


def _verify(root: str, source: Source, config: SetConfig, on_progress: OnProgress, *, fix: bool) -> Report:
    report = Report(store=uri.redact(root), kind=source.kind, num_to_do=_num_to_do(source))
    mended: Counter[FindingKind] = Counter()
    failures: list[str] = []
    for finding in _findings(source, config, report, on_progress):
        report.add(finding)
        if fix and isinstance(finding.mend, Remove):
            try:
                uri.remove(uri.join(source.root, finding.key))
                mended[finding.kind] += 1
            except OSError as error:
                failures.append(first_line(error))
    report.mended, report.failures = mended, failures
    return report


def _findings(source: Source, config: SetConfig, report: Report, on_progress: OnProgress) -> Iterator[Finding]:
    yield from source.findings
    index: Index | None = None
    if source.marker:
        yield from declared.check_files(
            source.root, source.marker, lambda: on_progress(report), has_hash=config.has_hash
        )
        try:
            index = _index(source)
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            key = str(source.marker["images"]["path"])
            yield Finding(kind=FindingKind.FILE_UNREADABLE, key=key, message=first_line(error))
    rows = _RowsOf(source, config, index, report, on_progress)
    yield from rows.findings()
    for archive in source.archives:
        yield from check_archive(source.root, archive)
    if source.marker:
        yield from _counts(source, rows, index)
        yield from declared.undeclared(source.root, source.marker)
    if source.is_whole_folder:
        yield from declared.temporary_files(source.root)
    if config.has_load:
        yield from loading.check_loads(source, rows.num_rows)


def _index(source: Source) -> Index | None:
    images = source.marker.get("images") if source.marker else None
    return Index(source.root, images["path"]) if images else None


def _num_to_do(source: Source) -> int | None:
    if source.marker:
        return int(source.marker["counts"]["num_images"])
    found = [num_rows(source.root, file) if file.rows is Rows.PARQUET else None for file in source.files]
    counts = [count for count in found if count is not None]
    return sum(counts) if counts and len(counts) == len(found) else None


class _RowsOf:
    """The rows of a set through all their checks, and how many there are of what."""

    def __init__(
        self, source: Source, config: SetConfig, index: Index | None, report: Report, on_progress: OnProgress
    ) -> None:
        self.num_rows: dict[str, int] = {}
        self.num_inputs = 0
        self.tasks: Counter[tuple[str, str]] = Counter()
        self._source = source
        self._config = config
        self._report = report
        self._on_progress = on_progress
        is_ours = source.marker is not None
        look = LookAt(source.image_root, config, index, is_ours=is_ours)
        self._check = CheckRow(look=look, paths=Paths(source.image_root, source.prefix), is_ours=is_ours)
        self._across = Across(config.near_duplicates)

    def findings(self) -> Iterator[Finding]:
        """Those of files and rows as they are read, then those of what rows share."""
        with (
            _provenance(self._source) as joined,
            ThreadPoolExecutor(self._config.num_threads, thread_name_prefix="verify-set") as pool,
        ):
            yield from joined.findings if joined else ()
            for file in self._source.files:
                reads = self._joined(self._read(file), joined)
                for found in in_order(pool, self._look, reads, 2 * self._config.num_threads):
                    if isinstance(found, Finding):
                        yield found
                    else:
                        yield from self._take(found)
        yield from self._across.findings()

    def _read(self, file: RowsFile) -> Iterator[Read]:
        root, config = self._source.root, self._config
        match file.rows:
            case Rows.PARQUET:
                return read_parquet(root, file, is_read=config.is_read)
            case Rows.TAR:
                return read_tar(root, file, config.max_image_bytes, is_read=config.is_read)
            case Rows.JSONL:
                return read_jsonl(root, file)

    def _joined(self, reads: Iterator[Read], provenance: Provenance | None) -> Iterable[Read]:
        """The rows with their provenance; what can't be told of a row comes as a finding before it."""
        if provenance is None:
            yield from reads
            return
        while some := list(islice(reads, _JOINED_AT_ONCE)):
            members = [one for one in some if isinstance(one, Member)]
            found = iter(provenance.join(members))
            for one in some:
                if isinstance(one, Finding):
                    yield one
                    continue
                member, fault = next(found)
                if fault:
                    yield member.finding(fault)
                yield member

    def _look(self, read: Read) -> Checked | Finding:
        return read if isinstance(read, Finding) else self._check(read)

    def _take(self, checked: Checked) -> Iterator[Finding]:
        member, report = checked.member, self._report
        self._across.add(checked)
        self.num_rows[member.file] = self.num_rows.get(member.file, 0) + 1
        self.num_inputs += len(member.inputs)
        self.tasks[member.split, member.task or ""] += 1
        report.num_records += 1
        report.num_done += 1
        report.num_images += checked.num_good
        report.num_bytes += checked.num_bytes
        self._on_progress(report)
        for fault in checked.faults:
            yield member.finding(fault)


def _provenance(source: Source) -> Provenance | nullcontext[None]:
    """The tables of an export whose rows have no ids."""
    if source.marker is None or source.marker["format"] not in ("omnigen", "omnigen2"):
        return nullcontext()
    paths = (str(entry["path"]) for entry in source.marker["files"])
    return Provenance(source.root, [path for path in paths if path.startswith("provenance/")], source.prefix)


def _counts(source: Source, rows: _RowsOf, index: Index | None) -> Iterator[Finding]:
    """What export.json counts against what was found."""
    assert source.marker is not None
    counts = source.marker["counts"]
    expected = {(split, task): number for split, tasks in counts["splits"].items() for task, number in tasks.items()}
    for split, task in sorted(expected.keys() | rows.tasks.keys()):
        said, found = expected.get((split, task), 0), rows.tasks[split, task]
        if said != found:
            message = f"it counts {said} rows of {task!r} in {split!r}, and there are {found}"
            yield Finding(kind=FindingKind.COUNT, key="export.json", message=message)
    if counts.get("num_inputs") not in (None, rows.num_inputs):
        message = f"it counts {counts['num_inputs']} inputs, and there are {rows.num_inputs}"
        yield Finding(kind=FindingKind.COUNT, key="export.json", message=message)
    if index is not None and index.num_unnamed:
        message = f"no row names {index.num_unnamed} of its images"
        yield Finding(kind=FindingKind.COUNT, key=str(source.marker["images"]["path"]), message=message)
