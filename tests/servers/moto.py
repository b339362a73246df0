"""An S3 server in memory, for machines without Ceph: moto in a process of its own. It accepts any secret."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Self

from tests.servers import free_port, listens, new_folder, start_process, stop_process, wait_until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


class MotoServer:
    """moto's server at `endpoint_url`. A context manager."""

    def __init__(self) -> None:
        self.access_key = "testing"
        self.secret_key = "testing"
        self._port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Raises ServerFailed with the end of the server's log."""
        self._folder = new_folder()
        log = self._folder / "moto.log"
        command = (sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self._port))
        self._process = start_process(command, log)
        try:
            wait_until(lambda: listens(self._port), "moto", self._process, log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the server; its objects are gone with it."""
        if self._process is not None:
            stop_process(self._process)
            self._process = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
