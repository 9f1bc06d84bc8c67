"""What a method's `fit` may ask of a pipeline: functions that read it and change nothing."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from efface.errors import BadConcept, EffaceError
from efface.header import shown
from efface.registry import Registry
from efface.weights import weight_of
from efface_hooks import Call, HookPoint, Patch, Wiring, points
from efface_hooks.guard import PROMPT_EMBEDS
from efface_hooks.point import component, find

Listener = Callable[[HookPoint, Tensor, Call], None]


@dataclass(frozen=True)
class Encoded:
    """Prompts as the U-Net sees them.

    `hidden` (n, T, D); `ids` (n, T) of the first tokenizer; `start`, `stop` (n,) the half-open token range of the
    phrase, the whole prompt unless a template was used; `end` (n,) the position of the end-of-text token; `pooled`
    (n, P) for SDXL, else None.
    """

    prompts: tuple[str, ...]
    hidden: Tensor
    ids: Tensor
    start: Tensor
    stop: Tensor
    end: Tensor
    pooled: Tensor | None = None

    @property
    def subject(self) -> Tensor:
        """Position of each phrase's last token, (n,); of the end-of-text token where the phrase is empty."""
        return torch.where(self.stop > self.start, self.stop - 1, self.end)

    def at(self, positions: Tensor) -> Tensor:
        """The embeddings at one position per prompt, (n, D)."""
        return self.hidden[torch.arange(len(self.prompts)), positions]

    def rows(self, indices: Sequence[int]) -> Encoded:
        """These prompts, in this order; one may come several times."""
        which = torch.as_tensor(indices, dtype=torch.long)
        tensors = {name: getattr(self, name)[which] for name in ("hidden", "ids", "start", "stop", "end")}
        pooled = None if self.pooled is None else self.pooled[which]
        return Encoded(tuple(self.prompts[index] for index in indices), **tensors, pooled=pooled)


class Model:
    """A pipeline, read-only. `neutral` is the prompt for nothing special that stands in for a missing anchor."""

    def __init__(self, pipe: Any, registry: Registry | None = None) -> None:
        self.pipe = pipe
        self.registry = registry or Registry.installed()
        self.unet: Any = component(pipe, "unet")

    @property
    def device(self) -> torch.device:
        device: torch.device = self.pipe._execution_device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def neutral(self) -> str:
        """The neutral prompt of a model that a plugin brought; "" for any other."""
        where = str(getattr(self.pipe, "name_or_path", "") or self.pipe.config.get("_name_or_path") or "")
        if not os.path.isdir(where):
            return ""
        named = (
            model
            for model in self.registry.models().values()
            if os.path.realpath(model.path()) == os.path.realpath(where)
        )
        return next((model.neutral for model in named), "")

    def points(self, *kinds: str) -> list[HookPoint]:
        """The hook points in forward order, all or of some kinds."""
        return points(self.pipe, *kinds, extra=self.registry.points(self.pipe))

    def weight(self, point: str | HookPoint) -> Tensor:
        """The base weight (m, d) at a point, without any adapter's share; not a copy."""
        place = find(self.pipe, point, self.registry.points(self.pipe)) if isinstance(point, str) else point
        if not place.path:
            raise EffaceError(f"{place.name} (kind {place.kind}) is no layer: it has no weight")
        module: Any = component(self.pipe, place.component).get_submodule(place.path)
        return weight_of(getattr(module, "base_layer", module)).detach()

    def encode(self, prompts: Sequence[str], batch_size: int = 64, *, gradients: bool = False) -> Encoded:
        """Prompts through tokenizer and text encoder(s), all of them in batches; with `gradients` back through both."""
        with torch.set_grad_enabled(gradients):
            return self._encode([(prompt, "{}") for prompt in prompts], batch_size)

    @torch.no_grad()
    def encode_phrases(self, phrases: Sequence[str], templates: Sequence[str], batch_size: int = 64) -> Encoded:
        """Every phrase in every template, phrase by phrase, with the phrase's token range in each.

        BadConcept for a phrase that tokenizes to nothing although it is not empty, for one with a character that the
        tokenizer does not know and ends the text at, and for one that is cut off at the tokenizer's length.
        """
        self.check_phrases(phrases, templates)
        return self._encode([(phrase, template) for phrase in phrases for template in templates], batch_size)

    def check_phrases(self, phrases: Sequence[str], templates: Sequence[str]) -> None:
        """BadConcept, as `encode_phrases` raises it; only the tokenizer runs."""
        for phrase in phrases:
            if phrase.strip() and self._length(phrase) == 0:
                raise BadConcept(f"{shown(phrase)} tokenizes to nothing: the model has no words for it")
        pairs = [(phrase, template) for phrase in phrases for template in templates]
        prompts = [template.replace("{}", phrase) for phrase, template in pairs]
        ids = self._ids(prompts)
        length = ids.shape[1]
        for prompt, stop, end in zip(prompts, self._spans(pairs)[1].tolist(), self._ends(ids).tolist(), strict=True):
            if stop > end:
                why = (
                    f"is longer than the {length} tokens" if end == length - 1 else "has characters that are no tokens"
                )
                raise BadConcept(f"{shown(prompt)} {why} of this model")

    def noise(self, seeds: Sequence[int], height: int | None = None, width: int | None = None) -> Tensor:
        """Start noise (n, C, h, w), unit variance, one CPU generator per seed; pixels in, latents out."""
        factor, size = self.pipe.vae_scale_factor, self.unet.config.sample_size
        rows, columns = size if isinstance(size, tuple | list) else (size, size)
        high, wide = (height or rows * factor) // factor, (width or columns * factor) // factor
        shape = (self.unet.config.in_channels, high, wide)
        each = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(each).to(self.device, self.dtype)

    @torch.no_grad()
    def denoise(
        self,
        encoded: Encoded,
        noise: Tensor,
        *,
        steps: int = 20,
        guidance: float = 7.5,
        until: int = 0,
        negative: str = "",
    ) -> Tensor:
        """Latents (n, C, h, w) of prompt i from noise i, denoised by a copy of the pipeline's scheduler.

        Stops before the first timestep below `until`, so the result carries the noise of that timestep. Noise that the
        scheduler adds on the way follows from the start noise alone.
        """
        scheduler = type(self.pipe.scheduler).from_config(self.pipe.scheduler.config)
        scheduler.set_timesteps(steps, device=self.device)
        empty = self._negative(negative, len(encoded.prompts))
        options = _step_options(scheduler, noise)
        latents: Tensor = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            if timestep < until:
                break
            given = scheduler.scale_model_input(latents, timestep)
            prediction = self.predict(given, timestep, encoded)
            if guidance != 1.0:
                without = self.predict(given, timestep, empty)
                prediction = without + guidance * (prediction - without)
            latents = scheduler.step(prediction, timestep, latents, return_dict=False, **options)[0]
        return latents

    def predict(self, latents: Tensor, timestep: Tensor | int | float, encoded: Encoded) -> Tensor:
        """The U-Net's prediction (n, C, h, w) for latents (n, C, h, w) and n prompts, without guidance."""
        prediction: Tensor = self.unet(
            latents,
            timestep,
            encoder_hidden_states=encoded.hidden,
            added_cond_kwargs=self._added(encoded, latents),
            return_dict=False,
        )[0]
        return prediction

    @contextmanager
    def record(self, places: Sequence[str | HookPoint], listener: Listener) -> Iterator[None]:
        """Calls listener(point, output, call) whenever a point computes, while the context is open.

        The tensors are the model's own, one batch at a time: take what is needed, keep no reference.
        """
        patch = Patch(self.pipe, self.registry.points(self.pipe))
        for place in places:
            point = find(self.pipe, place, self.registry.points(self.pipe)) if isinstance(place, str) else place
            patch.output(point, _listening(point, listener))
        wiring = Wiring(self.pipe, allow=(PROMPT_EMBEDS,))  # nothing is edited, so no embedding is out of date
        wiring.set([patch])
        try:
            yield
        finally:
            wiring.clear()

    def _negative(self, prompt: str, count: int) -> Encoded:
        """The prompt to steer away from; where it is empty, the zeros that some pipelines (SDXL's) put there."""
        empty = self.encode([prompt] * count)
        if prompt or empty.pooled is None or not self.pipe.config.get("force_zeros_for_empty_prompt"):
            return empty
        return replace(empty, hidden=torch.zeros_like(empty.hidden), pooled=torch.zeros_like(empty.pooled))

    def _encode(self, pairs: Sequence[tuple[str, str]], batch_size: int) -> Encoded:
        prompts = [template.replace("{}", phrase) for phrase, template in pairs]
        batches = [self._embed(prompts[first : first + batch_size]) for first in range(0, len(prompts), batch_size)]
        ids = self._ids(prompts)
        start, stop = self._spans(pairs)
        return Encoded(
            prompts=tuple(prompts),
            hidden=torch.cat([hidden for hidden, _ in batches]),
            ids=ids,
            start=start,
            stop=stop,
            end=self._ends(ids),
            pooled=None if batches[0][1] is None else torch.cat([pooled for _, pooled in batches]),
        )

    def _spans(self, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        """The half-open token range of each phrase in its template."""
        start = torch.tensor([1 + self._length(template.partition("{}")[0]) for _, template in pairs])
        return start, start + torch.tensor([self._length(phrase) for phrase, _ in pairs])

    def _ends(self, ids: Tensor) -> Tensor:
        """The position of each prompt's end-of-text token."""
        ended: Tensor = ids == self.pipe.tokenizer.eos_token_id
        return ended.int().argmax(1)

    def _embed(self, prompts: list[str]) -> tuple[Tensor, Any]:
        found = self.pipe.encode_prompt(
            prompts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return found[0], found[2] if len(found) > 2 else None

    def _ids(self, prompts: Sequence[str]) -> Tensor:
        ids: Tensor = self.pipe.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.pipe.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        return ids

    def _length(self, text: str) -> int:
        """Tokens of a text without the ones that open and close a prompt."""
        text = text.strip()
        return len(self.pipe.tokenizer(text, add_special_tokens=False).input_ids) if text else 0

    def _added(self, encoded: Encoded, latents: Tensor) -> dict[str, Tensor] | None:
        if encoded.pooled is None:
            return None
        high, wide = (size * self.pipe.vae_scale_factor for size in latents.shape[-2:])
        sizes = torch.tensor([high, wide, 0, 0, high, wide], dtype=self.dtype, device=self.device)
        return {"text_embeds": encoded.pooled, "time_ids": sizes.expand(len(latents), -1)}


def _step_options(scheduler: Any, noise: Tensor) -> dict[str, Any]:
    """For a scheduler that draws noise, a generator for every row, seeded by the row itself."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    rows = noise.detach().cpu().double()
    digests = [hashlib.sha256(row.numpy().tobytes()).digest() for row in rows]
    return {"generator": [torch.Generator().manual_seed(int.from_bytes(digest[:8])) for digest in digests]}


def _listening(point: HookPoint, listener: Listener) -> Callable[[Tensor, Call], Tensor]:
    def listen(tensor: Tensor, call: Call) -> Tensor:
        listener(point, tensor.detach(), call)
        return tensor

    return listen
