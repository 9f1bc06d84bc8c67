"""Which seeds a command draws with."""

from __future__ import annotations

from collections.abc import Sequence

import click

from efface.cli.options import Seed
from efface.method import SEEDS

seed_option = click.option("--seed", "seeds", type=Seed(), multiple=True, help="Seed of a picture; may be repeated.")
seeds_option = click.option(
    "--seeds", "count", type=click.IntRange(1), help="This many seeds, counted up from --seed.  [4 from 0]"
)


def chosen(seeds: Sequence[int], count: int | None, usual: int = 4) -> tuple[int, ...]:
    """The seeds that `--seed` and `--seeds` ask for; without either the first `usual` ones."""
    if seeds and count is None:
        return tuple(dict.fromkeys(seeds))
    if len(seeds) > 1:
        raise click.UsageError("Give --seed several times, or --seeds with a number, not both")
    first = seeds[0] if seeds else 0
    if first + (count or usual) - 1 not in SEEDS:
        raise click.UsageError(f"--seed {first} with --seeds {count} goes past the largest seed, {SEEDS[-1]}")
    return tuple(range(first, first + (count or usual)))
