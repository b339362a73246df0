"""A Ray cluster on this machine whose processes can be killed: a head, and nodes with a made-up GPU each.

A victim is found among the children of the cluster's own raylets, by the title that Ray gives its workers. Knows no
stores and no rows.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

ACTOR, WRITER, READER, NODE, DRIVER = "actor", "writer", "reader", "node", "driver"

TITLES = {ACTOR: "OmniGenActor", WRITER: "WriteRecords", READER: "FetchImages"}
"""What stands in the title of a worker of each kind while it has work."""

_SYSTEM = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 8}
"""A lost node is noticed within ten seconds, not half a minute."""

_SEARCH_S = 3.0


class DoomedCluster:
    """Head and ``num_nodes`` nodes of one GPU each. A context manager."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        os.environ["RAY_AUTH_MODE"] = "disabled"
        self._cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "_system_config": _SYSTEM}
        )
        self._nodes: list[Any] = [self._add() for _ in range(num_nodes)]
        self.address: str = self._cluster.address

    def __enter__(self) -> DoomedCluster:
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.shutdown()

    def kill(self, kind: str, rng: Random) -> bool:
        """Kill a worker or a node with SIGKILL; whether there was one."""
        return self._kill_node(rng) if kind == NODE else self._kill_worker(TITLES[kind], rng)

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, num_gpus=1)

    def revive(self) -> int:
        """Put new nodes in the place of those that died without a kill of ours; how many there were.

        On a busy machine a raylet may miss its health checks and end itself. A cluster of machines gets a new one then;
        here nobody else would start it, and a run would wait for a GPU for ever.
        """
        gone = [node for node in self._nodes if not _is_alive(node)]
        for node in gone:
            self._replace(node)
        return len(gone)

    def _kill_node(self, rng: Random) -> bool:
        self._replace(self._nodes[rng.randrange(len(self._nodes))])
        return True

    def _replace(self, node: Any) -> None:
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._add())

    def _kill_worker(self, title: str, rng: Random) -> bool:
        """A task may last milliseconds: look for one again and again, for a while."""
        until = time.monotonic() + _SEARCH_S
        while time.monotonic() < until:
            found = [pid for pid, command in self._workers() if title in command]
            if found:
                return _kill(rng.choice(found))
            time.sleep(0.002)
        return False

    def _workers(self) -> Iterator[tuple[int, str]]:
        """(process id, title) of all workers."""
        raylets = {
            info.process.pid
            for node in [self._cluster.head_node, *self._nodes]
            for info in node.all_processes.get("raylet", [])
        }
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent in raylets:
                    yield int(folder.name), (folder / "cmdline").read_text()
            except (OSError, ValueError):  # gone by now
                continue


def _is_alive(node: Any) -> bool:
    return all(info.process.poll() is None for info in node.all_processes.get("raylet", []))


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
