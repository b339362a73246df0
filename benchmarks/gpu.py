"""The full-size model on a GPU: speed against its floor and against diffusers, exactness, and what less memory costs.

Weights are random (3.88 B parameters) and made on the device; nothing is downloaded. Each section prints a table and
is saved as it grows, so a run that is cut short leaves what it had. A line that can't be measured says why, and the
others go on. ``--dry`` runs the same code on a CPU with a tiny model, in seconds: its numbers mean nothing.

The exit code is 1 when the engine is further from the fp32 reference than parity allows, or parity was not measured.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import gpu_exactness, gpu_speed, measure, report
from benchmarks.floors import table
from benchmarks.full_size import Model
from benchmarks.gpu_bench import Bench, Cell, Section, Values

SECTIONS: dict[str, Section] = {**gpu_speed.SECTIONS, **gpu_exactness.SECTIONS}
ORDER = ("shapes", "approximations", "parity", "waves", "memory", "attention")
SIDES = {False: (512, 1024), True: (64, 96)}

TARGETS = (
    ("text → 1024², engine", "of_matmul_rate", 0.65),
    ("1 × 1024² → 1024², engine", "of_matmul_rate", 0.65),
    ("3 × 1024² → 1024², engine", "of_matmul_rate", 0.65),
    ("text → 512², engine", "of_matmul_rate", 0.55),
    ("1 × 512² → 512², engine", "of_matmul_rate", 0.55),
    ("3 × 512² → 512², engine", "of_matmul_rate", 0.55),
    ("text → 512², diffusers", "speedup", 1.5),
    ("text → 1024², diffusers", "speedup", 1.5),
    ("1 × 1024² → 1024², diffusers", "speedup", 3.0),
)
"""(line, value, at least): the best line of the engine, and diffusers' best line, must reach it."""

WIDTH = 46


@dataclass(slots=True)
class Run:
    """Results as they come, the file that they go to, and when to stop."""

    result: Values
    output: Path | None
    deadline: float

    def section(self, name: str, bench: Bench) -> None:
        """Print and keep one section; nothing that fails in it stops the others."""
        section = SECTIONS[name]
        found: dict[str, Values] = self.result["sections"].setdefault(name, {})
        titles = "".join(f"{column.title:>{column.width}}" for column in section.columns)
        print(f"\n{name}\n{section.about}\n{'':<{WIDTH}}{titles}", flush=True)
        try:
            with closing(section.cells(bench)) as cells:
                for cell in cells:
                    self._keep(found, cell.name, self._measure(cell, bench.device), section)
        except Exception as error:  # of what the whole section needs
            self._keep(found, "section", failure(error), section)
        measure.free_memory(bench.device)

    def _keep(self, found: dict[str, Values], name: str, values: Values, section: Section) -> None:
        found[name] = values
        print(line(name, values, section), flush=True)
        report.write(self.output, self.result)

    def _measure(self, cell: Cell, device: torch.device) -> Values:
        if time.monotonic() > self.deadline:
            return {"error": "not measured: the time is over (--minutes)"}
        try:
            measure.free_memory(device)
            return cell.run()
        except Exception as error:
            return failure(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen sections. Returns the exit code."""
    options = parse_options(arguments)
    device = torch.device("cpu") if options.dry else torch.device("cuda", 0)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here: --dry runs the same code on a CPU", file=sys.stderr)
        return 2
    if options.dry:
        torch.set_num_threads(1)  # a tiny model gains nothing from more, and they would wait for each other
    run = Run({"steps": options.steps, "dry": options.dry}, options.output, time.monotonic() + 60 * options.minutes)
    bench = make_bench(options, device, run.result)
    run.result["sections"] = {}
    for name in options.sections:
        run.section(name, bench)
    run.result["targets"] = targets(run.result["sections"].get("shapes", {}))
    report.save(options.output, run.result)
    return exit_code(run.result["sections"])


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sections", type=names(ORDER), default=ORDER, help=f"default: {','.join(ORDER)}")
    parser.add_argument("--rows", help="shapes by their short names (text-512,1x512,3x1024,…); default: all six")
    parser.add_argument("--steps", type=int, help="denoising steps of an image; default 50, dry 4")
    parser.add_argument("--diffusers-steps", type=int, help="steps of diffusers that are timed; default 3, dry 1")
    parser.add_argument("--waves", type=int, help="waves in a timed run of the engine; default 2, dry 1")
    parser.add_argument("--minutes", type=float, default=8.5, help="begin no new line after this")
    parser.add_argument("--compiler", help="backend of torch.compile for diffusers; default inductor, dry eager")
    parser.add_argument("--output", type=Path, help="JSON file, written as results come")
    parser.add_argument("--dry", action="store_true", help="a tiny model on the CPU")
    options = parser.parse_args(arguments)
    dry = {"steps": 4, "diffusers_steps": 1, "waves": 1, "compiler": "eager"}
    full = {"steps": 50, "diffusers_steps": 3, "waves": 2, "compiler": "inductor"}
    for name, value in (dry if options.dry else full).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    known = [shape.key for shape in table(*SIDES[options.dry])]
    try:
        options.rows = names(known)(options.rows) if options.rows else tuple(known)
    except argparse.ArgumentTypeError as error:
        parser.error(f"--rows: {error}")
    return options


def make_bench(options: argparse.Namespace, device: torch.device, result: Values) -> Bench:
    """The model and the rates, which ``result`` is told of."""
    dtype = torch.float32 if options.dry else torch.bfloat16
    model = Model.random(device, dtype, tiny=options.dry)
    rates = measure.rates(device, dtype, model.config)
    about = {"num_parameters": model.num_parameters, "dtype": str(dtype).removeprefix("torch."), "rates": rates}
    result.update(about, model=model.config)
    machine = report.provenance().get("gpu") or report.provenance()["cpu"]
    print(f"{machine}, torch {torch.__version__}, {about['dtype']}")
    print(f"{model.num_parameters / 1e9:.4g} B parameters, random weights, {options.steps} steps")
    print(f"matmul rate {rates['matmul_tflops']:.1f} TFLOP/s; at the model's shapes, by packed tokens:")
    for tokens, each in rates["shapes_tflops"].items():
        print(f"  {tokens:>6}  " + "  ".join(f"{name} {rate:.1f}" for name, rate in each.items()))
    small, large = SIDES[options.dry]
    return Bench(
        model=model,
        shapes=tuple(shape for shape in table(small, large) if shape.key in options.rows),
        rate=rates["matmul_tflops"] * 1e12,
        steps=options.steps,
        diffusers_steps=options.diffusers_steps,
        waves=options.waves,
        few=2,
        many=8 if not options.dry else 22,
        small_side=small,
        large_side=large,
        compiler=options.compiler,
    )


def line(name: str, values: Values, section: Section) -> str:
    """One line of a section's table."""
    if "error" in values:
        return f"{name:<{WIDTH}}  {values['error']}"
    written = ((column.form(values[column.key]) if column.key in values else "–", column) for column in section.columns)
    return f"{name:<{WIDTH}}" + "".join(f"{text:>{column.width}}" for text, column in written)


def failure(error: Exception) -> Values:
    """What is kept of an error; where it came from goes to stderr."""
    traceback.print_exception(error)
    first = (str(error).strip() or "no message").splitlines()[0]
    return {"error": f"{type(error).__name__}: {first}"[:300]}


def targets(lines: dict[str, Values]) -> dict[str, Values]:
    """What was to be reached, and what was: the engine at its best against diffusers at its best."""
    found: dict[str, Values] = {}
    for prefix, key, wanted in TARGETS:
        values = [values[key] for name, values in lines.items() if name.startswith(prefix) and key in values]
        if values:
            best = min(values) if key == "speedup" else max(values)
            found[f"{prefix}, {key}"] = {"at_least": wanted, "measured": best, "met": best >= wanted}
            print(f"target: {prefix}, {key} ≥ {wanted}: {best:.2f} {'met' if best >= wanted else 'MISSED'}")
    return found


def exit_code(sections: dict[str, dict[str, Values]]) -> int:
    """1 when parity was asked for and some line of it does not hold."""
    lines = sections.get("parity")
    holds = lines is None or (bool(lines) and all(values.get("holds", False) for values in lines.values()))
    if not holds:
        print("parity does not hold", file=sys.stderr)
    return 0 if holds else 1


def names(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Argument type: comma-separated names out of a list."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(name.strip() for name in text.split(",") if name.strip())
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or repr(text)}: known are {', '.join(known)}")
        return chosen

    return parse


if __name__ == "__main__":
    raise SystemExit(main())
