"""Real servers for tests: on free ports of 127.0.0.1, in temporary folders, gone when the test process is gone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FOLDER_PREFIX = "omnigen-test-"
# A program, not a preexec_fn, which is unsafe in a process that has threads. 1 is PR_SET_PDEATHSIG, 9 is SIGKILL.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


class S3Server(Protocol):
    """What a test needs to know of an S3 server."""

    endpoint_url: str
    access_key: str
    secret_key: str

    def start(self) -> None: ...

    def stop(self) -> None: ...


class ServerFailed(RuntimeError):  # noqa: N818
    """A server did not come up, or died. The message ends with the tail of its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_folder() -> Path:
    """A folder for one server. Removes those of test processes that were killed."""
    for old in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        pid = old.name.removeprefix(_FOLDER_PREFIX).partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER_PREFIX}{os.getpid()}-"))


def start_process(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a daemon that the kernel kills when the calling thread ends, however it ends (Linux)."""
    if sys.platform == "linux":
        command = (sys.executable, "-IS", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command)
    with log.open("ab") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """The data are thrown away: no need to ask politely."""
    process.kill()
    process.wait()


def wait_until(
    is_ready: Callable[[], bool], what: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 60
) -> None:
    """Raises ServerFailed, with the end of `log`, when `process` dies or is not ready in time."""
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        if process.poll() is not None:
            raise ServerFailed(f"{what} ended with status {process.returncode}\n{tail(log)}")
        if time.monotonic() > deadline:
            raise ServerFailed(f"{what} was not ready after {timeout_s:.0f} s\n{tail(log)}")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether 127.0.0.1 accepts connections at `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def tail(log: Path, num_lines: int = 20) -> str:
    """The last lines of a log file."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return "\n".join([f"--- {log.name}", *text.splitlines()[-num_lines:]])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
