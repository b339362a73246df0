"""Measures what a model can do in the drawn world: ``python -m jobs.evaluate MODEL OUTPUT [options]``.

Makes the pictures through the ordinary pipeline, so that a run that was cut off goes on. ``--gates FILE`` compares.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from jobs import exit_codes
from jobs.options import Parser
from omnigen_actor import uri
from omnigen_actor.errors import ConfigError, OutputError
from pipelines.config import EngineConfig, GenerationConfig, RunConfig, WorkerConfig
from pipelines.locations import locate
from pipelines.world.evaluation import GENERATED, Gates, Questions, lines, read_gates, score_all
from pipelines.world.presets import PRESETS
from pipelines.world.samples import TASKS_OF_THE_WORLD, check_tasks
from pipelines.world.shapes import Array
from pipelines.world.source import encode_picture

DESCRIPTION = "Measure what a model can do in the drawn world, against exact truth and with controls."
METRICS = (
    "place_colour", "shape", "size", "background", "edited", "kept_psnr_db", "edges_f1", "depth_error", "pose_error_px",
    "segmentation_iou", "relation", "gain_db", "psnr_db",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _evaluate(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: list[str]) -> Namespace:
    parser = Parser(prog="python -m jobs.evaluate", description=DESCRIPTION)
    parser.add_argument("model", metavar="MODEL", help="hub id, folder or URI of a checkpoint, or mini")
    parser.add_argument("output", metavar="OUTPUT", help="folder or URI for the pictures and evaluation.json")
    parser.add_argument("--samples", type=int, default=100, metavar="INTEGER", help="samples of each task (100)")
    parser.add_argument("--seed", type=int, default=1_000_000, metavar="INTEGER", help="apart from any training's")
    parser.add_argument("--size", type=int, default=64, metavar="INTEGER", help="side of a picture: 64 or 128")
    parser.add_argument("--preset", default="small", choices=tuple(PRESETS), help="which world (small)")
    parser.add_argument("--tasks", default="", metavar="A,B", help="tasks; default: all of the world")
    parser.add_argument("--steps", type=int, default=20, metavar="INTEGER", help="denoising steps (20)")
    parser.add_argument("--guidance-scale", type=float, default=2.0, metavar="NUMBER", help="text guidance (2)")
    parser.add_argument("--img-guidance-scale", type=float, default=1.5, metavar="NUMBER", help="image guidance (1.5)")
    parser.add_argument("--only-right", action="store_true", help="without the controls that take generation")
    parser.add_argument("--num-actors", type=int, default=None, metavar="INTEGER", help="size of the pool")
    parser.add_argument(
        "--rows-per-wave",
        type=int,
        default=None,
        metavar="INTEGER",
        help="rows that step together; default: as many as fit, on a CPU 1",
    )
    parser.add_argument("--gates", metavar="FILE", help="JSON of what must be reached; exit code 1 where it is not")
    return parser.parse(argv)


def _evaluate(arguments: Namespace) -> int:
    tasks = tuple(filter(None, arguments.tasks.split(","))) or tuple(TASKS_OF_THE_WORLD)
    check_tasks(tasks)
    questions = Questions(
        world=replace(PRESETS[arguments.preset], size=arguments.size),
        tasks=tasks,
        num_samples=arguments.samples,
        seed=arguments.seed,
        variants=GENERATED[:1] if arguments.only_right else GENERATED,
    )
    gates = _gates(arguments.gates, arguments.model)
    output = locate(arguments.output, OutputError, "output ")
    model_sha256 = _generate(questions, output, arguments)
    table = score_all(questions, uri.join(output, "store"), _ceilings(questions, arguments.model))
    told = {"model_sha256": model_sha256, "settings": _settings(arguments), "tasks": table}
    uri.write_bytes(uri.join(output, "evaluation.json"), (json.dumps(told, indent=1) + "\n").encode())
    print("\n".join(lines(table, METRICS)))
    missed = [gate for gate in gates.gates if not gate.is_met(table)]
    for gate in missed:
        print(f"missed: {gate.complaint(table)}")
    return exit_codes.ROWS_FAILED if missed else exit_codes.OK


def _gates(path: str | None, model: str) -> Gates:
    """The gates of a file, which may be for one model alone. Raises ConfigError."""
    if path is None:
        return Gates()
    from omnigen_actor.engines import verify_model

    try:
        gates = read_gates(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"gates {path}: {error}") from None
    if gates.model_sha256 is not None and gates.model_sha256 != (found := verify_model(model)):
        raise ConfigError(
            f"gates {path} are for the model of sha256 {gates.model_sha256}, and {uri.redact(model)!r} has {found}: "
            "measure it without gates, or write gates for it"
        )
    return gates


def _settings(arguments: Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(arguments).items() if name not in ("output", "gates", "model")}


def _generate(questions: Questions, output: str, arguments: Namespace) -> str:
    """Make all pictures; the sha256 of the model."""
    from omnigen_actor.engines import verify_model
    from pipelines.generate import run

    for row in questions.rows():
        for name, picture in list(row.pictures())[:-1]:
            uri.write_bytes(uri.join(output, name), encode_picture(picture))
    text = "".join(json.dumps(row) + "\n" for row in questions.manifest())
    uri.write_bytes(uri.join(output, "manifest.jsonl"), text.encode())
    generation = GenerationConfig(
        width=arguments.size,
        height=arguments.size,
        steps=arguments.steps,
        guidance_scale=arguments.guidance_scale,
        img_guidance_scale=arguments.img_guidance_scale,
        max_input_image_size=arguments.size,
    )
    config = RunConfig(
        model=arguments.model,
        generation=generation,
        workers=WorkerConfig(batch_size=32, num_actors=arguments.num_actors),
        engine=EngineConfig(rows_per_wave=arguments.rows_per_wave),
    )
    run(uri.join(output, "manifest.jsonl"), uri.join(output, "store"), config)
    return verify_model(arguments.model)


def _ceilings(questions: Questions, model: str) -> dict[str, Array]:
    from omnigen_actor.training.ceiling import Ceiling

    ceiling = Ceiling(model, device="cpu")
    return {row.id: ceiling(row.sample.output) for row in questions.rows()}


if __name__ == "__main__":
    sys.exit(main())
