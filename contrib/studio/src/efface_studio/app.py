"""The page."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import efface
from efface.method import Progress
from efface_studio.form import Field, fields, phrases, settings
from efface_studio.session import Session, Shot

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported; nothing is sent anywhere

import gradio as gr

if TYPE_CHECKING:
    from PIL.Image import Image

P = ParamSpec("P")
T = TypeVar("T")

DEFAULTS = "the defaults"
CSS = """
.erasure { align-items: center }
#before img, #after img { width: 100%; height: 100%; object-fit: contain }
footer { display: none !important }
"""
BUTTONS = ["download", "fullscreen"]  # gradio's own third one would send the picture away
SIDE = 320


def serve(session: Session, *, host: str, port: int, browser: bool) -> None:
    """Shows the page until the process is ended."""
    page(session).launch(
        server_name=host, server_port=port, inbrowser=browser, share=False, quiet=True, theme=gr.themes.Base(), css=CSS
    )


def page(session: Session) -> gr.Blocks:
    """Left what is erased, right how it looks; what is on is one list for everybody who has the page open."""
    with gr.Blocks(title="efface studio", analytics_enabled=False) as blocks:
        version = gr.State(0)
        gr.Markdown("# efface studio")
        with gr.Row():
            with gr.Column(scale=2):
                model_menu(session, version)
                erasing(session, version)
            with gr.Column(scale=3):
                listed(session, version)
                comparing(session)
                saving(session)
    return blocks


def model_menu(session: Session, version: gr.State) -> None:
    """The models that plugins bring, or any that efface can load."""
    named = list(session.registry.models())
    choices = named if session.model in named else [session.model, *named]
    menu = gr.Dropdown(
        choices,
        value=session.model,
        label="Model",
        info="a name, a folder, or a hub id",
        allow_custom_value=True,
        elem_id="model",
    )

    def opened(name: str, number: int) -> int:
        told(session.open)(name)
        return number + 1

    menu.input(opened, [menu, version], version, concurrency_id="pipe")


def erasing(session: Session, version: gr.State) -> None:
    """The form: what to erase, by which method, at which settings; its fields are made from the method's settings."""
    names = list(session.registry.methods())
    known = example(session)
    with gr.Row():
        concept = gr.Textbox(known[0], label="Erase", info="what is to go", elem_id="concept", interactive=True)
        anchor = gr.Textbox(
            known[1], label="Becomes", info="empty for nothing special", elem_id="anchor", interactive=True
        )
    with gr.Row():
        synonyms = gr.Textbox(
            label="Other words for it", info="with commas between", elem_id="synonyms", interactive=True
        )
        keep = gr.Textbox(
            known[2], label="Keep", info="prompts that stay as they are", elem_id="keep", interactive=True
        )
    with gr.Row():
        method = gr.Dropdown(names, value=names[0] if names else None, label="Method", elem_id="method")
        preset = gr.Dropdown([DEFAULTS], value=DEFAULTS, label="Settings from", elem_id="preset")

    def presets_of(name: str) -> Any:
        return gr.Dropdown([DEFAULTS, *getattr(session.registry.method(name), "presets", {})], value=DEFAULTS)

    if names:
        preset.choices = [(one, one) for one in (DEFAULTS, *getattr(session.registry.method(names[0]), "presets", {}))]
    method.change(presets_of, method, preset)

    @gr.render(inputs=[method, preset])  # type: ignore[untyped-decorator]
    def form(name: str | None, chosen: str) -> None:
        if not name:
            gr.Markdown("No installed plugin brings a method.")
            return
        cls = session.registry.method(name)
        gr.Markdown((cls.__doc__ or "").strip().partition("\n\n")[0])
        button = gr.Button("Erase", variant="primary", elem_id="erase")
        status = gr.Markdown(elem_id="status")
        with gr.Accordion("Settings", open=True):
            inputs = [shown(one) for one in fields(cls, getattr(cls, "presets", {}).get(chosen))]

        def fit(
            text: str, becomes: str, words: str, kept: str, number: int, *typed: object, bar: gr.Progress = PROGRESS
        ) -> tuple[str, int]:
            wanted = told(efface.Concept)(text, becomes.strip() or None, phrases(words))
            label = told(session.erase)(
                wanted, name, told(settings)(cls, typed), keep=phrases(kept), progress=moved(bar)
            )
            return f"**{label}** is on.", number + 1

        button.click(
            fit,
            [concept, anchor, synonyms, keep, version, *inputs],
            [status, version],
            show_progress_on=status,
            concurrency_id="pipe",
        )


def listed(session: Session, version: gr.State) -> None:
    """What is on the pipeline: each erasure with a switch, its strength, and a way off."""
    gr.Markdown("### On the model")

    @gr.render(inputs=[version])  # type: ignore[untyped-decorator]
    def entries(_number: int) -> None:
        if not session.entries:
            gr.Markdown("Nothing is erased.")
        for entry in session.entries:
            row(session, version, entry.label, entry.scale, entry.enabled)


def row(session: Session, version: gr.State, label: str, strength: float, on: bool) -> None:
    with gr.Row(elem_classes="erasure"):
        switch = gr.Checkbox(on, label=label, elem_id=f"on-{label}", min_width=120, interactive=True)
        scale = gr.Slider(
            0, max(2.0, strength), strength, step=0.05, label="Strength", elem_id=f"scale-{label}", interactive=True
        )
        off = gr.Button("Take off", size="sm", min_width=80, elem_id=f"off-{label}")
    # every change counts, also while the one before is still on its way: Gradio would drop it
    at_once = {"concurrency_id": "pipe", "trigger_mode": "multiple"}
    switch.input(lambda value: told(session.switch)(label, value), switch, None, **at_once)
    scale.release(lambda value: told(session.scale)(label, value), scale, None, **at_once)

    def taken(number: int) -> int:
        told(session.detach)(label)
        return number + 1

    off.click(taken, version, version, concurrency_id="pipe")


def comparing(session: Session) -> None:
    """The same prompt and seed without the erasures and with them."""
    suite = session.suite
    with gr.Row():
        prompt = gr.Textbox(prompt_of(session), label="Prompt", scale=3, elem_id="prompt")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="seed", min_width=80)
        steps = gr.Number(20, label="Steps", precision=0, minimum=1, elem_id="steps", min_width=80)
        guidance = gr.Number(suite.guidance if suite else 7.5, label="Guidance", minimum=1, min_width=80)
    with gr.Row():
        draw = gr.Button("Draw", variant="primary", elem_id="draw")
        maps = gr.Button("Where do they act?", elem_id="maps")
    picture: dict[str, Any] = {"height": SIDE, "interactive": False, "format": "png", "buttons": BUTTONS}
    with gr.Row():
        before = gr.Image(label="Before", elem_id="before", **picture)
        after = gr.Image(label="After", elem_id="after", **picture)
    caption = gr.Markdown(elem_id="caption")
    gallery = gr.Gallery(
        label="Drawn by the methods",
        columns=1,
        object_fit="contain",
        height="auto",
        visible=False,
        elem_id="gallery",
        format="png",
        buttons=BUTTONS,
    )
    shot = [prompt, seed, steps, guidance]

    def drawn(
        text: str, number: float, count: float, strength: float, bar: gr.Progress = PROGRESS
    ) -> tuple[Image, Image, str]:
        with session.lock:  # so that nothing is switched between the pictures and what is said of them
            before, after = told(session.pictures)(taken(text, number, count, strength), moved(bar))
            return before, after, f"After: with {on(session)}."

    def acted(text: str, number: float, count: float, strength: float, bar: gr.Progress = PROGRESS) -> Any:
        found = told(session.illustrations)(taken(text, number, count, strength), moved(bar))
        if not found:
            gr.Info("No method of the erasures that are on draws where it acts.")
        return gr.Gallery([(one.image, f"{label}: {one.about}") for label, one in found], visible=bool(found))

    draw.click(drawn, shot, [before, after, caption], concurrency_id="pipe")
    maps.click(acted, shot, gallery, concurrency_id="pipe")


def saving(session: Session) -> None:
    with gr.Row():
        save = gr.Button("Save erasures and policy file", elem_id="save")
    saved = gr.Markdown(elem_id="saved")
    save.click(lambda: "\n".join(f"- `{path}`" for path in told(session.save)()), None, saved, concurrency_id="pipe")


def shown(one: Field) -> Any:
    """The input of a field."""
    common = {"label": one.name, "info": one.help, "elem_id": f"setting-{one.name}", "interactive": True}
    match one.kind:
        case "switch":
            return gr.Checkbox(bool(one.value), **common)
        case "choice":
            return gr.Dropdown(list(one.choices), value=one.value, **common)
        case "whole":
            return gr.Number(one.value, precision=0, minimum=one.min, maximum=one.max, **common)
        case "number":
            return gr.Number(one.value, minimum=one.min, maximum=one.max, step=0.01, **common)
        case "text":
            return gr.Textbox(str(one.value), **common)


def example(session: Session) -> tuple[str, str, str]:
    """Concept, anchor and kept prompts to begin with, where a suite knows the model."""
    if session.suite is None:
        return "", "", ""
    request = session.suite.example
    return request.concepts[0].text, request.concepts[0].anchor or "", ", ".join(request.keep[:4])


def prompt_of(session: Session) -> str:
    if session.suite is None:
        return "a photo"
    concept = session.suite.example.concepts[0]
    return session.suite.templates(concept.kind)[0].replace("{}", concept.text)


def on(session: Session) -> str:
    """The erasures that act, each with its strength where that is not 1."""
    acting = [entry for entry in session.entries if entry.acts]
    return (
        ", ".join(entry.label if entry.scale == 1 else f"{entry.label} at {entry.scale:g}" for entry in acting)
        or "nothing erased"
    )


def taken(prompt: str, seed: float, steps: float, guidance: float) -> Shot:
    return Shot(prompt, int(seed), int(steps), float(guidance))


def moved(bar: gr.Progress) -> Progress:
    """efface's progress on the page's bar."""
    return lambda done, total, what: bar((done, total), desc=what)


def told(work: Callable[P, T]) -> Callable[P, T]:
    """Errors of efface are said on the page in their own words."""

    def tell(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return work(*arguments, **named)
        except efface.HookError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    return tell


PROGRESS = gr.Progress()
