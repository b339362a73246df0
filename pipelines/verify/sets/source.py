"""What a place is: an export of ours, a set of others, and which of its files hold rows. Reads no rows."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from omnigen_actor import uri
from omnigen_actor.errors import OutputError, first_line
from pipelines.verify.findings import Finding, FindingKind
from pipelines.verify.sets.member import Style

MARKER = "export.json"
SCRATCH = "plan"
LEFT_OUT = "left_out.parquet"
"""Files of an export of ours that show whose it is; the marker is written last."""

LOOKED_FOR = (
    "run.json or records/ (a run store), export.json (an export), *.parquet, *.tar (WebDataset), *.jsonl "
    "(X2I, OmniGen), or *.yml or *.yaml with `data` (OmniGen2)"
)
_MAX_BYTES = 2**32
_MAX_YAML_BYTES = 2**20
_SPLITS = frozenset({"train", "training", "test", "testing", "valid", "validation", "val", "dev", "eval"})
_COUNTED = re.compile(r"(-\d{5,}-of-\d{5,}|-\d{5,})$")
_KIND = re.compile(r"-(t2i|edit|ic)$")


class Rows(StrEnum):
    """How a file holds rows."""

    PARQUET = "parquet"
    TAR = "tar"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsFile:
    """A file of rows, relative to the set."""

    path: str
    rows: Rows
    style: Style = Style.ANY
    split: str = ""

    @property
    def folder(self) -> str:
        """The folder that it lies in; empty: the set itself."""
        return posixpath.dirname(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A set. ``marker``: what an export of ours says. ``image_root``: where paths start; ``prefix``: what they begin
    with that is no folder of it. ``archives``: tars beside files that hold the rows. ``findings``: what showed already.
    """

    root: str
    image_root: str
    kind: str
    files: tuple[RowsFile, ...]
    archives: tuple[str, ...] = ()
    marker: Mapping[str, Any] | None = None
    prefix: str = ""
    is_whole_folder: bool = True
    findings: tuple[Finding, ...] = field(default=())


def find_set(root: str, image_root: str | None) -> Source:
    """The set at an absolute place. Raises OutputError where there is none, UriFailed where it can't be read."""
    path, rows = posixpath.basename(root.rstrip("/")), _rows_of(root)
    if (rows or path.endswith((".yml", ".yaml"))) and not uri.list_files(root) and uri.exists(root):
        return _foreign(uri.parent(root), image_root, [path], is_whole_folder=False)
    marker, findings = _marker(root)
    if marker is not None:
        return _export(root, marker, findings)
    files = [one.removeprefix(uri.join(root, "")).lstrip("/") for one in uri.list_files(root)]
    return _foreign(root, image_root, files, is_whole_folder=True, findings=findings)


def _marker(root: str) -> tuple[dict[str, Any] | None, tuple[Finding, ...]]:
    place = uri.join(root, MARKER)
    try:
        found = json.loads(uri.read_bytes(place, max_bytes=_MAX_BYTES))
        _check_marker(found)
    except uri.UriNotFound:
        return None, ()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return None, (Finding(kind=FindingKind.MARKER, key=MARKER, message=f"it can't be read: {first_line(error)}"),)
    return found, ()


def _check_marker(found: Any) -> None:
    """Raises where it does not say what an export of ours says."""
    if found["format"] not in _FORMATS:
        raise ValueError(f"unknown format {found['format']!r}")
    for entry in found["files"]:
        if not (isinstance(entry["path"], str) and isinstance(entry["sha256"], str)):
            raise TypeError("a file without path and sha256")
        int(entry["num_bytes"])
    int(found["counts"]["num_images"])
    found["counts"]["splits"].items()
    if found.get("images") is not None:
        str(found["images"]["path"])


# --- exports of ours ---


def _export(root: str, marker: Mapping[str, Any], findings: tuple[Finding, ...]) -> Source:
    image_format = str(marker["format"])
    declared = sorted(str(entry["path"]) for entry in marker["files"])
    rows, style, pattern = _FORMATS[image_format]
    own = re.compile(pattern)
    files = tuple(
        RowsFile(path=path, rows=rows, style=style, split=split_of(path, image_format))
        for path in declared
        if own.fullmatch(path)
    )
    return Source(
        root=root,
        image_root=root,
        kind=f"export ({image_format})",
        files=files,
        marker=marker,
        prefix=_prefix(root, declared) if image_format == "omnigen2" else "",
        findings=findings,
    )


_FORMATS = {
    "hf": (Rows.PARQUET, Style.NUMBERED, r"data/[^/]+\.parquet"),
    "pairs": (Rows.PARQUET, Style.NUMBERED, r"data/[^/]+\.parquet"),
    "webdataset": (Rows.TAR, Style.NUMBERED, r"[^/]+/[^/]+\.tar"),
    "omnigen": (Rows.JSONL, Style.NUMBERED, r"[^/]+\.jsonl"),
    "omnigen2": (Rows.JSONL, Style.PLAIN, r"[^/]+\.jsonl"),
    "files": (Rows.PARQUET, Style.NUMBERED, r"[^/]+/metadata\.parquet"),
}
"""Of each format how its files hold rows, whether prompts have placeholders, and which files these are."""


def _prefix(root: str, declared: Sequence[str]) -> str:
    """What the paths of OmniGen2's files begin with, as its YAML shows."""
    for path in declared:
        if path.endswith(".yml"):
            for listed, _ in _listed(root, path):
                own = next((one for one in declared if listed.endswith(f"/{one}")), None)
                if own is not None:
                    return listed[: len(listed) - len(own)]
    return ""


def split_of(path: str, image_format: str | None = None) -> str:
    """The split that a file belongs to by its name; of files of others only the usual names count."""
    stem = posixpath.basename(path).rpartition(".")[0]
    if image_format == "files":
        return posixpath.dirname(path)
    stem = _COUNTED.sub("", stem)
    if image_format is not None:
        return _KIND.sub("", stem) if image_format == "omnigen2" else stem
    words = [*re.split(r"[-_.]", stem.lower()), *posixpath.dirname(path).lower().split("/")]
    return next((word for word in words if word in _SPLITS), "")


# --- sets of others ---


def _foreign(
    root: str,
    image_root: str | None,
    paths: Sequence[str],
    *,
    is_whole_folder: bool,
    findings: tuple[Finding, ...] = (),
) -> Source:
    names = [path for path in paths if not path.startswith((".", f"{SCRATCH}/")) and "/." not in path]
    if is_whole_folder and not findings and (f"{SCRATCH}/plan.json" in paths or LEFT_OUT in paths):
        message = "there is no export.json: it was not finished, or that was lost; run the same export again"
        findings = (Finding(kind=FindingKind.UNFINISHED, key=MARKER, message=message),)
    names = [path for path in names if path != LEFT_OUT]
    files, kind, told = _rows_files(root, names)
    if not files and not findings:
        raise OutputError(f"{uri.redact(root)!r} is no run store and no data set: looked for {LOOKED_FOR}")
    has_tars = any(one.rows is Rows.TAR for one in files)
    return Source(
        root=root,
        image_root=image_root or root,
        kind=kind if files else "export",
        files=files,
        archives=() if has_tars else tuple(path for path in names if path.endswith(".tar")),
        is_whole_folder=is_whole_folder,
        findings=(*findings, *told),
    )


def _rows_files(root: str, names: Sequence[str]) -> tuple[tuple[RowsFile, ...], str, list[Finding]]:
    """Training files before tables, and these before tars: what beside them may be their images."""
    files, told = _yaml_files(root, names)
    kind = "OmniGen2 training files"
    if not files:
        for rows, shown in (
            (Rows.JSONL, "JSON lines"),
            (Rows.PARQUET, "Parquet"),
            (Rows.TAR, "WebDataset"),
        ):
            files = [RowsFile(path=path, rows=rows, split=split_of(path)) for path in names if _rows_of(path) is rows]
            kind = shown
            if files:
                break
    return tuple(files), kind, told


def _rows_of(path: str) -> Rows | None:
    for rows in Rows:
        if path.rstrip("/").endswith(f".{rows}"):
            return rows
    return None


def _yaml_files(root: str, names: Sequence[str]) -> tuple[list[RowsFile], list[Finding]]:
    """The files that YAMLs of OmniGen2 list. They are looked for beside the YAML and below the set."""
    found: dict[str, RowsFile] = {}
    told: list[Finding] = []
    for path in names:
        if not path.endswith((".yml", ".yaml")):
            continue
        for listed, _ in _listed(root, path):
            file = _near(root, path, listed)
            if file is None or listed.startswith("/"):
                kind = FindingKind.FILE_MISSING if file is None else FindingKind.ABSOLUTE_PATH
                told.append(Finding(kind=kind, key=path, message=f"it lists {listed!r}, which is not in the set"))
            if file is not None:
                split = split_of(path) or split_of(file)
                found[file] = RowsFile(path=file, rows=Rows.JSONL, style=Style.PLAIN, split=split)
    return list(found.values()), told


def _near(root: str, path: str, listed: str) -> str | None:
    """A listed file inside the set: as it is written, beside the YAML, or what the end of an absolute path names."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), listed.lstrip("/")))
    parts = [part for part in listed.split("/") if part not in ("", ".")]
    choices = ["/".join(parts), beside, *("/".join(parts[number:]) for number in range(1, len(parts)))]
    for choice in choices:
        if ".." not in choice.split("/") and choice and uri.exists(uri.join(root, choice)):
            return choice
    return None


def _listed(root: str, path: str) -> list[tuple[str, str]]:
    """Path and kind of each entry of a YAML of OmniGen2; none of another YAML."""
    import yaml

    try:
        content = yaml.safe_load(uri.read_bytes(uri.join(root, path), max_bytes=_MAX_YAML_BYTES))
        return [(str(entry["path"]), str(entry.get("type", ""))) for entry in content["data"]]
    except (yaml.YAMLError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
