"""A real S3 server: Ceph's radosgw over one monitor and one OSD, as root on Debian, without systemd.

Its settings are for tests: one copy of each object, no authentication inside the cluster, everything on loopback.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
import uuid
from typing import TYPE_CHECKING, Self

from tests.servers import ServerFailed, free_port, listens, new_folder, start_process, stop_process, tail, wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

_BINARIES = ("ceph", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_COMMAND_TIMEOUT_S = 60
_CONFIG = """
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{mon_port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
ms_bind_msgr2 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {folder}
admin_socket =
pid_file =
crash_dir = {folder}
log_file = {folder}/$name.log
log_to_file = true
log_to_stderr = false
err_to_stderr = true
debug_ms = 0
mon_data = {folder}/mon
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mon_cluster_log_file = {folder}/cluster.log
mon_allow_pool_size_one = true
mon_allow_pool_delete = true
mon_warn_on_pool_no_redundancy = false
osd_data = {folder}/osd
osd_objectstore = bluestore
osd_crush_chooseleaf_type = 0
osd_crush_update_on_start = false
osd_class_update_on_start = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_memory_target = 939524096
bluestore_block_create = true
bluestore_block_size = 8589934592
bluestore_fsck_on_mount = false
bluestore_fsck_on_mkfs = false
rgw_frontends = beast endpoint=127.0.0.1:{rgw_port} tcp_nodelay=1
rgw_data = {folder}/rgw
rgw_enable_usage_log = false
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_run_sync_thread = false
"""


def is_available() -> bool:
    """Whether the Ceph packages are here and this process may run them."""
    return os.geteuid() == 0 and all(shutil.which(name) for name in _BINARIES)


class CephServer:
    """radosgw at `endpoint_url` for one user. A context manager; `start` takes some ten seconds."""

    def __init__(self) -> None:
        self.access_key = secrets.token_hex(10).upper()
        self.secret_key = secrets.token_hex(20)
        self._port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{self._port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Raises ServerFailed with the end of the log of what failed."""
        self._folder = folder = new_folder()
        try:
            fsid = self._configure(folder)
            self._start_monitor(folder, fsid)
            self._start_osd(folder)
            self._create_user(folder)
            self._start_gateway(folder)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the daemons and remove their data."""
        while self._processes:
            stop_process(self._processes.pop())
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _configure(self, folder: Path) -> str:
        self._mon_port = free_port()
        fsid = str(uuid.uuid4())
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        config = _CONFIG.format(fsid=fsid, mon_port=self._mon_port, rgw_port=self._port, folder=folder)
        (folder / "ceph.conf").write_text(config)
        return fsid

    def _start_monitor(self, folder: Path, fsid: str) -> None:
        monmap = str(folder / "monmap")
        address = f"[v1:127.0.0.1:{self._mon_port}]"
        self._run(folder, "monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run(folder, "ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        log = folder / "mon.a.log"
        daemon = self._daemon(folder, "ceph-mon", "-i", "a")
        wait_until(lambda: listens(self._mon_port), "ceph-mon", daemon, log)

    def _start_osd(self, folder: Path) -> None:
        osd_uuid = str(uuid.uuid4())
        self._run(folder, "ceph", "osd", "new", osd_uuid)
        # The OSD would do it by itself, and at times before it knows the cluster's id; then it dies.
        self._run(folder, "ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=tests")
        self._run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
        self._daemon(folder, "ceph-osd", "-i", "0")

    def _create_user(self, folder: Path) -> None:
        """Waits for the OSD by itself: its first write is in need of one."""
        keys = ("--access-key", self.access_key, "--secret-key", self.secret_key)
        self._run(folder, "radosgw-admin", "user", "create", "--uid", "tests", "--display-name", "tests", *keys)

    def _start_gateway(self, folder: Path) -> None:
        daemon = self._daemon(folder, "radosgw", "-n", "client.rgw")
        wait_until(lambda: listens(self._port), "radosgw", daemon, folder / "client.rgw.log")

    def _daemon(self, folder: Path, *command: str) -> subprocess.Popen[bytes]:
        process = start_process([*command, "-f", *_config_option(folder)], folder / f"{command[0]}.out")
        self._processes.append(process)
        return process

    def _run(self, folder: Path, *command: str) -> None:
        """A command to its end; one that waits for a dead daemon would wait for ever."""
        name, output = " ".join(command[:3]), folder / f"{command[0]}.out"
        process = start_process([*command, *_config_option(folder)], output)
        deadline = time.monotonic() + _COMMAND_TIMEOUT_S
        while process.poll() is None:
            dead = [daemon for daemon in self._processes if daemon.poll() is not None]
            if dead or time.monotonic() > deadline:
                stop_process(process)
                reason = "a daemon that it needs died" if dead else f"it hung for {_COMMAND_TIMEOUT_S} s"
                raise ServerFailed(f"{name}: {reason}\n{_logs(folder)}")
            time.sleep(0.02)
        if process.returncode:
            raise ServerFailed(f"{name} ended with status {process.returncode}\n{_logs(folder)}")


def _config_option(folder: Path) -> list[str]:
    return ["-c", str(folder / "ceph.conf")]


def _logs(folder: Path) -> str:
    return "\n".join(tail(log) for log in sorted([*folder.glob("*.log"), *folder.glob("*.out")]))
