"""Train the picturebook: `python -m efface_picturebook.train --out runs/picturebook`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from accelerate import Accelerator

from efface_picturebook import stages


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m efface_picturebook.train", description=__doc__)
    line.add_argument("--stage", choices=(*stages.STAGES, "all"), default="all")
    line.add_argument("--out", type=Path, default=Path("runs/picturebook"), help="checkpoints and results")
    line.add_argument("--steps", type=int, default=4600, help="steps of the U-Net and text encoder")
    line.add_argument("--autoencoder-steps", type=int, default=4000)
    line.add_argument("--detector-steps", type=int, default=1600)
    line.add_argument("--pictures", type=int, default=40_000, help="pictures rendered for training")
    line.add_argument("--batch", type=int, default=64)
    line.add_argument("--rate", type=float, default=1.5e-3, help="learning rate of the U-Net")
    line.add_argument("--seed", type=int, default=1)
    line.add_argument("--device", default="auto", help="auto: whatever accelerate finds; or cpu")
    line.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
    return line


def main(arguments: list[str] | None = None) -> None:
    """Run one stage, or all of them in order."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    accelerator = Accelerator(cpu=options.device == "cpu")
    job = stages.Job(
        out=options.out,
        seed=options.seed,
        pictures=options.pictures,
        batch=options.batch,
        rate=options.rate,
        steps=options.steps,
        autoencoder_steps=options.autoencoder_steps,
        detector_steps=options.detector_steps,
        accelerator=accelerator,
    )
    for stage in stages.STAGES if options.stage == "all" else (options.stage,):
        stages.STAGES[stage](job)


if __name__ == "__main__":
    main()
