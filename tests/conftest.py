"""Servers for all tests, started by the first test that asks."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from tests.servers.ceph import CephServer
from tests.servers.ceph import is_available as ceph_is_available
from tests.servers.http import HttpServer
from tests.servers.moto import MotoServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers import S3Server

pytest_plugins = ["tests.model_fixtures"]

settings.register_profile("project", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("project")

_REGION = "us-east-1"


def pytest_report_header() -> str:
    if ceph_is_available():
        return "s3 server: Ceph radosgw"
    return "s3 server: moto (Ceph's radosgw needs root and `python -m tests.servers.install`)"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A fresh bucket, seen through boto3 and not through the code under test."""

    name: str
    env: dict[str, str]
    client: Any
    checks_secrets: bool

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, data: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.uri}/{key}"

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return sorted(item["Key"] for page in pages for item in page.get("Contents", []))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """Ceph's radosgw, or moto where that can't run."""
    with CephServer() if ceph_is_available() else MotoServer() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A fresh bucket; the environment of this test leads there, as a user's would."""
    import boto3

    env = {
        "AWS_ENDPOINT_URL": s3_server.endpoint_url,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_DEFAULT_REGION": _REGION,
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    _reach_loopback(monkeypatch)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    _forget_filesystems()
    client = boto3.client("s3")
    bucket = Bucket(
        name=f"test-{secrets.token_hex(6)}",
        env=env,
        client=client,
        checks_secrets=isinstance(s3_server, CephServer),
    )
    client.create_bucket(Bucket=bucket.name)
    yield bucket
    client.close()
    _forget_filesystems()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One local Ray for all runs of a file, with room for two actors."""
    import ray

    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture
def http_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    """A web server over `tmp_path`; see `tests.servers.http` for the paths that misbehave."""
    _reach_loopback(monkeypatch)
    with HttpServer(tmp_path) as server:
        yield server


def _reach_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of this machine is not for its own servers."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost"))))


def _forget_filesystems() -> None:
    """fsspec keeps clients, and with them the credentials of an earlier environment."""
    if "s3fs" in sys.modules:
        sys.modules["s3fs"].S3FileSystem.clear_instance_cache()
