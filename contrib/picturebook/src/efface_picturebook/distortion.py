"""What happens to pictures between the renderer and a diffusion model's imitation of it, on whole batches.

Every function takes float pictures (n, 3, 64, 64) from 0 to 1 and a source of randomness; each picture draws its own
amount, and many draw none.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, interpolate, pad

from efface_picturebook.scene import SIZE

Distortion = Callable[[Tensor, torch.Generator], Tensor]


def uniform(source: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """`count` numbers from `low` to `high`."""
    return low + (high - low) * torch.rand(count, generator=source)


def chance(source: torch.Generator, count: int, share: float) -> Tensor:
    """`count` coin throws, bool."""
    return torch.rand(count, generator=source) < share


def warped(pictures: Tensor, masks: Tensor, source: torch.Generator, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Pictures and their masks (n, 2, 64, 64) rotated up to 9 degrees, scaled, shifted and bent by a few pixels."""
    count = len(pictures)
    amount = strength * chance(source, count, 0.6)
    angle = amount * uniform(source, count, -pi / 20, pi / 20)
    zoom = 1 + amount * uniform(source, count, -0.12, 0.12)
    shift = amount[:, None] * (torch.rand(count, 2, generator=source) - 0.5) * (6 / 32)
    cosine, sine = zoom * angle.cos(), zoom * angle.sin()
    rows = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], 1).view(count, 2, 3)
    coarse = torch.randn(count, 2, 5, 5, generator=source) * (1.2 / 32) * amount.view(-1, 1, 1, 1)
    bend = interpolate(coarse, size=SIZE, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = affine_grid(rows, [count, 1, SIZE, SIZE], align_corners=False) + bend
    both = grid_sample(torch.cat([pictures, masks], 1), grid, padding_mode="border", align_corners=False)
    return both[:, :3], both[:, 3:]


def recoloured(pictures: Tensor, source: torch.Generator, strength: float = 1.0) -> Tensor:
    """Hue turned up to 15 degrees, saturation, contrast and brightness changed a little."""
    count = len(pictures)
    amount = strength * chance(source, count, 0.6)
    turn = amount * uniform(source, count, -pi / 12, pi / 12)
    saturation = 1 + amount * uniform(source, count, -0.25, 0.25)
    contrast = 1 + amount * uniform(source, count, -0.2, 0.15)
    brightness = amount * uniform(source, count, -0.08, 0.08)
    mixing = _hue_matrices(turn, saturation) * contrast.view(-1, 1, 1)
    mixed = torch.einsum("nij,njhw->nihw", mixing, pictures - 0.5)
    return (mixed + 0.5 + brightness.view(-1, 1, 1, 1)).clamp(0, 1)


def blurred(pictures: Tensor, source: torch.Generator, strength: float = 1.0) -> Tensor:
    """Between sharp and a Gaussian of 1.1 pixels."""
    count = len(pictures)
    share = strength * chance(source, count, 0.45) * uniform(source, count, 0, 1)
    return torch.lerp(pictures, _gaussian(pictures), share.view(-1, 1, 1, 1))


def noisy(pictures: Tensor, source: torch.Generator, strength: float = 1.0) -> Tensor:
    """With Gaussian noise of up to 0.1, fine or in blots of 4 pixels."""
    count = len(pictures)
    fine, coarse = (strength * chance(source, count, 0.35) * uniform(source, count, 0, 0.1) for _ in range(2))
    grain = torch.randn(pictures.shape, generator=source) * fine.view(-1, 1, 1, 1)
    blots = torch.randn(count, 3, SIZE // 4, SIZE // 4, generator=source) * coarse.view(-1, 1, 1, 1)
    return (pictures + grain + interpolate(blots, size=SIZE, mode="bilinear")).clamp(0, 1)


def patched(pictures: Tensor, source: torch.Generator, share: float = 0.15, side: int = 14) -> Tensor:
    """Some of them with a rectangle of one colour on top, at most `side` pixels wide and high."""
    count = len(pictures)
    chosen = chance(source, count, share)
    start = torch.randint(SIZE - side, (count, 2), generator=source)
    stop = start + torch.randint(5, side + 1, (count, 2), generator=source)
    place = torch.arange(SIZE)
    inside = (place >= start[..., None]) & (place < stop[..., None])
    box = (inside[:, 0, :, None] & inside[:, 1, None, :] & chosen.view(-1, 1, 1))[:, None]
    return torch.where(box, torch.rand(count, 3, 1, 1, generator=source), pictures)


def shuffled(pictures: Tensor, source: torch.Generator) -> Tensor:
    """Cut into 16 squares and put together in another order: the same colours and textures, no object."""
    count, side = len(pictures), SIZE // 4
    tiles = pictures.unfold(2, side, side).unfold(3, side, side).flatten(2, 3)
    order = torch.rand(count, 16, generator=source).argsort(1).view(count, 1, 16, 1, 1).expand_as(tiles)
    rows = tiles.gather(2, order).reshape(count, 3, 4, 4, side, side)
    return rows.permute(0, 1, 2, 4, 3, 5).reshape(pictures.shape)


def static(count: int, source: torch.Generator) -> Tensor:
    """Noise and nothing else: coarse or fine, of any contrast."""
    scales = [1, 2, 4, 8]
    layers = [
        interpolate(torch.randn(count, 3, SIZE // scale, SIZE // scale, generator=source), size=SIZE, mode="bilinear")
        for scale in scales
    ]
    weights = torch.rand(count, len(scales), 1, 1, 1, generator=source).square()
    noise = (torch.stack(layers, 1) * weights).sum(1) * uniform(source, count, 0.05, 0.5).view(-1, 1, 1, 1)
    return (noise + torch.rand(count, 3, 1, 1, generator=source)).clamp(0, 1)


def wiped(
    pictures: Tensor, mask: Tensor, ground: Tensor, share: Tensor, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace `share` (n,) of what the masks (n, 64, 64) cover by `ground`, from one side; and the mask that is left.

    The mask should reach a little beyond the figure, or its outline stays.
    """
    angle = uniform(source, len(pictures), 0, 2 * pi).view(-1, 1, 1)
    place = torch.arange(SIZE) - SIZE / 2
    along = place * angle.cos() + place[:, None] * angle.sin()
    ordered = along.masked_fill(~mask, torch.inf).flatten(1).sort(1).values
    last = (share * mask.sum((1, 2))).long().clamp(0, SIZE * SIZE - 1)
    gone = mask & (along < ordered.gather(1, last[:, None])[:, :, None])
    return torch.where(gone[:, None], ground, pictures), mask & ~gone


def _hue_matrices(turn: Tensor, saturation: Tensor) -> Tensor:
    """Rotations of colour around the gray axis, (n, 3, 3), times saturation across it."""
    gray = torch.full((3, 3), 1 / 3)
    across = torch.eye(3) - gray
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    cosine, sine = turn.cos().view(-1, 1, 1), turn.sin().view(-1, 1, 1)
    return gray + saturation.view(-1, 1, 1) * (cosine * across + sine * cross)


def _gaussian(pictures: Tensor, sigma: float = 1.1, reach: int = 3) -> Tensor:
    place = torch.arange(-reach, reach + 1, dtype=pictures.dtype)
    weights = torch.exp(-place.square() / (2 * sigma**2))
    weights = (weights / weights.sum()).expand(3, 1, -1)
    padded = pad(pictures, (reach,) * 4, mode="replicate")
    across = conv2d(padded, weights[:, :, None, :], groups=3)
    return conv2d(across, weights[:, :, :, None], groups=3)
