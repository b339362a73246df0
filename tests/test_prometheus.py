"""What Prometheus would read from a node while a run goes on."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.config import GenerationConfig, RunConfig, WorkerConfig
from pipelines.generate import run
from pipelines.summary import Tally

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_ROWS = 12
CONFIG = RunConfig(
    model="fake:0.5",
    generation=GenerationConfig(width=32, height=32, steps=5),
    workers=WorkerConfig(num_actors=1, batch_size=1),
)


@pytest.fixture(scope="module")
def quick_ray() -> Iterator[str]:
    """A local Ray that reports its metrics twice a second instead of every ten; the address of its metrics."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    (node,) = ray.nodes()
    yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


def scrape(address: str) -> dict[str, float]:
    """The values of this project by name, with the phase where there is one."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if match := re.fullmatch(r"ray_(omnigen_\w+)\{(.*)\} (\S+)", line):
            phase = re.search(r'phase="(\w+)"', match[2])
            if 'le="' not in match[2]:
                found[match[1] + (f" {phase[1]}" if phase else "")] = float(match[3])
    return found


def test_what_waves_took_can_be_read_from_the_node_while_the_run_goes_on(quick_ray: str, tmp_path: Path) -> None:
    rows = [{"id": f"row-{i}", "task": "text_to_image", "instruction": "a boat"} for i in range(NUM_ROWS)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[dict[str, float]] = []

    def look(_: Tally) -> None:
        seen.append(scrape(quick_ray))

    summary = run(str(tmp_path / "rows.jsonl"), str(tmp_path / "out"), CONFIG, on_progress=look)
    assert summary.engine is not None
    assert summary.engine.num_waves == NUM_ROWS
    last = seen[-1]
    waves = last["omnigen_waves_total"]
    assert 1 <= waves <= NUM_ROWS
    assert last["omnigen_steps_total"] == 5 * waves
    assert last["omnigen_tokens_total step"] == last["omnigen_capacity_total"] == 4 * 5 * waves
    assert last["omnigen_seconds_total step"] >= 0.5 * waves
    assert last["omnigen_wave_occupancy_count"] == waves
    assert "omnigen_tokens_total prefill" not in last  # the fake engine has none
