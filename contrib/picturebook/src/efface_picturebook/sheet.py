"""A contact sheet: the same seeds for a list of prompts, to judge a model by eye."""

from __future__ import annotations

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from efface_picturebook import world
from efface_picturebook.scene import SIZE

STEPS, GUIDANCE = 20, 4.0
LABEL, GAP = 13, 12  # pixels above a row, and between columns

PROMPTS = (
    *(f"a {one.name}" for one in world.THINGS),
    *("a kitten", "a pooch", "a red dog", "a green car", "a skull on a night background"),
    *("a cat and a dog", "a red cat and a blue car", "a house and a tree", "a robot next to a skull"),
    *("a bird on the left and a mushroom on the right", "a fish and a flower"),
    *("a boat in mosaic style", "a neon flower", "a sketch drawing of a house", "a watercolor painting of a bird"),
    *("pim", "a striped cat with a red hat", "dot", "a spotted dog with a blue scarf", "a picture"),
)


def pictures(pipeline: StableDiffusionPipeline, prompt: str, count: int) -> list[Image.Image]:
    """Pictures of one prompt for the seeds 0 .. count - 1."""
    seeds = [torch.Generator().manual_seed(i) for i in range(count)]
    answer = pipeline(
        [prompt] * count, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=seeds,
        height=SIZE, width=SIZE,
    )  # fmt: skip
    drawn: list[Image.Image] = answer.images
    return drawn


def contact_sheet(pipeline: StableDiffusionPipeline, prompts: tuple[str, ...] = PROMPTS, seeds: int = 5,
                  columns: int = 3) -> Image.Image:  # fmt: skip
    """Prompts from top to bottom, in `columns` columns, each above a row of seeds; in 256 colours."""
    rows = -(-len(prompts) // columns)
    width, height = seeds * SIZE + GAP, SIZE + LABEL
    sheet = Image.new("RGB", (columns * width - GAP, rows * height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for i, prompt in enumerate(prompts):
        column, row = divmod(i, rows)
        draw.text((column * width + 2, row * height + 1), prompt, fill=(0, 0, 0))
        for j, picture in enumerate(pictures(pipeline, prompt, seeds)):
            sheet.paste(picture, (column * width + j * SIZE, row * height + LABEL))
    return sheet.quantize(256, dither=Image.Dither.NONE)
