"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from efface.cli.console import Console
from efface.errors import BadSetting
from efface.method import SEEDS

if TYPE_CHECKING:
    from efface.devices import Offload

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

CONTEXT = {"help_option_names": ["-h", "--help"]}

pass_console = click.make_pass_decorator(Console, ensure=True)


def example(*lines: str) -> str:
    """The end of a help text: command lines to try, as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def command(*examples: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with examples at the end of its help."""
    return click.command(context_settings=CONTEXT, epilog=example(*examples))


class Finite(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A finite number of at least zero."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            self.fail(f"{value!r} is not a number of 0 or more", param, ctx)
        return number


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or a number with s, m or h after it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip().lower()
        try:
            seconds = float(text.rstrip("smh")) * UNITS[text.lstrip("0123456789.")]
        except (ValueError, KeyError):
            self.fail(f"{value!r} is not a time such as 90, 90s, 10m or 2h", param, ctx)
        return seconds


class Seed(click.ParamType):  # type: ignore[type-arg]
    """What a random generator takes as its seed."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            seed = int(value)
        except ValueError:
            seed = -1
        if seed not in SEEDS:
            self.fail(f"{value!r} is not a whole number from 0 to {SEEDS[-1]}", param, ctx)
        return seed


def _set_json(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Console).json |= value


def _set_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    ctx.ensure_object(Console).config = value


def _set_offload(ctx: click.Context, _param: click.Parameter, value: Offload | None) -> None:
    ctx.ensure_object(Console).offload = value


def _set_quiet(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Console).quiet |= value


def model_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL, and `--config` for one that is a single file."""
    config = click.option(
        "--config",
        metavar="FOLDER",
        expose_value=False,
        callback=_set_config,
        help="For a single file: a diffusers folder of its family, for all but weights.",
    )
    return click.argument("model")(config(function))


def device_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--device`, and `--offload` for one with little memory."""
    device = click.option("--device", default="cpu", show_default=True, help="Where to compute, such as cuda:0.")
    offload = click.option(
        "--offload",
        type=click.Choice(["model", "sequential"]),
        expose_value=False,
        callback=_set_offload,
        help="Keep weights in main memory, and bring them to the device by models or by layers.",
    )
    return device(offload(function))


json_option = click.option("--json", is_flag=True, expose_value=False, callback=_set_json, help="Print JSON.")
quiet_option = click.option(
    "-q", "--quiet", is_flag=True, expose_value=False, callback=_set_quiet, help="Show no progress."
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the model.",
)
other_base_option = click.option(
    "--allow-other-base", is_flag=True, help="Let an erasure pass that was made for other weights."
)
scale_option = click.option(
    "--scale",
    "scales",
    type=Finite(),
    multiple=True,
    help="Strength of the erasures, 1 as fitted: once for all of them, or once for each.",
)


def sampling_options(steps: int = 20, guidance: float | None = 7.5, batch_size: int = 8) -> Decorator:
    """`--steps`, `--guidance` and `--batch-size`; without a guidance of its own the command gets None unless told."""
    whose = "" if guidance is not None else "  [what the suite's, else 7.5]"
    options = (
        click.option("--steps", type=click.IntRange(1), default=steps, show_default=True, help="Denoising steps."),
        click.option(
            "--guidance",
            type=Finite(),
            default=guidance,
            show_default=guidance is not None,
            help=f"How closely to follow the prompt.{whose}",
        ),
        click.option(
            "--batch-size", type=click.IntRange(1), default=batch_size, show_default=True, help="Pictures made at once."
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def suite_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--suite` and `--suite-set`."""

    def named(ctx: click.Context, _param: click.Parameter, settings: tuple[str, ...]) -> tuple[str, ...]:
        if settings and ctx.params.get("suite") is None:
            raise click.UsageError("--suite-set is for the suite that --suite names")
        return settings

    name = click.option(
        "--suite",
        is_eager=True,
        help="Who judges the pictures.  [the first installed one that accepts the model]",
    )
    settings = click.option(
        "--suite-set",
        "suite_settings",
        multiple=True,
        metavar="NAME=VALUE",
        callback=named,
        help="A setting of the suite; may be repeated.",
    )
    return name(settings(function))


def pairs(given: Sequence[str], option: str = "--set", such_as: str = "lamb=0.1") -> dict[str, object]:
    """What `--set NAME=VALUE` gives, each name once."""
    settings: dict[str, object] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise BadSetting(f"{option} takes NAME=VALUE, such as {option} {such_as}, not {text!r}")
        if name.strip() in settings:
            raise BadSetting(f"{option} gives {name.strip()!r} twice")
        settings[name.strip()] = value
    return settings
