"""The mini model, part by part: trains its autoencoder on the drawn world, and writes the checkpoint to train further.

python -m jobs.mini_model OUTPUT [--autoencoder-steps 9000] [--size 64] [--preset small] [--seed 0]

Writes OUTPUT/vae, and OUTPUT/untrained, a checkpoint that ``jobs.finetune`` trains. Cut off, it goes on.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from jobs import exit_codes
from jobs.options import Parser
from pipelines.world.presets import PRESETS

DESCRIPTION = "Train the autoencoder of the mini model, and write the checkpoint that jobs.finetune trains."
_SEED, _SEED_HELD_OUT = 1, 99


def main(argv: list[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return exit_codes.exit_code_of(lambda: _make(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: list[str]) -> Namespace:
    parser = Parser(prog="python -m jobs.mini_model", description=DESCRIPTION)
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="folder; an earlier training there is continued")
    parser.add_argument("--autoencoder-steps", type=int, default=9000, metavar="INTEGER", help="steps (9000)")
    parser.add_argument("--preset", default="small", choices=tuple(PRESETS), help="which world (small)")
    parser.add_argument("--size", type=int, default=64, metavar="INTEGER", help="side of a picture: 64 or 128")
    parser.add_argument("--hidden-size", type=int, default=192, metavar="INTEGER", help="of the transformer (192)")
    parser.add_argument("--layers", type=int, default=6, metavar="INTEGER", help="of the transformer (6)")
    parser.add_argument("--seed", type=int, default=0, metavar="INTEGER", help="of all weights (0)")
    parser.add_argument("--cpu-threads", type=int, default=1, metavar="INTEGER", help="threads (1)")
    return parser.parse(argv)


def _make(arguments: Namespace) -> int:
    from omnigen_actor.training.mini import write_untrained
    from pipelines.world.captions import vocabulary

    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    if not (output / "vae" / "diffusion_pytorch_model.safetensors").is_file():
        _train_autoencoder(arguments)
    write_untrained(
        output / "untrained",
        output / "vae",
        vocabulary(PRESETS[arguments.preset]),
        hidden_size=arguments.hidden_size,
        num_layers=arguments.layers,
        seed=arguments.seed,
    )
    print(f"autoencoder {output / 'vae'}\ncheckpoint {output / 'untrained'}")
    return exit_codes.OK


def _train_autoencoder(arguments: Namespace) -> None:
    from omnigen_actor.training.autoencoder import AutoencoderRecipe
    from omnigen_actor.training.autoencoder_run import train_autoencoder
    from pipelines.world.album import pictures

    world = replace(PRESETS[arguments.preset], size=arguments.size)
    train_autoencoder(
        arguments.output,
        AutoencoderRecipe(num_steps=arguments.autoencoder_steps, seed=arguments.seed),
        lambda first, count: pictures(world, _SEED, first, count),
        held_out=pictures(world, _SEED_HELD_OUT, 0, 64),
        whitened_on=pictures(world, _SEED, 0, 2000),
        cpu_threads=arguments.cpu_threads,
        on_saved=lambda step, psnr_db: print(f"step {step}: {psnr_db:.1f} dB", flush=True),
    )


if __name__ == "__main__":
    sys.exit(main())
