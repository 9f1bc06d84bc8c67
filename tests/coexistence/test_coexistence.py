"""What else a pipeline can do, beside its erasures: each row of the table in `docs/coexistence.md` is a test here.

`python tests/coexistence/test_coexistence.py` writes the table into the page anew.
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import efface
from efface import Editor
from efface.testing import tiny_pipeline
from efface_hooks import EditLost, Wiring

# peft's advice about a second adapter
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coexistence.md"
HEAD = "| feature | on before the erasures | after them | after `editor.fuse()` | note |\n|---|---|---|---|---|\n"
MID = "mid_block.attentions.0.transformer_blocks.0"
KEY, VALUE, OUT = f"{MID}.attn2.to_k", f"{MID}.attn2.to_v", f"{MID}.attn2.to_out.0"
QUERY = f"{MID}.attn1.to_q"
WORD = "text_encoder.layers.1.mlp.fc2"

# Of what the edits change in the picture: float64 sums in another order, and half of it lost to rounding at the worst
TOLERANCE = 1e-9

Pipe = Any
Act = Callable[[Pipe], Any]


# What is erased, and the same by hand: `forward` replaced, weights multiplied out


def drawn(name: str, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(name.encode()))) * 0.2


@dataclass(frozen=True)
class Everywhere:
    """A change of every sort: of the text, of a projection, of features, of a skip, of the mid tensor."""

    name: ClassVar[str] = "everywhere"
    stacks: ClassVar[bool] = False
    sizes: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "text": (16, 16),
        "key": (16, 16),
        "value": (16, 16),
        "query": (16, 16),
        "out": (16,),
        "skip": (1,),
        "mid": (16, 1, 1),
    }

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({name: drawn(name, *shape) for name, shape in self.sizes.items()})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        t = fits[0].fit.tensors
        patch.map("unet.text", efface.Dense(t["text"]))
        patch.map(f"unet.{KEY}", efface.Dense(t["key"]))
        patch.add(f"unet.{VALUE}", efface.Dense(t["value"]))
        patch.map(f"unet.{QUERY}", efface.Dense(t["query"]))
        patch.output(f"unet.{OUT}", lambda x, call: x + t["out"].to(x))
        patch.output("unet.skip.1", lambda x, call: x * (1 + t["skip"].to(x)))
        patch.output("unet.mid", lambda x, call: x + t["mid"].to(x))

    @staticmethod
    def by_hand(pipe: Pipe) -> None:
        t = {name: drawn(name, *shape) for name, shape in Everywhere.sizes.items()}
        Linear.by_hand(pipe)
        unet = whole(pipe.unet)
        wrap(unet.get_submodule(OUT), lambda run, x: run(x) + t["out"].to(x))
        wrap(
            unet.up_blocks[-1],
            lambda run, **given: run(
                **(
                    given
                    | {
                        "res_hidden_states_tuple": tuple(
                            skip * (1 + t["skip"].to(skip)) if number == 1 else skip
                            for number, skip in enumerate(given["res_hidden_states_tuple"])
                        )
                    }
                )
            ),
        )
        wrap(
            unet.up_blocks[0],
            lambda run, **given: run(
                **(given | {"hidden_states": given["hidden_states"] + t["mid"].to(given["hidden_states"])})
            ),
        )


@dataclass(frozen=True)
class Linear(Everywhere):
    """The changes of `Everywhere` that weights can hold."""

    name: ClassVar[str] = "linear"

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        t = fits[0].fit.tensors
        patch.map("unet.text", efface.Dense(t["text"]))
        patch.map(f"unet.{KEY}", efface.Dense(t["key"]))
        patch.add(f"unet.{VALUE}", efface.Dense(t["value"]))
        patch.map(f"unet.{QUERY}", efface.Dense(t["query"]))

    @staticmethod
    def by_hand(pipe: Pipe) -> None:
        t = {name: drawn(name, *shape) for name, shape in Everywhere.sizes.items()}
        unet = whole(pipe.unet)
        for path, name in ((KEY, "key"), (QUERY, "query")):
            wrap(unet.get_submodule(path), lambda run, x, name=name: run(x + times(t[name], x)))
        wrap(unet.get_submodule(VALUE), lambda run, x: run(x) + times(t["value"], x))
        wrap(
            unet,
            lambda run, *args, encoder_hidden_states, **rest: run(
                *args, encoder_hidden_states=encoder_hidden_states + times(t["text"], encoder_hidden_states), **rest
            ),
        )


@dataclass(frozen=True)
class Word(Everywhere):
    """A change in the text encoder."""

    name: ClassVar[str] = "word"

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        patch.add(WORD, efface.Dense(drawn("word", 16, 32)))

    @staticmethod
    def by_hand(pipe: Pipe) -> None:
        path = WORD.partition(".")[2].replace("layers", "encoder.layers")
        wrap(pipe.text_encoder.get_submodule(path), lambda run, x: run(x) + times(drawn("word", 16, 32), x))


def times(matrix: Tensor, x: Tensor) -> Tensor:
    return x @ matrix.to(x).T


def wrap(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Replace a module's `forward`: the realisation that efface does not use."""
    run = module.forward
    module.forward = lambda *args, **kwargs: forward(run, *args, **kwargs)


def whole(module: Any) -> Any:
    return getattr(module, "_orig_mod", module)


METHODS = (Everywhere, Linear, Word)


class Plugin:
    @efface.hookimpl
    def efface_methods(self) -> list[type]:
        return list(METHODS)


REGISTRY = efface.Registry([Plugin()])


@pytest.fixture(scope="module")
def erasures() -> Mapping[str, efface.Erasure]:
    pipe = base()
    return {one.name: efface.erase(pipe, "cat", anchor="tree", method=one.name, registry=REGISTRY) for one in METHODS}


def base() -> Pipe:
    """A pipeline in float64 whose U-Net has one block down and one up."""
    from diffusers import UNet2DConditionModel

    pipe = tiny_pipeline("sd1", dtype=torch.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet = UNet2DConditionModel(
            sample_size=8,
            norm_num_groups=4,
            layers_per_block=1,
            block_out_channels=(16,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("UpBlock2D",),
            attention_head_dim=2,
            cross_attention_dim=16,
        )
    pipe.unet = nn.Module.to(unet.eval(), torch.float64)
    return pipe


# Painting


def paint(pipe: Pipe, **options: Any) -> Tensor:
    """Latents of a picture, with what `with_needs` noted."""
    given: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 2, "output_type": "latent"}
    given["generator"] = torch.Generator().manual_seed(0)
    latents: Tensor = pipe(**(given | getattr(pipe, "needs", {}) | options)).images
    return latents


def with_needs(pipe: Pipe, **needs: Any) -> Pipe:
    """The pipeline, with what its call takes beside a prompt."""
    pipe.set_progress_bar_config(disable=True)
    vars(pipe)["needs"] = needs
    return pipe


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


# Features: each takes a pipeline and puts something on it, and may return another pipeline to paint with


def lora(seed: int) -> dict[str, Tensor]:
    found = {}
    for path in (KEY, VALUE, QUERY, OUT):
        found[f"unet.{path}.lora_A.weight"] = drawn(f"{path} A {seed}", 2, 16)
        found[f"unet.{path}.lora_B.weight"] = drawn(f"{path} B {seed}", 16, 2)
    word = "text_encoder.text_model.encoder.layers.1.mlp.fc2.lora_linear_layer"
    return found | {f"{word}.down.weight": drawn("word A", 2, 32), f"{word}.up.weight": drawn("word B", 16, 2)}


def load_lora(pipe: Pipe, seed: int = 1, name: str = "one") -> None:
    pipe.load_lora_weights(lora(seed), adapter_name=name)
    for model in (pipe.unet, pipe.text_encoder):
        nn.Module.to(model, pipe.vae.dtype)


def load_two(pipe: Pipe) -> None:
    load_lora(pipe)
    load_lora(pipe, 2, "two")


def fuse_and_unload_lora(pipe: Pipe) -> None:
    pipe.fuse_lora()
    pipe.unload_lora_weights()


def controlnet(pipe: Pipe) -> Pipe:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = ControlNetModel.from_unet(base().unet, conditioning_embedding_out_channels=(4, 8))
        for weight in (*net.controlnet_down_blocks.parameters(), *net.controlnet_mid_block.parameters()):
            nn.init.normal_(weight, std=0.1)
    net = net.to(pipe.unet.dtype).eval()
    made = StableDiffusionControlNetPipeline(**pipe.components, controlnet=net, requires_safety_checker=False)
    return with_needs(made, image=noise(1, 3, 16, 16))


def t2i_adapter(pipe: Pipe) -> Pipe:
    from diffusers import StableDiffusionAdapterPipeline, T2IAdapter

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        adapter = T2IAdapter(
            in_channels=3, channels=[16], num_res_blocks=1, downscale_factor=2, adapter_type="full_adapter"
        )
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    adapter = adapter.to(pipe.unet.dtype).eval()
    made = StableDiffusionAdapterPipeline(**parts, adapter=adapter, requires_safety_checker=False)
    return with_needs(made, image=noise(1, 3, 16, 16))


def ip_adapter(pipe: Pipe) -> Pipe:
    weights: dict[str, Tensor] = {}
    attentions = [name for name in pipe.unet.attn_processors if "attn2" in name]
    for number, name in enumerate(attentions):
        width = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in ("k", "v"):
            weights[f"{2 * number + 1}.to_{part}_ip.weight"] = drawn(f"ip {part} {number}", width, 16)
    projection = {"proj.weight": drawn("p", 64, 8), "proj.bias": drawn("b", 64)}
    projection |= {"norm.weight": torch.ones(16), "norm.bias": torch.zeros(16)}
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])
    pipe.unet.to(pipe.vae.dtype)
    return with_needs(pipe, ip_adapter_image_embeds=[noise(2, 1, 8).to(pipe.vae.dtype)])


def image_to_image(pipe: Pipe) -> Pipe:
    from diffusers import StableDiffusionImg2ImgPipeline

    made = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    return with_needs(made, image=noise(1, 3, 16, 16), strength=1.0)


def inpainting(pipe: Pipe) -> Pipe:
    from diffusers import StableDiffusionInpaintPipeline

    made = StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    mask = (noise(1, 1, 16, 16) > 0.5).float()
    return with_needs(made, image=noise(1, 3, 16, 16), mask_image=mask, height=16, width=16)


def second_pipeline(pipe: Pipe) -> Pipe:
    from diffusers import StableDiffusionPipeline

    return with_needs(StableDiffusionPipeline(**pipe.components, requires_safety_checker=False))


def second_with_its_own_encoder(pipe: Pipe) -> Pipe:
    from diffusers import StableDiffusionPipeline

    own = pipe.components | {"text_encoder": base().text_encoder}
    return with_needs(StableDiffusionPipeline(**own, requires_safety_checker=False))


def fuse_projections(pipe: Pipe) -> None:
    pipe.fuse_qkv_projections(vae=False)


def compile_in_place(pipe: Pipe) -> None:
    pipe.unet.compile(backend="eager")
    paint(pipe)


def compile_wrapped(pipe: Pipe) -> None:
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    paint(pipe)


def offload_sequentially(pipe: Pipe) -> None:
    from accelerate import cpu_offload

    cpu_offload(pipe.unet, torch.device("cpu"))


def offload_groups(kind: str) -> Act:
    def act(pipe: Pipe) -> None:
        cpu, options = torch.device("cpu"), {} if kind == "leaf_level" else {"num_blocks_per_group": 1}
        for model in (pipe.unet, pipe.vae):
            model.enable_group_offload(onload_device=cpu, offload_device=cpu, offload_type=kind, **options)

    return act


def cast_layerwise(storage: torch.dtype) -> Act:
    return lambda pipe: pipe.unet.enable_layerwise_casting(storage_dtype=storage, compute_dtype=torch.float64)


def other_scheduler(pipe: Pipe) -> None:
    from diffusers import EulerDiscreteScheduler

    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)


def callback(pipe: Pipe) -> Pipe:
    def smaller(pipe: Pipe, step: int, timestep: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": tensors["latents"] * 0.9}

    return with_needs(pipe, callback_on_step_end=smaller)


def embeddings(pipe: Pipe) -> Pipe:
    prompt, negative = pipe.encode_prompt("a cat", "cpu", 1, True, "")
    return with_needs(pipe, prompt=None, prompt_embeds=prompt, negative_prompt_embeds=negative)


def copied(pipe: Pipe) -> Pipe:
    return copy.deepcopy(pipe)


def copied_unet(pipe: Pipe) -> Pipe:
    other = base()
    other.unet = copy.deepcopy(pipe.unet)
    return with_needs(other)


def saved(pipe: Pipe) -> Pipe:
    from diffusers import StableDiffusionPipeline

    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        return with_needs(StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float64))


def quantise(pipe: Pipe) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    pipe.to(torch.float32)
    quantize_(pipe.unet, Int8WeightOnlyConfig(), filter_fn=lambda module, path: isinstance(module, nn.Linear))


# The table


@dataclass(frozen=True)
class Row:
    """One feature: what becomes of erasures when it is on before them, comes after them, or after `fuse()`.

    works: the picture is the one that the edits give by hand, and no hook moved. re-attaches: the same, and hooks
    moved in the next pass. raises: the next generation does, with a remedy. refused: attaching or the feature itself
    does, and nothing has changed. base: what comes out has no erasure, by design. "-": there is no such case.
    """

    feature: str
    act: Act
    before: str
    after: str
    fused: str
    note: str = ""
    given: Act | None = None
    erased: tuple[str, ...] = ("everywhere", "word")
    same_without: bool = False
    tolerance: float = TOLERANCE
    rounded: float = TOLERANCE
    """The tolerance for weights that hold edits and are rounded with them."""
    hand_first: bool = False
    """Whether the edits by hand have to be there before the feature."""
    needs: str = ""
    error: str = ""

    def outcome(self, when: str) -> str:
        return str(getattr(self, when))


ROWS = (
    Row(
        "`load_lora_weights`",
        load_lora,
        "works",
        "re-attaches",
        "raises",
        "the LoRA's share is erased too",
        error="fused into the weight",
    ),
    Row(
        "`set_adapters` with other weights",
        lambda p: p.set_adapters(["one", "two"], [0.3, 0.7]),
        "works",
        "works",
        "-",
        given=load_two,
    ),
    Row("`disable_lora`", lambda p: p.disable_lora(), "works", "works", "-", given=load_lora),
    Row(
        "`fuse_lora`",
        lambda p: p.fuse_lora(),
        "refused",
        "works",
        "-",
        "fuse after attaching: with a LoRA in its weights it is another base (`allow_other_base=True`)",
        given=load_lora,
        error="other weights",
    ),
    Row("`unload_lora_weights`", lambda p: p.unload_lora_weights(), "works", "re-attaches", "-", given=load_lora),
    Row(
        "`fuse_lora` and `unload_lora_weights`",
        fuse_and_unload_lora,
        "refused",
        "re-attaches",
        "-",
        "the same",
        given=load_lora,
        error="other weights",
    ),
    Row(
        "ControlNet",
        controlnet,
        "works",
        "works",
        "works",
        "skips are edited with its residuals in them; the network itself reads the prompt unmapped",
    ),
    Row("T2I-Adapter", t2i_adapter, "works", "works", "works"),
    Row(
        "IP-Adapter",
        ip_adapter,
        "works",
        "works",
        "works",
        "its image prompt goes around what edits the text: `editor.plan()` says so",
    ),
    Row("image-to-image pipeline on the same components", image_to_image, "works", "works", "works"),
    Row("inpainting pipeline on the same components", inpainting, "works", "works", "works"),
    Row("one U-Net in two pipelines", second_pipeline, "works", "works", "works"),
    Row(
        "one U-Net in two pipelines, the second with a text encoder of its own",
        second_with_its_own_encoder,
        "raises",
        "raises",
        "works",
        "where a text encoder is edited: its embeddings are not the edited one's",
        error="not made by text_encoder",
    ),
    Row(
        "`fuse_qkv_projections`",
        fuse_projections,
        "works",
        "re-attaches",
        "works",
        "edited projections are computed beside the fused layer",
        same_without=True,
    ),
    Row(
        "`unfuse_qkv_projections`",
        lambda p: p.unet.unfuse_qkv_projections(),
        "works",
        "re-attaches",
        "-",
        given=fuse_projections,
        same_without=True,
    ),
    Row("attention slicing", lambda p: p.enable_attention_slicing("max"), "works", "works", "works"),
    Row("`set_attention_backend`", lambda p: p.unet.set_attention_backend("native"), "works", "works", "works"),
    Row("FreeU", lambda p: p.enable_freeu(0.9, 0.2, 1.2, 1.4), "works", "works", "works"),
    Row("another scheduler", other_scheduler, "works", "works", "works"),
    Row(
        "`unet.compile()`, run once",
        compile_in_place,
        "raises",
        "works",
        "works",
        "attach before compiling, or call `torch.compiler.reset()`",
        same_without=True,
        error="torch.compile",
    ),
    Row(
        "`torch.compile(unet)`, run once",
        compile_wrapped,
        "raises",
        "works",
        "works",
        "the same",
        same_without=True,
        error="torch.compile",
    ),
    Row(
        "`enable_model_cpu_offload`",
        lambda p: p.enable_model_cpu_offload(device="cpu"),
        "works",
        "works",
        "works",
        "run with the CPU as the device that computes",
    ),
    Row(
        "sequential offload of the U-Net (accelerate's `cpu_offload`)",
        offload_sequentially,
        "works",
        "works",
        "works",
        "the CPU computes; with torch 2.13 and transformers 5 the text encoder's does not run there, efface or not",
    ),
    Row("group offload, blocks", offload_groups("block_level"), "works", "works", "works", "without streams"),
    Row("group offload, leaves", offload_groups("leaf_level"), "works", "works", "works", "without streams"),
    Row("layerwise casting, bfloat16", cast_layerwise(torch.bfloat16), "works", "works", "works", rounded=0.02),
    Row(
        "layerwise casting, float8",
        cast_layerwise(torch.float8_e4m3fn),
        "refused",
        "works",
        "works",
        "float8 weights differ too much from the base an erasure was made for; attach first",
        error="other weights",
        rounded=0.2,
    ),
    Row("`pipe.to(torch.float32)`", lambda p: p.to(torch.float32), "works", "works", "works", tolerance=1e-3),
    Row("`pipe.to(torch.bfloat16)`", lambda p: p.to(torch.bfloat16), "works", "works", "works", tolerance=0.25),
    Row('`pipe.to("cuda")`', lambda p: p.to("cuda"), "works", "works", "works", needs="CUDA", tolerance=1e-3),
    Row(
        "offloads to and from CUDA",
        lambda p: p.enable_sequential_cpu_offload(),
        "works",
        "works",
        "works",
        needs="CUDA",
        tolerance=1e-3,
    ),
    Row("`copy.deepcopy(pipe)`", copied, "-", "works", "works", "the copy has an editor of its own"),
    Row(
        "`copy.deepcopy(pipe.unet)`",
        copied_unet,
        "-",
        "raises",
        "raises",
        "copy the pipeline, or detach before",
        error="copied without its pipeline",
    ),
    Row("`save_pretrained`", saved, "-", "base", "works", "hooks write no weight; `fuse()` does"),
    Row("`callback_on_step_end`", callback, "works", "works", "works"),
    Row("`prompt_embeds`, the U-Net edited", embeddings, "works", "works", "works", erased=("everywhere",)),
    Row(
        "`prompt_embeds` made before attaching, a text encoder edited",
        embeddings,
        "raises",
        "works",
        "works",
        'encode while attached, or `Editor(..., allow=("prompt_embeds",))`',
        error="not made by text_encoder",
        hand_first=True,
    ),
    Row(
        "int8 weights (torchao)",
        quantise,
        "refused",
        "works",
        "-",
        "attach first: an erasure's base is the unquantised model; fused, it is quantised with the weights",
        needs="torchao",
        tolerance=1e-3,
        error="other weights",
    ),
)

CASES = [
    pytest.param(row, when, id=f"{row.feature} {when}")
    for row in ROWS
    for when in ("before", "after", "fused")
    if row.outcome(when) != "-"
]


def missing(row: Row) -> str:
    """Why a row cannot run here, "" when it can."""
    if row.needs == "CUDA" and not torch.cuda.is_available():
        return "no CUDA device"
    if row.needs == "torchao" and importlib.util.find_spec("torchao") is None:
        return "torchao is not installed"
    return ""


def on(pipe: Pipe, act: Act | None) -> Pipe:
    """The pipeline to paint with once the feature is on."""
    return (None if act is None else act(pipe)) or pipe


def by_hand(row: Row, erased: Sequence[str]) -> Tensor:
    """The picture that the same edits give when they replace `forward`, with the feature there."""
    pipe = base()
    if not (row.same_without or row.hand_first):
        pipe = on_both(row, pipe)
    for name in erased:
        next(one for one in METHODS if one.name == name).by_hand(pipe)
    return paint(on_both(row, pipe) if row.hand_first else pipe)


def on_both(row: Row, pipe: Pipe) -> Pipe:
    on(pipe, row.given)
    return on(pipe, row.act)


def without_erasures(row: Row) -> Tensor:
    return paint(on_both(row, base()))


@pytest.fixture(autouse=True)
def uncompiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def attached(pipe: Pipe, erasures: Mapping[str, efface.Erasure], names: Sequence[str]) -> Editor:
    return Editor(pipe, *(erasures[name] for name in names), registry=REGISTRY)


@pytest.mark.parametrize(("row", "when"), CASES)
def test_a_row(row: Row, when: str, erasures: Mapping[str, efface.Erasure]) -> None:
    if why := missing(row):
        pytest.skip(why)
    erased = ("linear",) if when == "fused" else row.erased
    outcome, pipe = row.outcome(when), base()
    on(pipe, row.given)
    painter = on(pipe, row.act) if when == "before" else pipe
    if outcome == "refused":
        with pytest.raises(efface.EffaceError, match=row.error):
            attached(pipe, erasures, erased)
        assert Wiring.of(pipe) is None
        return
    editor = attached(pipe, erasures, erased)
    if when == "fused":
        editor.fuse()
    plan = plan_of(editor)
    if when != "before":
        painter = on(pipe, row.act)
    check(row, outcome, painter, editor, plan, erased)
    take_off(row, pipe, painter, editor)


def plan_of(editor: Editor) -> object:
    return editor._wiring.plan


def check(row: Row, outcome: str, painter: Pipe, editor: Editor, plan: object, erased: Sequence[str]) -> None:
    if outcome == "raises":
        for _ in range(2):
            with pytest.raises(EditLost, match=row.error):
                paint(painter)
        return
    assert editor.verify() == []
    found, plain = paint(painter), without_erasures(row)
    if outcome == "base":
        assert torch.equal(found, plain)
        return
    wanted = by_hand(row, erased)
    effect = (wanted - plain).abs().max()
    assert effect > 0.1, "the edits hardly change this picture"
    assert (found.to(wanted) - wanted).abs().max() <= (
        max(row.tolerance, row.rounded) if editor.fused else row.tolerance
    ) * effect
    assert (plan_of(editor) is not plan) == (outcome == "re-attaches")


def take_off(row: Row, pipe: Pipe, painter: Pipe, editor: Editor) -> None:
    """Without its erasures the pipeline paints what it paints with the feature alone, to the last bit."""
    editor.close()
    if (own := Editor.of(painter)) is not None:
        own.close()
    assert Wiring.of(pipe) is None
    if row.act not in (copied_unet, saved) and not row.hand_first:
        assert torch.equal(paint(painter), without_erasures(row))


def test_two_pipelines_in_two_threads_paint_what_each_paints_alone(erasures: Mapping[str, efface.Erasure]) -> None:
    pipes = [base(), base()]
    editors = [attached(pipes[0], erasures, ["everywhere", "word"]), attached(pipes[1], erasures, ["linear"])]
    alone = [paint(pipe, num_inference_steps=6) for pipe in pipes]
    together: dict[int, Tensor] = {}
    threads = [
        threading.Thread(target=lambda n=n: together.update({n: paint(pipes[n], num_inference_steps=6)}))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert torch.equal(together[number], alone[number])
        editors[number].close()
    assert not torch.equal(*alone)


# The page


def cells(row: Row) -> list[str]:
    """A row as the page has it. What needs a device or library that CI does not have is in brackets."""
    outcomes = [f"({one})" if row.needs and one != "-" else one for one in (row.before, row.after, row.fused)]
    notes = [row.note, *([f"not run without {row.needs}"] if row.needs else [])]
    return [row.feature, *outcomes, "; ".join(note for note in notes if note)]


def table() -> str:
    threads = ["two pipelines in two threads", "-", "works", "-", "each has its own editor"]
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in [*map(cells, ROWS), threads])


def page_with(text: str) -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(HEAD)
    lines = rest.splitlines(keepends=True)
    after = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    return before + text + "".join(lines[after:])


def test_the_page_has_this_table() -> None:
    assert HEAD in PAGE.read_text(encoding="utf-8")
    assert page_with(table()) == PAGE.read_text(encoding="utf-8"), "write it anew: python tests/coexistence/..."


def test_every_row_says_what_happens() -> None:
    outcomes = {"works", "re-attaches", "raises", "refused", "base", "-"}
    assert {row.outcome(when) for row in ROWS for when in ("before", "after", "fused")} == outcomes
    assert len({row.feature for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert bool(row.error) == bool({"raises", "refused"} & {row.before, row.after, row.fused}), row.feature


if __name__ == "__main__":
    PAGE.write_text(page_with(table()), encoding="utf-8")
