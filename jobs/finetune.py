"""Fine-tunes a checkpoint: ``python -m jobs.finetune DATA OUTPUT [options]``. Knows nothing of how training works."""

from __future__ import annotations

import sys

from jobs import exit_codes
from jobs.options import parse
from omnigen_actor import uri
from pipelines.finetune.config import FinetuneConfig
from pipelines.finetune.run import Finetuned, finetune
from pipelines.settings import Surface

SURFACE = Surface(FinetuneConfig)
PLACES = {
    "data": "what to learn: a run store, or a manifest whose rows name their output_image; path or URI",
    "output": "folder or URI for the result; an earlier training there is continued",
}
DESCRIPTION = "Fine-tune a model on rows and their images. Run it again to go on with a training that was cut off."


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _finetune(sys.argv[1:] if argv is None else argv))


def _finetune(argv: list[str]) -> int:
    arguments = parse(argv, SURFACE, PLACES, prog="python -m jobs.finetune", description=DESCRIPTION)
    print("\n".join(account(finetune(arguments.places["data"], arguments.places["output"], arguments.config))))
    return exit_codes.OK


def account(done: Finetuned) -> list[str]:
    """What came of a training, line by line."""
    failed = ", ".join(f"{kind} {number}" for kind, number in done.failed.items())
    lines = [f"examples {done.num_train} to train on, {done.num_held_out} held out" + (f"; {failed}" if failed else "")]
    lines += [f"step {entry['step']}: {_losses(entry)}" for entry in (done.log[:1] + done.log[-1:])]
    return [*lines, f"result {uri.redact(done.result_uri)}"]


def _losses(entry: dict[str, float]) -> str:
    told = {"loss": entry.get("loss"), "held out": entry.get("held_out_loss")}
    return ", ".join(f"{name} {value:.4f}" for name, value in told.items() if value is not None)


if __name__ == "__main__":
    sys.exit(main())
