"""ScoreConfig: every setting of a scoring, with its default, limits and help text. Knows no argv and no stores."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.config import Checked, InputConfig, WorkerConfig, option


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWorkers(Checked):
    """The pool of workers, each with its own scorers."""

    num_actors: int | None = option(
        None, "workers; default: one per GPU, and on CPUs half as many as there are", at_least=1
    )
    gpus_per_actor: float | None = option(
        None, "GPUs of one worker of a scorer with a model; default: what the scorer says", at_least=0
    )
    device: str = option(
        "auto", "where models compute: auto (cuda where there is one), cuda or cpu", choices=("auto", "cuda", "cpu")
    )
    rows_per_file: int = option(
        32, "images that a worker scores and writes at a time; also what memory hangs on", at_least=1, at_most=4096
    )

    def pool(self, *, num_gpus: float, has_gpus: bool, num_cpus: float) -> WorkerConfig:
        """As the settings of a pool in a cluster; ``num_gpus`` is what the scorer wants for each worker."""
        wanted = num_gpus if self.gpus_per_actor is None else self.gpus_per_actor
        on_cpu = not num_gpus or self.device == "cpu" or (self.device == "auto" and not has_gpus)
        if not on_cpu:
            return WorkerConfig(
                num_actors=self.num_actors, gpus_per_actor=wanted, device="cuda", batch_size=self.rows_per_file
            )
        num_actors = self.num_actors or max(1, int(num_cpus) // 2)  # the others read and decode
        return WorkerConfig(num_actors=num_actors, gpus_per_actor=0, device="cpu", batch_size=self.rows_per_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreConfig(Checked):
    """Everything that a scoring needs to know."""

    scorers: tuple[str, ...] = option(
        (), "scorers with commas between them, such as statistics,phash,clip:FOLDER; or the option once for each"
    )
    inputs: InputConfig = field(default_factory=InputConfig)
    workers: ScoreWorkers = field(default_factory=ScoreWorkers)
    max_failed: float = option(
        0.0,
        "largest share of images that could not be scored, in percent, that still exits with 0",
        at_least=0,
        at_most=100,
    )
    retry_errors: bool = option(False, "score again what could not be scored in an earlier run")
    replace: bool = option(False, "remove these scorers' scores first, whatever they were made with")
    take_over: bool = option(False, "go on although another run says that it writes these scores")
    store_timeout_s: float = option(
        300.0, "seconds for which a store that takes no scores is tried again before the run stops", above=0
    )
    ray_address: str | None = option(None, "cluster to join; default: RAY_ADDRESS, else a local one")
    progress_every_s: float = option(
        1.0, "seconds between two progress lines on a terminal; 30 times that elsewhere", at_least=0
    )

    @property
    def names(self) -> list[str]:
        """What was asked for, one by one."""
        return [name.strip() for text in self.scorers for name in text.split(",") if name.strip()]
