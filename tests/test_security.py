"""A manifest by someone who wishes no good: what it names and must not have is refused, and nothing of it is read."""

from __future__ import annotations

import gzip
import http.server
import io
import logging
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yarl
from PIL import Image, PngImagePlugin

from omnigen_actor import images, store, uri
from omnigen_actor.actor import OmniGenActor
from omnigen_actor.addresses import Refused, is_public, literal
from omnigen_actor.allowed import Allowed, allow
from omnigen_actor.errors import ConfigError, ErrorKind, Stage
from omnigen_actor.fake import FakeEngine
from omnigen_actor.remote_http import MAX_REDIRECTS, PublicResolver
from pipelines.check import check_table, refuse_places
from pipelines.config import GenerationConfig, InputConfig, RunConfig
from pipelines.fetch import FetchImages
from pipelines.places import allowed_of_run
from pipelines.planned import CheckRows

PUBLIC = "93.184.215.14"
CONFIG = InputConfig(fetch_timeout_s=5.0, fetch_retries=0)


def png(width: int = 32, height: int = 32) -> bytes:
    return images.encode(Image.new("RGB", (width, height), "red"), "png")


class Web(http.server.ThreadingHTTPServer):
    """/to?URL and /hops/<n> redirect, /drip sends a byte every 0.2 s, /gzip much in little; all else is an image.

    Keeps what it was asked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.is_over = threading.Event()
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who was too slow is left."""


class Answer(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        path, _, query = self.path.partition("?")
        if path == "/to":
            return self.answer(302, b"", Location=query)
        if path.startswith("/hops/"):
            left = int(path.removeprefix("/hops/"))
            return self.answer(302, b"", Location=f"/hops/{left - 1}" if left > 1 else "/ok")
        if path == "/drip":
            return self.drip()
        if path == "/gzip":
            return self.answer(200, gzip.compress(bytes(64 << 20)), **{"Content-Encoding": "gzip"})
        return self.answer(200, png())

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while not self.server.is_over.wait(0.2):
            self.wfile.write(b".")

    def log_message(self, *arguments: Any) -> None:
        pass


def serve() -> Iterator[Web]:
    with Web() as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield web
        web.is_over.set()
        web.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def web() -> Iterator[Web]:
    yield from serve()


@pytest.fixture
def other_web() -> Iterator[Web]:
    yield from serve()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest's folder with an image, beside one that is not meant for it."""
    for name in ("data", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png())
    return tmp_path / "data"


def check(reference: str, allowed: Allowed, base_folder: str = "/data") -> dict[str, Any]:
    """The planned row of an edit of ``reference``."""
    rows = pa.Table.from_pylist([{"id": "a", "task": "edit", "instruction": "x", "images": [reference]}])
    (row,) = CheckRows(GenerationConfig(), base_folder, allowed=allowed)(rows).to_pylist()
    return dict(row)


def fetch(reference: str, allowed: Allowed, config: InputConfig = CONFIG) -> dict[str, Any]:
    """The fetched row of an edit of ``reference``, which no check has seen."""
    rows = pa.Table.from_pylist([{"id": "a", "task": "edit", "instruction": "x", "images": [reference]}])
    planned = check_table(rows, GenerationConfig(), "/")
    (row,) = FetchImages(config, 64, allowed)(planned).to_pylist()
    return dict(row)


def assert_refused(row: dict[str, Any], stage: Stage) -> None:
    assert (row["error_kind"], row["error_stage"]) == (ErrorKind.REFUSED, stage), row["error"]


# --- local files ---


@pytest.mark.parametrize(
    "reference",
    [
        "../private/a.png",
        "x/../../private/a.png",
        "{private}/a.png",
        "/{private}/a.png",
        "file://{private}/a.png",
        "file://localhost{folder}/%2e%2e/private/a.png",
        "file:../private/a.png",
        "local://{private}/a.png",
        "/proc/self/environ",
        "/dev/zero",
        "~root/../../private/a.png",
    ],
)
def test_a_file_outside_of_the_manifests_folder_is_refused_at_the_check_and_at_the_fetch(
    folder: Path, reference: str
) -> None:
    private = folder.parent / "private"
    reference = reference.format(private=private, folder=folder)
    allowed = Allowed((str(folder),))
    row = check(reference, allowed, str(folder))
    assert_refused(row, Stage.CHECK)
    assert "--allow" in row["error"]
    assert row["image_uris"] == []
    absolute = uri.resolve(reference, str(folder))
    assert_refused(fetch(absolute, allowed), Stage.FETCH)


@pytest.mark.parametrize("reference", ["%2e%2e/private/a.png", "~/a.png", "\\\\host\\share\\a.png", "C:\\a.png"])
def test_what_other_systems_would_follow_is_a_name_within_the_folder(folder: Path, reference: str) -> None:
    row = check(reference, Allowed((str(folder),)), str(folder))
    assert row["error_kind"] is None
    assert row["image_uris"] == [f"{folder}/{reference}"]
    assert fetch(row["image_uris"][0], Allowed((str(folder),)))["error_kind"] == ErrorKind.NOT_FOUND


def test_a_nul_byte_is_refused_as_no_name(folder: Path) -> None:
    assert check("a.png\0.txt", Allowed((str(folder),)), str(folder))["error_kind"] == ErrorKind.BAD_URI
    with pytest.raises(uri.UriFailed, match="null byte"):
        uri.read_bytes(f"{folder}/a.png\0", max_bytes=1, allowed=Allowed((str(folder),)))


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_a_symbolic_link_out_of_the_folder_is_refused_and_says_where_it_leads(folder: Path, is_folder: bool) -> None:
    private = folder.parent / "private"
    (folder / "link").symlink_to(private if is_folder else private / "a.png")
    reference = "link/a.png" if is_folder else "link"
    allowed = Allowed((str(folder),))
    row = check(reference, allowed, str(folder))
    assert_refused(row, Stage.CHECK)
    assert f"leads to {private}/a.png" in row["error"]
    assert f"--allow {private} " in row["error"]
    assert_refused(fetch(f"{folder}/{reference}", allowed), Stage.FETCH)
    assert check(reference, Allowed((str(folder), str(private))), str(folder))["error_kind"] is None


def test_a_link_that_is_laid_after_the_check_is_refused_at_the_fetch(folder: Path) -> None:
    allowed = Allowed((str(folder),))
    assert check("a.png", allowed, str(folder))["error_kind"] is None
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(folder.parent / "private" / "a.png")
    assert_refused(fetch(f"{folder}/a.png", allowed), Stage.FETCH)


def test_a_folder_that_is_itself_a_link_may_be_allowed(folder: Path) -> None:
    (folder.parent / "alias").symlink_to(folder)
    alias = str(folder.parent / "alias")
    assert fetch(f"{alias}/a.png", Allowed((alias,)))["error"] is None


def test_a_folder_whose_name_begins_with_an_allowed_one_is_another(folder: Path) -> None:
    (folder.parent / "data-2").mkdir()
    with pytest.raises(Refused, match="outside of the folders"):
        Allowed((str(folder),)).check(f"{folder}-2/a.png")


# --- object stores, archives and other schemes ---


@pytest.mark.parametrize(
    "reference",
    [
        "s3://other/a.png",
        "s3://bucket/elsewhere/a.png",
        "s3://bucket/manifests-2/a.png",
        "s3://bucket/manifests/../secret.png",
        "s3://bucket/manifests/%252e%252e/secret.png",
        "memory://x/a.png",
        "ftp://127.0.0.1/a.png",
        "github://owner:repo@main/a.png",
        "zip://a.png::/etc/archive.zip",
        "zip://a.png::file:///etc/archive.zip",
        "zip://a.png::http://127.0.0.1/a.zip",
        "simplecache::file:///etc/passwd",
        "reference::s3://bucket/manifests/a.json",
        "data:image/png;base64,AAAA::file:///etc/passwd",
    ],
)
def test_what_no_place_holds_is_refused(reference: str) -> None:
    with pytest.raises(Refused) as refused:
        Allowed(("s3://bucket/manifests", "/data")).check(reference)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "reference",
    [
        "s3://bucket/manifests/a.png",
        "s3a://bucket/manifests/x/a.png",
        "s3://bucket/manifests/a::b.png",
        "/data/a.png",
        "zip://a.png::/data/archive.zip",
        "zip://a.png::s3://bucket/manifests/x.zip",
        "data:image/png;base64,AAAA",
        f"https://{PUBLIC}/a.png",
        "https://images.example.com/a.png?sig=1",
    ],
)
def test_what_lies_below_a_place_and_what_is_public_is_allowed(reference: str) -> None:
    Allowed(("s3://bucket/manifests/", "/data")).check(reference)


# --- hosts ---


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST.", "a.localhost", "[::1]", "0.0.0.0", "[::]", "169.254.169.254",
        "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "224.0.0.1", "255.255.255.255", "2130706433",
        "0x7f000001", "127.1", "017700000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
        "[::127.0.0.1]", "[fe80::1]", "[fc00::1]", "[2002:7f00:1::]", "[64:ff9b::7f00:1]",
        "user:password@127.0.0.1", "127.0.0.1:8000", "127。0。0。1",
    ],
)  # fmt: skip
def test_a_host_that_is_not_public_is_refused_at_the_check_in_every_form(host: str) -> None:
    row = check(f"http://{host}/a.png?token=hunter2", Allowed(("/data",)))
    assert_refused(row, Stage.CHECK)
    assert "no public host" in row["error"]
    assert "--allow http://" in row["error"]
    assert "hunter2" not in row["error"]
    assert "password" not in row["error"]
    assert_refused(fetch(f"http://{host}/a.png", Allowed()), Stage.FETCH)


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:21f:cb07::1", f"::ffff:{PUBLIC}", "64:ff9b::5db8:d70e"])
def test_a_public_address_is_told_as_such(address: str) -> None:
    found = literal(address)
    assert found
    assert is_public(found)


@pytest.mark.parametrize("name", ["example.com", "a.b", "1.1.1.1.example.com", "x"])
def test_a_name_spells_no_address(name: str) -> None:
    assert literal(name) is None


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Every name but those of this machine has these addresses. Returns the names that are looked up, as they are."""
    asked: list[str] = []

    def look_up(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def test_a_name_with_a_private_address_is_refused_before_a_connection(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, "127.0.0.1")
    reference = f"http://rebound.example:{web.server_address[1]}/ok"
    assert check(reference, Allowed())["error_kind"] is None
    row = fetch(reference, Allowed())
    assert_refused(row, Stage.FETCH)
    assert "its address is 127.0.0.1" in row["error"]
    assert f"--allow {reference.removesuffix('/ok')} " in row["error"]
    assert not web.asked
    assert fetch(reference, Allowed((reference.removesuffix("/ok"),)))["error"] is None


def test_only_the_public_addresses_of_a_name_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    asked = resolve_to(monkeypatch, "10.0.0.1", PUBLIC, "127.0.0.1")
    found = asyncio.run(PublicResolver().resolve("mixed.example", 80))
    assert [entry["host"] for entry in found] == [PUBLIC]
    assert asked == ["mixed.example"]


def test_a_named_host_is_allowed_on_its_port_and_below_its_path_alone(web: Web, other_web: Web) -> None:
    assert fetch(f"{web.url}/ok", Allowed((web.url,)))["error"] is None
    assert_refused(fetch(f"{other_web.url}/ok", Allowed((web.url,))), Stage.FETCH)
    below = Allowed((f"{web.url}/images",))
    assert fetch(f"{web.url}/images/a.png", below)["error"] is None
    for path in ("ok", "images-2/a.png", "images/../ok", "images/%2e%2e/ok", "images/%252e%252e/ok"):
        assert_refused(fetch(f"{web.url}/{path}", below), Stage.FETCH)
    assert not other_web.asked
    assert [path for path, _ in web.asked] == ["/ok", "/images/a.png"]


def test_a_proxy_is_asked_for_names_and_not_for_private_addresses(
    web: Web, other_web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", web.url)
    assert fetch("http://images.example/a.png", Allowed())["error"] is None
    assert_refused(fetch(f"{other_web.url}/ok", Allowed()), Stage.FETCH)
    assert_refused(fetch(f"{web.url}/ok", Allowed()), Stage.FETCH)
    assert [path for path, _ in web.asked] == ["http://images.example/a.png"]


def test_passwords_of_the_environment_go_to_named_hosts_alone(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password hunter2\nmachine images.example login u password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert fetch(f"{web.url}/ok", Allowed((web.url,)))["error"] is None
    monkeypatch.setenv("http_proxy", web.url)
    assert fetch("http://images.example/a.png", Allowed())["error"] is None
    (_, named), (_, foreign) = web.asked
    assert named is not None
    assert foreign is None


# --- redirects ---


@pytest.mark.parametrize("is_literal", [True, False], ids=["address", "name"])
def test_a_redirect_to_a_private_host_is_refused_and_not_followed(web: Web, other_web: Web, is_literal: bool) -> None:
    target = other_web.url if is_literal else other_web.url.replace("127.0.0.1", "localhost")
    row = fetch(f"{web.url}/to?{target}/ok", Allowed((web.url,)))
    assert_refused(row, Stage.FETCH)
    assert f"--allow {target} " in row["error"]
    assert len(web.asked) == 1
    assert not other_web.asked


@pytest.mark.parametrize("target", ["file:///etc/passwd", "s3://bucket/a.png", "ftp://host/a", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(web: Web, target: str) -> None:
    row = fetch(f"{web.url}/to?{target}", Allowed((web.url,)))
    assert_refused(row, Stage.FETCH)
    assert "not http" in row["error"]
    with pytest.raises(uri.UriFailed, match="not http"):
        uri.read_bytes(f"{web.url}/to?{target}", max_bytes=9)


def test_redirects_are_followed_up_to_their_limit(web: Web) -> None:
    allowed = Allowed((web.url,))
    assert fetch(f"{web.url}/hops/{MAX_REDIRECTS}", allowed)["error"] is None
    web.asked.clear()
    row = fetch(f"{web.url}/hops/{MAX_REDIRECTS + 1}", allowed)
    assert row["error_kind"] == ErrorKind.FETCH_FAILED
    assert "more than 5 redirects" in row["error"]
    assert len(web.asked) == MAX_REDIRECTS + 1


def test_a_password_follows_a_redirect_on_its_own_host_and_to_no_other(web: Web, other_web: Web) -> None:
    allowed = Allowed((web.url, other_web.url))
    home = web.url.replace("//", "//user:hunter2@")
    assert fetch(f"{home}/to?/ok", allowed)["error"] is None
    assert [path for path, word in web.asked if word] == ["/to?/ok", "/ok"]
    assert fetch(f"{home}/to?{other_web.url}/ok", allowed)["error"] is None
    assert other_web.asked == [("/ok", None)]


# --- caps ---


def test_a_body_that_trickles_ends_at_the_time_limit(web: Web) -> None:
    started = time.monotonic()
    row = fetch(f"{web.url}/drip", Allowed((web.url,)), InputConfig(fetch_timeout_s=1.0, fetch_retries=4))
    assert time.monotonic() - started < 3
    assert row["error_kind"] == ErrorKind.FETCH_FAILED
    assert "timed out" in row["error"]


def test_a_body_that_grows_when_it_is_unpacked_ends_at_the_limit_of_bytes(web: Web) -> None:
    row = fetch(f"{web.url}/gzip", Allowed((web.url,)), InputConfig(max_image_bytes=1 << 20, fetch_retries=0))
    assert row["error_kind"] == ErrorKind.IMAGE_TOO_LARGE
    assert "1048576 bytes" in row["error"]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb() -> bytes:
    return png()[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + png()[33:]


def text_bomb(name: bytes) -> bytes:
    """64 MiB of zeros in some 65 kB, in a chunk of text that nobody asks for."""
    packed = zlib.compress(bytes(64 << 20), 9)
    prefix = b"Comment\0\1\0\0\0" if name == b"iTXt" else b"Comment\0\0"
    return png()[:33] + chunk(name, prefix + packed) + png()[33:]


def profile_bomb() -> bytes:
    return png()[:33] + chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(64 << 20), 9)) + png()[33:]


def gif_bomb() -> bytes:
    file = io.BytesIO()
    Image.new("P", (1, 1)).save(file, "GIF")
    return file.getvalue()[:6] + struct.pack("<HH", 65_535, 65_535) + file.getvalue()[10:]


def webp_bomb() -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + (16_382).to_bytes(3, "little") * 2
    body += b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    frame = io.BytesIO()
    Image.new("RGB", (1, 1)).save(frame, "WEBP", lossless=True)
    inner = bytes(12) + b"\0\0\0\0" + frame.getvalue()[12:]
    body += b"ANMF" + struct.pack("<I", len(inner)) + inner
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff_bomb() -> bytes:
    entries = {256: 60_000, 257: 60_000, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 60_000, 279: 9}
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items())
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


def tall_tiff() -> bytes:
    """One strip of floating-point numbers that says it is 60 million, just below the limit."""
    file = io.BytesIO()
    Image.new("F", (24, 20)).save(file, "TIFF")
    data = bytearray(file.getvalue())
    (first,) = struct.unpack("<I", data[4:8])
    for entry in range(first + 2, first + 2 + 12 * data[first], 12):
        if struct.unpack("<H", data[entry : entry + 2])[0] == 257:
            data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 2_500_000)
    return bytes(data)


BOMBS = {
    "png": png_bomb(),
    "iTXt": text_bomb(b"iTXt"),
    "zTXt": text_bomb(b"zTXt"),
    "iCCP": profile_bomb(),
    "gif": gif_bomb(),
    "webp": webp_bomb(),
    "tiff": tiff_bomb(),
    "tall tiff": tall_tiff(),
}
DECODE = """
import sys, time
from omnigen_actor import errors, images
peak_kib = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
data, whole = (open(name, "rb").read() for name in sys.argv[1:])
images.decode(whole, max_pixels=64_000_000)
before_kib, started = peak_kib(), time.monotonic()
try:
    kind = images.decode(data, max_pixels=64_000_000).size
except errors.RowError as error:
    kind = error.kind.value
print(kind, peak_kib() - before_kib, time.monotonic() - started, sep=";")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_gives_an_error_or_a_small_image_within_little_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(BOMBS[name])
    (tmp_path / "whole").write_bytes(png())
    command = [sys.executable, "-c", DECODE, str(tmp_path / "bomb"), str(tmp_path / "whole")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    kind, grown_kib, seconds = done.stdout.strip().split(";")
    assert kind in {"image_too_large", "truncated_image", "(32, 32)"}
    assert int(grown_kib) < 32 << 10
    assert float(seconds) < 10


def test_a_text_of_a_png_is_read_by_no_one() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "hidden")
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "PNG", pnginfo=info)
    assert images.decode(file.getvalue(), max_pixels=256).info == {}


# --- names of rows ---


@pytest.mark.parametrize(
    "row_id", ["../../etc/passwd", "/etc/passwd", "..", "%2e%2e", "~", "a/b", "a\\b", "C:\\x", "ü"]
)
def test_no_id_leads_out_of_the_store(row_id: str) -> None:
    key = store.image_key(row_id, 0, ".png")
    parts = key.split("/")
    assert len(parts) == 3
    assert parts[0] == "images"
    assert ".." not in parts
    assert os.path.normpath(key) == key


@pytest.mark.parametrize("row_id", ["a\0b", "a\nb", "a" * 201])
def test_an_id_that_could_break_a_line_or_a_name_is_bad(row_id: str) -> None:
    rows = pa.Table.from_pylist([{"id": row_id, "task": "text_to_image", "instruction": "x"}])
    (row,) = check_table(rows, GenerationConfig(), "/").to_pylist()
    assert row["error_kind"] == ErrorKind.BAD_ID


# --- secrets ---

SECRETS = ("AKIAEXAMPLEKEY12", "deadbeefdeadbeef", "hunter2")


def test_no_secret_of_a_reference_is_in_records_messages_or_logs(
    web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host = web.url.removeprefix("http://")
    query = "X-Amz-Credential=AKIAEXAMPLEKEY12&X-Amz-Signature=deadbeefdeadbeef"
    names = [
        f"http://user:hunter2@{host}/ok?{query}",
        f"http://user:hunter2@{host}/to?http://10.0.0.1/a&{query}",
        f"http://user:hunter2@127.0.0.1:1/a.png?{query}",
    ]
    rows = [{"id": f"row-{n}", "task": "edit", "instruction": "x", "images": [one]} for n, one in enumerate(names)]
    rows += [{"id": "child", "task": "edit", "instruction": "x", "images": ["row:row-0#1"]}]
    allowed = Allowed((web.url, "http://127.0.0.1:1"))
    planned = refuse_places(check_table(pa.Table.from_pylist(rows), GenerationConfig(), "/"), allowed)
    fetched = FetchImages(CONFIG, 64, allowed)(planned)
    actor = OmniGenActor(FakeEngine, store_root=str(tmp_path), run_id="run")
    records = actor(fetched)
    actor.close()
    told = "\n".join([str(records.to_pylist()), caplog.text])
    assert [secret for secret in SECRETS if secret in told] == []
    good, redirected, absent, child = records.to_pylist()
    assert good["status"] == "ok"
    assert good["images"] == [f"{web.url}/ok"]
    assert good["row_hash"] == planned["row_hash"][0].as_py()
    assert redirected["error_kind"] == ErrorKind.REFUSED
    assert absent["error_kind"] == ErrorKind.FETCH_FAILED
    assert child["images"] == ["row:row-0#1"]


# --- what a run allows ---


def test_a_run_allows_its_manifests_folder_its_root_its_images_and_what_is_named(tmp_path: Path) -> None:
    inputs = InputConfig(image_root=str(tmp_path / "root"), allow=("s3://bucket/x", str(tmp_path / "more")))
    allowed = allowed_of_run(inputs, str(tmp_path / "data"), str(tmp_path / "store"))
    for name in ("data/a.png", "root/a.png", "more/a.png", "store/images/a.png"):
        allowed.check(str(tmp_path / name))
    for name in ("a.png", "store/run.json", "store/plan/x"):
        with pytest.raises(Refused):
            allowed.check(str(tmp_path / name))
    allowed.check("s3://bucket/x/a.png")
    assert pickle.loads(pickle.dumps(allowed)) == allowed


def test_a_manifest_from_a_web_server_may_name_all_of_that_server_and_no_other() -> None:
    allowed = allowed_of_run(InputConfig(), "http://u:hunter2@10.0.0.1:8000/m", "/store")
    assert allowed.is_named(yarl.URL("http://10.0.0.1:8000/other/a.png"))
    assert "hunter2" not in str(allowed)
    with pytest.raises(Refused):
        allowed.check("http://10.0.0.1:9000/a.png")


@pytest.mark.parametrize("place", ["https://user:hunter2@host/", "https://host/a?sig=hunter2", "s3://u:hunter2@host/"])
def test_a_place_with_a_secret_is_no_setting(place: str) -> None:
    with pytest.raises(ConfigError, match="leave out password") as caught:
        allowed_of_run(InputConfig(allow=(place,)), "/data", "/store")
    assert "hunter2" not in str(caught.value)
    assert allow(["abfs://container@account.dfs.core.windows.net/x"]).places


def test_a_refused_row_keeps_its_id_and_its_hash(folder: Path) -> None:
    rows = pa.Table.from_pylist([{"task": "edit", "instruction": "x", "images": ["/etc/a.png"]}])
    (refused,) = CheckRows(GenerationConfig(), str(folder), allowed=Allowed((str(folder),)))(rows).to_pylist()
    (free,) = CheckRows(GenerationConfig(), str(folder), allowed=Allowed(("/",)))(rows).to_pylist()
    assert refused["error_kind"] == ErrorKind.REFUSED
    assert (refused["id"], refused["row_hash"]) == (free["id"], free["row_hash"])
    assert free["error_kind"] is None


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_records_what_it_refused_and_makes_it_once_it_is_allowed(folder: Path, web: Web, local_ray: None) -> None:
    from pipelines.generate import run

    outside = folder.parent / "private"
    named = {
        "inside": "a.png",
        "outside": f"{outside}/a.png",
        "private-host": f"{web.url}/ok?sig=hunter2",
        "child": "row:inside",
    }
    rows = [
        {"id": row_id, "task": "edit", "instruction": "x", "images": [one], "steps": 1} for row_id, one in named.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    output = folder.parent / "store"
    config = RunConfig(model="fake")
    summary = run(str(folder / "m.parquet"), str(output), config)
    assert (summary.num_ok, summary.num_failed) == (2, 2)
    records = {row["id"]: row for row in pq.read_table(output / "records").to_pylist()}
    for name in ("outside", "private-host"):
        assert_refused(records[name], Stage.CHECK)
    assert records["private-host"]["images"] == [f"{web.url}/ok"]
    assert not web.asked
    from pipelines.settings import RUN

    values = {"model": "fake", "inputs.allow": (str(outside), web.url)}
    setting = RUN.settings["retry_failed"]
    values["retry_failed"] = tuple(setting.bare) if setting.repeats else True  # type: ignore[attr-defined]
    assert run(str(folder / "m.parquet"), str(output), RUN.build(values)).num_ok == 4
