"""Commands that plugins bring under the entry-point group `efface.commands`; each is loaded on use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import click

from efface.errors import PluginError
from efface.registry import PluginInfo, Registry, advertised

GROUP = "efface.commands"


@dataclass(frozen=True)
class Extensions:
    """What installed distributions offer, from metadata alone, less what the environment leaves out."""

    offers: tuple[PluginInfo, ...]

    @classmethod
    def installed(cls) -> Extensions:
        plugins = Registry.installed().plugins()
        return cls(tuple(offer for offer in advertised(GROUP) if not _left_out(offer, plugins)))

    def names(self) -> list[str]:
        return sorted({offer.name for offer in self.offers})

    def summaries(self) -> list[tuple[str, str]]:
        """Each offer and where it comes from."""
        return [(offer.name, f"{offer.summary} ({offer.distribution} {offer.version})") for offer in self.offers]

    def command(self, name: str) -> click.Command | None:
        """The command of this name, loaded; PluginError in one line where that fails or several claim the name."""
        found = [offer for offer in self.offers if offer.name == name]
        if len(found) > 1:
            owners = ", ".join(offer.distribution for offer in found)
            raise PluginError(f"Several plugins bring a command {name!r}: {owners}; leave out all but one of them")
        return loaded(found[0]) if found else None


def loaded(offer: PluginInfo) -> click.Command:
    """The command behind an offer; PluginError when it cannot be imported or is no click command."""
    where = f"Command {offer.name!r} of {offer.distribution} {offer.version}"
    try:
        command = EntryPoint(offer.name, offer.module, GROUP).load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may well call sys.exit() when it is imported
        raise PluginError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(command, click.Command):
        raise PluginError(f"{where} is {command!r}, not a click command")
    return command


def _left_out(offer: PluginInfo, plugins: list[PluginInfo]) -> bool:
    """A command goes with the plugins of its distribution, or by its own name where there are none."""
    siblings = [plugin for plugin in plugins if plugin.distribution == offer.distribution]
    return all(one.disabled for one in siblings or [offer])
