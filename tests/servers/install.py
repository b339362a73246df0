"""`python -m tests.servers.install`: Ceph's packages where this is root on Debian, or a notice that moto stands in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from tests.servers import ceph

_PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-mgr", "ceph-common")
_INSTALL = ("apt-get", "install", "-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", *_PACKAGES)


def main() -> int:
    """Never an error: without Ceph the tests still run."""
    if ceph.is_available():
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return _notice("this is not root on Debian")
    print("installing the S3 server of the tests (Ceph's radosgw, Debian's packages)", file=sys.stderr)
    if not _install() and not (_apt("apt-get", "update", "-qq") and _install()):
        return _notice("apt-get could not install Ceph")
    return 0


def _install() -> bool:
    return _apt(*_INSTALL) and ceph.is_available()


def _apt(*command: str) -> bool:
    """The output is shown only where it ends badly."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with tempfile.TemporaryFile("w+") as log:
        is_ok = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode == 0
        if not is_ok:
            log.seek(0)
            print(*log.read().splitlines()[-5:], sep="\n", file=sys.stderr)
        return is_ok


def _notice(reason: str) -> int:
    print(f"notice: {reason}; the S3 tests use a moto server instead", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
