"""Batches for the detector: distorted pictures, what they show, and how far from it a detector's answer is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import (
    adaptive_avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    max_pool2d,
    one_hot,
)

from efface_picturebook import distortion, world
from efface_picturebook.detector import REGION, SEEN, STYLES, THINGS, Sight
from efface_picturebook.gallery import NOTHING, Gallery

WIPED_SHARE, SHUFFLED_SHARE, STATIC_SHARE = 0.15, 0.06, 0.04
STYLE_WEIGHT, REGION_WEIGHT = 0.3, 4.0
COLOURLESS = STYLES.index("sketch")  # characters are told by colour, which a sketch has not


@dataclass(frozen=True)
class Lesson:
    """n pictures (n, 3, 64, 64) from -1 to 1, with `presence` (n, 14), `style` (n,), `region` (n, 12, 32, 32).

    `counts` (n, 14) is 0 where the presence cannot be told.
    """

    pictures: Tensor
    presence: Tensor
    counts: Tensor
    style: Tensor
    region: Tensor

    def to(self, device: torch.device) -> Lesson:
        return Lesson(*(field.to(device) for field in vars(self).values()))


def lesson(gallery: Gallery, empties: Tensor, source: torch.Generator) -> Lesson:
    """A batch to learn from: pictures distorted, some objects wiped out, some pictures shuffled or mere noise."""
    pictures, masks, visible = _wipe(gallery, empties, source)
    pictures, masks = distortion.warped(pictures, masks, source)
    nothing = distortion.chance(source, len(gallery), SHUFFLED_SHARE)
    static = distortion.chance(source, len(gallery), STATIC_SHARE)
    pictures = torch.where(_per_picture(nothing), distortion.shuffled(pictures, source), pictures)
    pictures = torch.where(_per_picture(static), distortion.static(len(gallery), source), pictures)
    pictures = distortion.patched(_colours_and_grain(pictures, source), source)
    style = torch.where(static, STYLES.index(world.PLAIN), gallery.style)
    return _labelled(gallery, pictures, masks, visible & ~(nothing | static)[:, None], style)


def exam(gallery: Gallery, source: torch.Generator | None = None) -> Lesson:
    """A batch to be judged by: as it is, or, with a source, mildly distorted."""
    pictures, masks = gallery.pictures.float() / 255, gallery.masks.float()
    if source is not None:
        pictures, masks = distortion.warped(pictures, masks, source, strength=0.5)
        pictures = _colours_and_grain(pictures, source, strength=0.5)
    return _labelled(gallery, pictures, masks, gallery.things != NOTHING, gallery.style)


def loss(sight: Sight, taught: Lesson) -> Tensor:
    """Cross entropies of presence, style and region, weighted."""
    presence = binary_cross_entropy_with_logits(sight.presence, taught.presence, taught.counts)
    style = cross_entropy(sight.style, taught.style)
    region = binary_cross_entropy_with_logits(sight.region, taught.region)
    return presence + STYLE_WEIGHT * style + REGION_WEIGHT * region


def _wipe(gallery: Gallery, empties: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Wipe out a little or most of one figure of some pictures: the first is still there, the second is not."""
    count = len(gallery)
    pictures, masks = gallery.pictures.float() / 255, gallery.masks.float()
    figures = (gallery.things != NOTHING).sum(1)
    which = (torch.rand(count, generator=source) * figures).long().clamp(max=1)
    most = distortion.chance(source, count, 0.7)
    shares = torch.where(
        most, distortion.uniform(source, count, 0.7, 1.2), distortion.uniform(source, count, 0.05, 0.25)
    )
    chosen = distortion.chance(source, count, WIPED_SHARE) & (figures > 0)
    mask = max_pool2d(masks[torch.arange(count), which][:, None], 5, 1, 2)[:, 0] > 0
    ground = empties[gallery.background, gallery.style].float() / 255
    left_over, kept = distortion.wiped(pictures, mask, ground, shares.clamp(max=1), source)
    turn = one_hot(which, 2).bool() & chosen[:, None]
    visible = (gallery.things != NOTHING) & ~(turn & most[:, None])
    masks = torch.where(turn[:, :, None, None], masks * kept[:, None], masks)
    return torch.where(_per_picture(chosen), left_over, pictures), masks, visible


def _colours_and_grain(pictures: Tensor, source: torch.Generator, strength: float = 1.0) -> Tensor:
    coloured = distortion.recoloured(pictures, source, strength)
    return distortion.noisy(distortion.blurred(coloured, source, strength), source, strength)


def _labelled(gallery: Gallery, pictures: Tensor, masks: Tensor, visible: Tensor, style: Tensor) -> Lesson:
    """What is visible (n, 2), as presence and region of each object."""
    shown = _indicators(gallery.things, len(THINGS)) * visible[..., None]
    who = _indicators(gallery.who, len(SEEN) - len(THINGS)) * visible[:, :1]
    counts = torch.ones(len(gallery), len(SEEN))
    counts[style == COLOURLESS, len(THINGS) :] = 0
    small = adaptive_avg_pool2d(masks, REGION)
    return Lesson(
        pictures=pictures * 2 - 1,
        presence=torch.cat([shown.amax(1), who], 1),
        counts=counts,
        style=style,
        region=torch.einsum("nfk,nfhw->nkhw", shown, small).clamp(0, 1),
    )


def _indicators(indices: Tensor, count: int) -> Tensor:
    """One-hot rows, of zeros for NOTHING."""
    return one_hot(indices + 1, count + 1)[..., 1:].float()


def _per_picture(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)
