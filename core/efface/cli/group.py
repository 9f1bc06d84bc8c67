"""The top of the command line: finds commands when they are used and turns errors into one line each."""

from __future__ import annotations

import traceback
from typing import Any

import click

from efface.cli.commands import COMMANDS, command_of, present
from efface.cli.console import Console, printable
from efface.cli.extensions import Extensions
from efface.cli.options import CONTEXT, example
from efface.errors import unknown
from efface_hooks.errors import HookError

INTERRUPTED = 130


class UserError(click.ClickException):
    """What a person can put right, in one line on stderr."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in message.splitlines()))

    def show(self, file: Any = None) -> None:
        click.echo(f"Error: {printable(self.message)}", err=True)


class Commands(click.Group):
    """efface's own commands by the table above, and those of the entry-point group `efface.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*present(), *(name for name in Extensions.installed().names() if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            return command_of(cmd_name) if cmd_name in present() else None
        return Extensions.installed().command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(unknown("command", args[0], self.list_commands(ctx), "there are"), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line per command; those of plugins are described by their metadata and stay unloaded."""
        width = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl([(name, command_of(name).get_short_help_str(width)) for name in present()])
        others = [row for row in Extensions.installed().summaries() if row[0] not in COMMANDS]
        if others:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(others)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _short(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo(ctx.ensure_object(Console).interrupted(), err=True)
            ctx.exit(INTERRUPTED)
        except click.UsageError as error:
            raise _short(error) from error
        except BrokenPipeError:
            raise
        except (HookError, OSError) as error:
            if ctx.ensure_object(Console).debug:
                click.echo(traceback.format_exc(), err=True, nl=False)
            raise UserError(_in_words(error)) from error


@click.command(
    cls=Commands,
    context_settings=CONTEXT,
    epilog=example("efface erase picturebook --concept cat --anchor dog --method uce", "efface COMMAND --help"),
)
@click.version_option(None, "--version", package_name="efface", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, envvar="EFFACE_DEBUG", help="Show tracebacks and what libraries advise.")
@click.pass_context
def efface(ctx: click.Context, debug: bool) -> None:
    """Erase concepts from text-to-image diffusion models.

    MODEL is the name of an installed model, a local diffusers folder, a single safetensors file, or a hub id
    (owner/name).
    """
    ctx.obj = Console(debug)


def _short(error: click.UsageError) -> click.ClickException:
    """The error without the lines on usage that click puts before it."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error
    hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    return UserError(error.format_message() + hint)


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__
