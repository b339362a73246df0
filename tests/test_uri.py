"""Reading and writing by URI: against real files, a web server that misbehaves, and a real S3 server."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnigen_actor import remote, remote_errors, uri, uri_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Bucket
    from tests.servers.http import HttpServer

MANY = 1 << 20


@pytest.fixture
def memory() -> Iterator[str]:
    """An empty folder of fsspec's memory file system."""
    from fsspec.implementations.memory import MemoryFileSystem

    folder = f"memory://{os.urandom(4).hex()}"
    yield folder
    MemoryFileSystem.store.clear()


def write_file(path: Path, data: bytes = b"old") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- names ---


@pytest.mark.parametrize(
    ("reference", "base", "expected"),
    [
        ("a.png", "/data", "/data/a.png"),
        ("../img/./a.png", "/data/manifests", "/data/img/a.png"),
        ("/x/../a.png", "s3://bucket/m", "/a.png"),
        ("file:///x/a%20b.png", "/data", "/x/a b.png"),
        ("file://localhost/x/a.png", "s3://bucket", "/x/a.png"),
        ("a b#1?.png", "file:///data", "/data/a b#1?.png"),
        ("./9:30.png", "/data", "/data/9:30.png"),
        ("a.png", "s3://bucket", "s3://bucket/a.png"),
        ("../a.png", "s3://bucket/m/", "s3://bucket/a.png"),
        ("img/a.png", "https://host/m?sig=1", "https://host/m/img/a.png"),
        ("a.png", "memory://m", "memory://m/a.png"),
        ("S3://bucket/a.png", "/data", "s3://bucket/a.png"),
        ("https://host/a?sig=1#x", "/data", "https://host/a?sig=1#x"),
        ("data:image/png;base64,AAAA", "/data", "data:image/png;base64,AAAA"),
        ("zip://a.png::s3://bucket/x.zip", "/data", "zip://a.png::s3://bucket/x.zip"),
    ],
)
def test_a_reference_resolves_to_an_absolute_name(reference: str, base: str, expected: str) -> None:
    assert uri.resolve(reference, base) == expected


def test_a_relative_base_folder_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert uri.resolve("a.png", "m") == str(tmp_path / "m/a.png")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\0b", "NUL"),
        ("row:42", "unknown scheme 'row'.*s3://"),
        ("s4://bucket/a.png", "unknown scheme 's4'"),
        ("gs://bucket/a.png", "gs:// needs a package that is not installed.*gcsfs"),
        ("s3:///a.png", "bucket or host is missing"),
        ("https:/host/a.png", "bucket or host is missing"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_with_the_remedy(reference: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        uri.resolve(reference, "/data")


def test_a_relative_reference_cannot_leave_the_bucket() -> None:
    with pytest.raises(ValueError, match=r"leaves s3://bucket"):
        uri.resolve("../../a.png", "s3://bucket/m")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("/a/b.png", "/a"),
        ("/a", "/"),
        ("a.png", "."),
        ("file:///a/b.png", "file:///a"),
        ("file:///a", "file:///"),
        ("s3://bucket/a/b.png", "s3://bucket/a"),
        ("s3://bucket/a/", "s3://bucket"),
        ("s3://bucket", "s3://bucket"),
        ("https://host/m.csv?sig=a/b", "https://host"),
        ("memory://m.csv", "memory://"),
        ("memory://m/m.csv", "memory://m"),
    ],
)
def test_the_parent_is_the_folder_that_holds_a_file(name: str, folder: str) -> None:
    assert uri.parent(name) == folder


@pytest.mark.parametrize("base", ["/a", "/a/", "s3://b", "s3://b/x/", "file:///a", "https://h/x", "memory://m", "rel"])
def test_join_and_parent_are_inverse(base: str) -> None:
    assert uri.join(base, "c/d", "", "/e.png") == base.rstrip("/") + "/c/d/e.png"
    assert uri.parent(uri.join(base, "e.png")) == base.rstrip("/")


def test_join_keeps_a_root() -> None:
    assert uri.join("/", "a") == "/a"
    assert uri.join("memory://", "a") == "memory://a"


@pytest.mark.parametrize(("name", "local"), [("a", True), ("/a", True), ("file:///a", True), ("s3://b/a", False)])
def test_local_means_a_path_of_this_machine(name: str, local: bool) -> None:
    assert uri.is_local(name) is local


# --- secrets ---

SECRET = "SECRETsecret"
URL_TEXT = st.text("abcXYZ019-._~%:;=+!", max_size=12)

TEMPLATES = [
    "{s}://{u}:{x}@{h}/{p}",
    "{s}://{x}@{h}/{p}",
    "{s}://{h}/{p}?{u}&X-Sig={x}",
    "{s}://{h}?{x}",
    "{s}://{u}@{h}/{p}#{x}",
    "{s}://{u}:{x}/{p}@{h}/{p}",
    "{s}://{u}:{x}#1@{h}/",
    "zip://{p}::{s}://{u}:{x}@{h}/{p}",
]


@given(
    scheme=st.sampled_from(["http", "https", "s3", "gs", "abfs", "ftp", "HTTPS"]),
    user=URL_TEXT,
    host=st.sampled_from(["host", "10.0.0.1:8000", "[::1]:80", "bucket"]),
    path=URL_TEXT,
    template=st.sampled_from(TEMPLATES),
)
def test_redaction_leaves_no_secret_and_is_stable(scheme: str, user: str, host: str, path: str, template: str) -> None:
    name = template.format(s=scheme, u=user, h=host, p=path, x=SECRET)
    redacted = uri.redact(name)
    assert SECRET not in redacted
    assert redacted.startswith(("zip://", f"{scheme}://"))
    assert uri.redact(redacted) == redacted
    assert SECRET not in uri_names.scrub(f"cannot GET url='{name}' with {SECRET}", name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/a@2x.png", "s3://bucket/a@2x.png"),
        ("https://u:p@host:8000/a/b.png?X-Amz-Signature=1#f", "https://host:8000/a/b.png"),
        ("http://[::1]:8000/a?b", "http://[::1]:8000/a"),
        ("/data/a?b#c@d.png", "/data/a?b#c@d.png"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,…"),
    ],
)
def test_redaction_keeps_what_names_the_file(name: str, expected: str) -> None:
    assert uri.redact(name) == expected


# --- local files ---


@pytest.mark.parametrize("as_name", [str, Path.as_uri], ids=["path", "file_uri"])
def test_local_files_are_written_read_listed_and_removed(tmp_path: Path, as_name: Any) -> None:
    name = as_name(tmp_path / "new/ä b%20.png")
    uri.write_bytes(name, b"data")
    assert (tmp_path / "new/ä b%20.png").read_bytes() == b"data"
    assert uri.read_bytes(name, max_bytes=4) == b"data"
    assert uri.exists(name)
    with uri.open_read(name) as file:
        assert file.read() == b"data"
    assert [uri.read_bytes(found, max_bytes=4) for found in uri.list_files(str(tmp_path))] == [b"data"]
    uri.remove(name)
    uri.remove(name)
    assert not uri.exists(name)


def test_a_missing_local_file_is_not_found(tmp_path: Path) -> None:
    file = write_file(tmp_path / "file")
    for name in (str(tmp_path / "none"), str(file / "below")):
        for read in (lambda name: uri.read_bytes(name, max_bytes=1), uri.open_read):
            with pytest.raises(uri.UriNotFound, match="no such file"):
                read(name)
        assert not uri.exists(name)


def test_a_folder_or_a_pipe_is_no_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(uri.UriFailed, match="not a regular file"):
            uri.read_bytes(str(path), max_bytes=1)
    with pytest.raises(uri.UriFailed, match="directory"):
        uri.open_read(str(tmp_path))


def test_the_limit_is_exact(tmp_path: Path) -> None:
    name = str(write_file(tmp_path / "a", b"12345"))
    assert uri.read_bytes(name, max_bytes=5) == b"12345"
    with pytest.raises(uri.UriTooLarge, match="more than the 4 bytes"):
        uri.read_bytes(name, max_bytes=4)


def test_a_failing_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """A file size limit of the kernel breaks the write in its middle, as a full disk would."""
    old = write_file(tmp_path / "a.png")
    program = (
        "import resource, signal, sys; from omnigen_actor import uri\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: uri.write_bytes(sys.argv[1], b'x' * 5000)\n"
        "except uri.UriFailed as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(old)], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert "File too large" in done.stdout
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_write_where_a_folder_stands_fails_and_leaves_nothing(tmp_path: Path) -> None:
    write_file(tmp_path / "a.png/inside")
    for name in ("a.png", "a.png/inside/below"):
        with pytest.raises(uri.UriFailed, match="cannot write"):
            uri.write_bytes(str(tmp_path / name), b"new")
    assert uri.list_files(str(tmp_path)) == [str(tmp_path / "a.png/inside")]


def test_readers_see_the_old_or_the_new_file_and_nothing_between(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a", b"0" * MANY)
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(uri.read_bytes(str(path), max_bytes=MANY))

    reader = threading.Thread(target=read)
    reader.start()
    for digit in b"123456789":
        uri.write_bytes(str(path), bytes([digit]) * MANY)
    done.set()
    reader.join()
    assert all(len(data) == MANY and len(set(data)) == 1 for data in seen)


def test_a_list_is_sorted_recursive_filtered_and_without_cut_off_writes(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.png", "a/d.txt", f".{'0' * 16}.tmp"):
        write_file(tmp_path / name)
    assert uri.list_files(str(tmp_path)) == [str(tmp_path / name) for name in ("a/c.png", "a/d.txt", "b.png")]
    assert uri.list_files(tmp_path.as_uri(), suffix=".png") == [
        f"{tmp_path.as_uri()}/{n}" for n in ("a/c.png", "b.png")
    ]
    assert uri.list_files(str(tmp_path / "none")) == []
    assert uri.list_files(str(tmp_path / "b.png")) == []


# --- http ---


def test_http_files_are_read(http_server: HttpServer, tmp_path: Path) -> None:
    write_file(tmp_path / "ä b%.png", b"data")
    for name in ("ä b%25.png", "%C3%A4%20b%25.png", "%C3%A4%20b%25.png?sig=%2F"):
        assert uri.read_bytes(f"{http_server.base_url}/{name}", max_bytes=4) == b"data"
        assert uri.exists(f"{http_server.base_url}/{name}")
    assert http_server.requests[-1] == "/%C3%A4%20b%25.png?sig=%2F"  # what is signed stays as it is


@pytest.mark.parametrize("status", [404, 410])
def test_http_not_found_is_asked_once(http_server: HttpServer, status: int) -> None:
    name = f"{http_server.base_url}/status/{status}"
    for read in (lambda: uri.read_bytes(name, max_bytes=9), lambda: uri.open_read(name)):
        with pytest.raises(uri.UriNotFound, match="not found"):
            read()
    assert not uri.exists(name)
    assert len(http_server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 501])
def test_http_refusals_are_not_tried_again(http_server: HttpServer, status: int) -> None:
    with pytest.raises(uri.UriFailed, match=rf"HTTP {status}.*\(1 try in"):
        uri.read_bytes(f"{http_server.base_url}/status/{status}", max_bytes=9)
    assert len(http_server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_http_trouble_is_tried_again_as_often_as_asked(http_server: HttpServer, status: int) -> None:
    with pytest.raises(uri.UriFailed, match=rf"HTTP {status}.*\(2 tries in"):
        uri.read_bytes(f"{http_server.base_url}/status/{status}", max_bytes=9, retries=1)
    assert len(http_server.requests) == 2


@pytest.mark.parametrize("kind", ["flaky", "reset"])
def test_a_server_that_recovers_is_read(http_server: HttpServer, tmp_path: Path, kind: str) -> None:
    write_file(tmp_path / "a", b"data")
    assert uri.read_bytes(f"{http_server.base_url}/{kind}/2/a", max_bytes=4) == b"data"
    assert len(http_server.requests) == 3
    with uri.open_read(f"{http_server.base_url}/{kind}/1/a") as file:
        assert file.read() == b"data"


def test_pauses_between_tries_grow(http_server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("omnigen_actor.uri.time.sleep", pauses.append)
    with pytest.raises(uri.UriFailed, match="9 tries"):
        uri.read_bytes(f"{http_server.base_url}/status/503", max_bytes=9)
    assert len(pauses) == 8
    for number, pause_s in enumerate(pauses):
        assert 0.5 <= pause_s / min(8.0, 0.25 * 2**number) <= 1.5


def test_a_truncated_body_is_never_taken_for_the_file(http_server: HttpServer, tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"data" * 100)
    name = f"{http_server.base_url}/truncated/a"
    with pytest.raises(uri.UriFailed, match="2 tries"):
        uri.read_bytes(name, max_bytes=MANY, retries=1)
    with pytest.raises(uri.UriFailed, match=r"Payload.*tries"):
        uri.open_read(name)


def test_a_trickling_server_does_not_hold_a_read_beyond_its_time(http_server: HttpServer) -> None:
    started = time.monotonic()
    with pytest.raises(uri.UriFailed, match=r"timed out \(1 try in"):
        uri.read_bytes(f"{http_server.base_url}/trickle", max_bytes=MANY, timeout_s=0.6)
    assert 0.5 < time.monotonic() - started < 2.5


def test_retries_end_with_the_time(http_server: HttpServer) -> None:
    started = time.monotonic()
    with pytest.raises(uri.UriFailed, match=r"HTTP 503|timed out"):
        uri.read_bytes(f"{http_server.base_url}/status/503", max_bytes=9, timeout_s=1, retries=99)
    assert time.monotonic() - started < 10


def test_an_endless_body_is_left_at_the_limit(http_server: HttpServer) -> None:
    with pytest.raises(uri.UriTooLarge):
        uri.read_bytes(f"{http_server.base_url}/endless", max_bytes=MANY, timeout_s=20)
    assert len(remote.read(f"{http_server.base_url}/endless", MANY, 20)) == MANY + 1


def test_a_server_that_is_not_there_fails_without_its_secrets() -> None:
    name = f"http://user:{SECRET}@127.0.0.1:1/a?sig={SECRET}"
    with pytest.raises(
        uri.UriFailed, match=r"cannot read http://127.0.0.1:1/a: ClientConnectorError.*2 tries"
    ) as caught:
        uri.read_bytes(name, max_bytes=1, retries=1)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_http_is_read_only_and_has_no_folders(http_server: HttpServer) -> None:
    for action in (lambda name: uri.write_bytes(name, b""), uri.remove, uri.list_files):
        with pytest.raises(uri.UriFailed, match=r"http (is only read here|has no folders)"):
            action(f"{http_server.base_url}/a")
    assert http_server.requests == []


def test_an_opened_http_file_is_seekable(http_server: HttpServer, tmp_path: Path) -> None:
    write_file(tmp_path / "a", b"0123456789")
    with uri.open_read(f"{http_server.base_url}/a") as file:
        assert file.seek(-3, os.SEEK_END) == 7
        assert file.read() == b"789"


# --- other file systems, and what errors mean ---


def test_any_fsspec_scheme_serves(memory: str) -> None:
    uri.write_bytes(f"{memory}/x/a.png", b"data")
    uri.write_bytes(f"{memory}/b.txt", b"")
    assert uri.read_bytes(f"{memory}/x/a.png", max_bytes=4) == b"data"
    assert uri.read_bytes(f"{memory}/b.txt", max_bytes=0) == b""
    with pytest.raises(uri.UriTooLarge):
        uri.read_bytes(f"{memory}/x/a.png", max_bytes=3)
    assert uri.list_files(memory) == [f"{memory}/b.txt", f"{memory}/x/a.png"]
    assert uri.list_files(f"{memory}/none") == []
    with uri.open_read(f"{memory}/x/a.png") as file:
        assert file.read() == b"data"
    uri.remove(f"{memory}/b.txt")
    uri.remove(f"{memory}/b.txt")
    assert not uri.exists(f"{memory}/b.txt")
    with pytest.raises(uri.UriNotFound):
        uri.read_bytes(f"{memory}/b.txt", max_bytes=4)
    with pytest.raises(uri.UriNotFound):
        uri.open_read(f"{memory}/b.txt")


def test_data_uris_and_files_in_archives_are_read(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"data")
    assert uri.read_bytes(f"zip://a.png::{tmp_path}/x.zip", max_bytes=4) == b"data"
    assert uri.read_bytes("data:image/png;base64,ZGF0YQ==", max_bytes=4) == b"data"


def test_a_file_system_that_hangs_is_left_behind() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        remote._in_thread(lambda: time.sleep(5), 0.1)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (EOFError(), True),
        (PermissionError(), False),
        (IsADirectoryError(), False),
        (ValueError(), False),
        (KeyError(), False),
    ],
)
def test_only_what_can_pass_is_tried_again(error: Exception, passes: bool) -> None:
    assert remote_errors.can_pass(error) is passes


@pytest.mark.parametrize("kind", [uri.UriNotFound, uri.UriTooLarge, uri.UriFailed])
def test_errors_cross_process_boundaries(kind: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(kind("message")))
    assert type(copy) is kind
    assert str(copy) == "message"


def test_the_import_is_light() -> None:
    program = (
        "import sys; from omnigen_actor import uri; print(*({'fsspec','s3fs','aiohttp','boto3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- s3 ---


@pytest.mark.s3
class TestS3:
    def test_objects_are_written_read_listed_and_removed(self, s3: Bucket) -> None:
        name = uri.join(s3.uri, "run/ä b+%20?#.png")
        uri.write_bytes(name, b"data")
        assert s3.get("run/ä b+%20?#.png") == b"data"
        assert uri.read_bytes(name, max_bytes=4) == b"data"
        assert uri.exists(name)
        assert uri.exists(f"{s3.uri}/run")
        assert uri.exists(s3.uri)
        assert uri.list_files(f"{s3.uri}/run") == [name]
        uri.remove(name)
        uri.remove(name)
        assert s3.keys() == []
        assert not uri.exists(name)

    def test_an_empty_object_is_empty(self, s3: Bucket) -> None:
        assert uri.read_bytes(s3.put("empty", b""), max_bytes=9) == b""
        with uri.open_read(f"{s3.uri}/empty") as file:
            assert file.read() == b""

    def test_the_limit_is_exact_and_no_more_is_read(self, s3: Bucket) -> None:
        name = s3.put("a", b"12345")
        assert uri.read_bytes(name, max_bytes=5) == b"12345"
        assert remote.read(name, 2, 20) == b"123"
        with pytest.raises(uri.UriTooLarge):
            uri.read_bytes(name, max_bytes=4)

    def test_what_is_missing_is_not_found(self, s3: Bucket) -> None:
        for name in (f"{s3.uri}/none", "s3://no-such-bucket-here/a"):
            for read in (lambda name: uri.read_bytes(name, max_bytes=1), uri.open_read):
                with pytest.raises(uri.UriNotFound, match="not found"):
                    read(name)
            assert not uri.exists(name)
            assert uri.list_files(name) == []
        with pytest.raises(uri.UriFailed, match="bucket or folder does not exist"):
            uri.write_bytes("s3://no-such-bucket-here/a", b"")

    def test_a_list_is_never_old(self, s3: Bucket) -> None:
        assert uri.list_files(s3.uri) == []
        assert not uri.exists(f"{s3.uri}/b/x.png")
        for key in ("b/x.png", "a.txt", "ab/y.png", "b/"):
            s3.put(key, b"1")
        assert uri.list_files(s3.uri) == [f"{s3.uri}/{key}" for key in ("a.txt", "ab/y.png", "b/x.png")]
        assert uri.list_files(f"{s3.uri}/b/", suffix=".png") == [f"{s3.uri}/b/x.png"]
        assert uri.list_files(f"{s3.uri}/a") == []
        assert uri.exists(f"{s3.uri}/b/x.png")
        s3.client.delete_object(Bucket=s3.name, Key="b/x.png")
        assert not uri.exists(f"{s3.uri}/b/x.png")

    def test_lists_have_no_length_limit(self, s3: Bucket) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: s3.put(f"many/{number:04}", b""), range(1005)))
        assert len(uri.list_files(f"{s3.uri}/many")) == 1005

    def test_an_opened_object_is_seekable_and_whole(self, s3: Bucket) -> None:
        data = os.urandom(9 << 20)
        with uri.open_read(s3.put("big", data)) as file:
            assert file.seek(-5, os.SEEK_END) == len(data) - 5
            assert file.read() == data[-5:]
            file.seek(0)
            assert file.read(10) == data[:10]
            assert file.read() == data[10:]

    def test_an_object_that_shrinks_while_it_is_read_is_no_end_of_file(
        self, s3: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("omnigen_actor.uri.time.sleep", lambda _: None)
        with uri.open_read(s3.put("a", b"12345")) as file:
            s3.put("a", b"123")
            with pytest.raises(uri.UriFailed, match="3 of 5 bytes came"):
                file.read()

    def test_parquet_is_read_from_an_opened_object(self, s3: Bucket) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table, sink = pa.table({"id": list(range(1000))}), pa.BufferOutputStream()
        pq.write_table(table, sink)
        with uri.open_read(s3.put("a.parquet", sink.getvalue().to_pybytes())) as file:
            assert pq.read_table(file).equals(table)

    def test_many_threads_share_one_client(self, s3: Bucket) -> None:
        names = [s3.put(str(number), str(number).encode()) for number in range(40)]
        with ThreadPoolExecutor(16) as pool:
            read = list(pool.map(lambda name: uri.read_bytes(name, max_bytes=9), names))
        assert read == [str(number).encode() for number in range(40)]

    def test_a_forked_process_has_its_own_client(self, s3: Bucket) -> None:
        import multiprocessing
        import warnings

        name = s3.put("a", b"data")
        assert uri.read_bytes(name, max_bytes=4) == b"data"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
            with multiprocessing.get_context("fork").Pool(1) as pool:
                assert pool.apply_async(_read_four_bytes, (name,)).get(30) == b"data"

    def test_a_wrong_secret_is_named_as_such_and_not_shown(self, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        if not s3.checks_secrets:
            pytest.skip("moto takes any secret")
        name = s3.put("a", b"data")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        for action in (
            lambda: uri.read_bytes(name, max_bytes=4),
            lambda: uri.write_bytes(name, b"new"),
            lambda: uri.list_files(s3.uri),
            lambda: uri.open_read(name),
            lambda: uri.exists(name),
        ):
            with pytest.raises(uri.UriFailed, match=r"HTTP 403.*\(1 try") as caught:
                action()
            shown = "".join(traceback.format_exception(caught.value))
            assert SECRET not in shown
            assert s3.env["AWS_SECRET_ACCESS_KEY"] not in shown
        assert s3.get("a") == b"data"

    def test_a_server_that_is_not_there_ends_in_time(self, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        started = time.monotonic()
        with pytest.raises(uri.UriFailed, match=r"cannot read s3://.*2 tries"):
            uri.read_bytes(f"{s3.uri}/a", max_bytes=1, retries=1)
        assert time.monotonic() - started < 5

    def test_trouble_of_the_server_is_tried_again(
        self, s3: Bucket, http_server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A web server stands in: S3's GET of flaky/2/a is `/flaky/2/a` in the path style."""
        write_file(tmp_path / "a", b"data")
        monkeypatch.setenv("AWS_ENDPOINT_URL", http_server.base_url)
        assert uri.read_bytes("s3://flaky/2/a", max_bytes=9) == b"data"
        assert http_server.requests == ["/flaky/2/a"] * 3
        with pytest.raises(uri.UriFailed, match=r"2 tries"):
            uri.read_bytes("s3://truncated/a", max_bytes=9, retries=1)
        with pytest.raises(uri.UriFailed, match=r"timed out"):
            uri.read_bytes("s3://trickle/a", max_bytes=9, timeout_s=0.6)


def _read_four_bytes(name: str) -> bytes:
    return uri.read_bytes(name, max_bytes=4)
