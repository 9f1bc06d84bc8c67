"""The plugins of one process: found by entry points, loaded when asked for, each on its own.

pluggy's loader stops at the first plugin that fails, and so does a hook call. Here every plugin has a plugin manager
of its own, so that one plugin's fault is reported and costs nobody else anything.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import pluggy

from efface import hookspecs
from efface.errors import (
    EffaceError,
    PluginError,
    UnknownMethod,
    UnknownModel,
    UnknownPlugin,
    UnknownSuite,
    unknown,
)
from efface.method import METHOD_NAME, check_method
from efface.named import NamedModel
from efface.suite import check_suite

if TYPE_CHECKING:
    from efface.header import Header
    from efface.method import Method
    from efface.model import Model
    from efface.suite import Suite
    from efface_hooks import HookPoint

GROUP = "efface"
DISABLE = "EFFACE_DISABLE_PLUGINS"
LOAD = "EFFACE_LOAD_PLUGINS"
LONG = 30.0  # seconds; importing torch on a busy machine takes half of that

T = TypeVar("T")


@dataclass(frozen=True)
class PluginInfo:
    """What a plugin's metadata says; a plugin that is no installed distribution has "" there."""

    name: str
    distribution: str
    version: str
    summary: str
    module: str
    disabled: bool = False

    def goes_by(self, name: str) -> bool:
        """Whether this is a name of the plugin or of its distribution."""
        return canonical(name) in (canonical(self.name), canonical(self.distribution))


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that was skipped, wholly or for one hook: when it failed, the error in a line, the traceback."""

    plugin: PluginInfo
    during: str
    error: str
    traceback: str


@dataclass(frozen=True, eq=False)
class _Source:
    info: PluginInfo
    load: Callable[[], object]


class _Provided(NamedTuple):
    info: PluginInfo
    name: str
    item: Any


class Registry:
    """The methods, models and hook points that plugins bring.

    `Registry.installed()` reads the entry points of the group "efface"; `Registry(plugins)` takes modules or
    objects with hook implementations instead. Nothing is imported before it is asked for.
    """

    def __init__(self, plugins: Iterable[object] = ()) -> None:
        self._sources = tuple(map(_given, plugins))
        self._managers: dict[_Source, pluggy.PluginManager | None] = {}
        self._contributed: dict[tuple[_Source, str], tuple[Any, ...]] = {}
        self._broken: dict[tuple[_Source, str], BrokenPlugin] = {}

    @classmethod
    def installed(cls, environment: Mapping[str, str] | None = None) -> Registry:
        """The plugins installed here, less those that the environment (this process's, by default) leaves out.

        EFFACE_LOAD_PLUGINS names the only ones to load (none if it is empty), EFFACE_DISABLE_PLUGINS the ones
        not to load; both are comma lists of plugin or distribution names.
        """
        registry = cls()
        registry._sources = tuple(_installed(os.environ if environment is None else environment))
        return registry

    def plugins(self) -> list[PluginInfo]:
        """Every plugin there is, disabled ones too, from metadata alone."""
        return [source.info for source in self._sources]

    def plugin(self, name: str) -> PluginInfo:
        """The plugin of this name, or the first one of the distribution of this name."""
        return self._sources_of(name)[0].info

    @property
    def broken(self) -> list[BrokenPlugin]:
        """What went wrong in any plugin; loads them all."""
        self._provided("efface_methods")
        self._provided("efface_models")
        self._provided("efface_suites")
        return list(self._broken.values())

    def methods(self) -> dict[str, type[Method]]:
        """Every method by name; where several plugins use one name, by `distribution:name`."""
        return _keyed(self._provided("efface_methods"))

    def method(self, name: str) -> type[Method]:
        """The method of this name, or of the name `distribution:name`."""
        return cast("type[Method]", self._one("method", "efface_methods", name, UnknownMethod))

    def method_of(self, header: Header) -> type[Method]:
        """The method that made an erasure, from the distribution its header names where that is installed."""
        installed = header.distribution in {plugin.distribution for plugin in self.plugins()} - {""}
        return self.method(f"{header.distribution}:{header.method}" if installed else header.method)

    def models(self) -> dict[str, NamedModel]:
        """Every model by name; where several plugins use one name, by `distribution:name`."""
        return _keyed(self._provided("efface_models"))

    def model(self, name: str) -> NamedModel:
        """The model of this name, or of the name `distribution:name`."""
        return cast(NamedModel, self._one("model", "efface_models", name, UnknownModel))

    def suites(self) -> dict[str, Suite]:
        """Every suite by name; where several plugins use one name, by `distribution:name`."""
        return _keyed(self._provided("efface_suites"))

    def suite(self, name: str) -> Suite:
        """The suite of this name, or of the name `distribution:name`."""
        return cast("Suite", self._one("suite", "efface_suites", name, UnknownSuite))

    def suite_for(self, model: Model) -> Suite | None:
        """The first suite, by name, that accepts the model and need not be asked for; None where there is none."""
        offered = (suite for suite in self.suites().values() if not suite.only_by_name)
        return next((suite for suite in offered if suite.accepts(model)), None)

    def points(self, pipe: object) -> list[HookPoint]:
        """The hook points that plugins add to this pipeline, plugin by plugin."""
        return [
            point
            for source in self._sources
            if not source.info.disabled
            for point in self._called(source, "efface_points", pipe=pipe)
        ]

    def origin(self, method_class: type[Method]) -> tuple[str, str]:
        """The distribution and version that a method came with; two empty strings for a class no plugin brings."""
        for provided in self._provided("efface_methods"):
            if provided.item is method_class:
                return provided.info.distribution, provided.info.version
        return "", ""

    def _sources_of(self, owner: str) -> Sequence[_Source]:
        found = [source for source in self._sources if source.info.goes_by(owner)]
        if not found:
            names = {name for info in self.plugins() for name in (info.name, info.distribution) if name}
            raise UnknownPlugin(unknown("plugin", owner, names))
        return found

    def _provided(self, hook: str, owner: str = "") -> list[_Provided]:
        return [
            _Provided(source.info, item.name, item)
            for source in (self._sources_of(owner) if owner else self._sources)
            if not source.info.disabled
            for item in self._contributions(source, hook)
        ]

    def _contributions(self, source: _Source, hook: str) -> tuple[Any, ...]:
        if (source, hook) not in self._contributed:
            self._contributed[source, hook] = self._called(source, hook)
        return self._contributed[source, hook]

    def _called(self, source: _Source, hook: str, **arguments: object) -> tuple[Any, ...]:
        manager = self._manager(source)
        if manager is None:
            return ()
        return self._guarded(source, hook, lambda: _results(manager, hook, arguments)) or ()

    def _manager(self, source: _Source) -> pluggy.PluginManager | None:
        if source not in self._managers:
            self._managers[source] = self._guarded(source, "import", lambda: _opened(source))
        return self._managers[source]

    def _guarded(self, source: _Source, during: str, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may well call sys.exit() when it is imported
            text = "".join(traceback.format_exception(error))
            self._broken[source, during] = BrokenPlugin(source.info, during, _in_a_line(error), text)
            return None

    def _one(self, what: str, hook: str, wanted: str, error: type[EffaceError]) -> object:
        owner, _, name = wanted.rpartition(":")
        provided = self._provided(hook, owner)
        found = [candidate for candidate in provided if candidate.name == name]
        if not found:
            raise error(unknown(what, wanted, _keyed(provided)) + self._absent())
        if len(found) > 1:
            choices = ", ".join(_keyed(found))
            raise PluginError(f"Several plugins bring a {what} {name!r}; choose one of: {choices}")
        return found[0].item

    def _absent(self) -> str:
        """What an error about a missing name adds: the plugins it may have been meant to come from."""
        faults = [f"{broken.plugin.name} ({broken.error})" for broken in self._broken.values()]
        faults += [f"{info.name} (disabled)" for info in self.plugins() if info.disabled]
        return f" Not loaded: {', '.join(faults)}." if faults else ""


def canonical(name: str) -> str:
    """A distribution or plugin name in the one spelling that counts: lower case, single hyphens."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _given(plugin: object) -> _Source:
    name = str(getattr(plugin, "__name__", type(plugin).__name__))
    return _Source(PluginInfo(name, "", "", "", name), lambda: plugin)


def advertised(group: str) -> list[PluginInfo]:
    """What installed distributions offer under a group of entry points, from metadata alone."""
    return [source.info for source in _installed(os.environ, group)]


def _installed(environment: Mapping[str, str], group: str = GROUP) -> list[_Source]:
    found: dict[tuple[str, str], _Source] = {}
    for distribution in importlib.metadata.distributions():
        for entry in _entry_points(distribution, group):
            source = _Source(_info(entry, distribution, environment), entry.load)
            # the first on sys.path is the one that an import finds
            found.setdefault((source.info.distribution, source.info.name), source)
    return sorted(found.values(), key=lambda source: (source.info.name, source.info.distribution))


def _entry_points(distribution: importlib.metadata.Distribution, group: str) -> Iterator[importlib.metadata.EntryPoint]:
    try:
        entries = distribution.entry_points
    except Exception:  # somebody's damaged metadata must not hide every plugin
        return
    yield from (entry for entry in entries if entry.group == group)


def _info(
    entry: importlib.metadata.EntryPoint,
    distribution: importlib.metadata.Distribution,
    environment: Mapping[str, str],
) -> PluginInfo:
    metadata: Mapping[str, Any] = cast("Mapping[str, Any]", distribution.metadata) or {}
    name, version, summary = (str(metadata.get(key) or "") for key in ("Name", "Version", "Summary"))
    info = PluginInfo(entry.name, canonical(name), version, summary, entry.value)
    return replace(info, disabled=_disabled(info, environment))


def _disabled(info: PluginInfo, environment: Mapping[str, str]) -> bool:
    refused = _names(environment.get(DISABLE, ""))
    if any(map(info.goes_by, refused)):
        return True
    return LOAD in environment and not any(map(info.goes_by, _names(environment[LOAD])))


def _names(comma_list: str) -> list[str]:
    return [name for name in comma_list.split(",") if name.strip()]


def _opened(source: _Source) -> pluggy.PluginManager:
    """A manager with this one plugin, whose every hook is one of ours."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    specified = [name for name in vars(manager.hook) if not name.startswith("_")]
    with _named_if_long(source.info):
        plugin = source.load()
    manager.register(plugin, source.info.name)
    callers = manager.get_hookcallers(plugin) or []
    for caller in callers:
        if not caller.has_spec() and not all(impl.optionalhook for impl in caller.get_hookimpls()):
            raise PluginError(unknown("hook", caller.name, specified, "efface has"))
    if not callers:
        raise PluginError(f"{source.info.module} implements no hook with @efface.hookimpl; there are: {specified}")
    return manager


@contextmanager
def _named_if_long(plugin: PluginInfo) -> Iterator[None]:
    """A warning in the log while a plugin takes long to load: one that hangs would leave nobody a hint."""
    text = f"Plugin {plugin.name} has been loading for {LONG:g} s; {DISABLE}={plugin.name} leaves it out"
    timer = threading.Timer(LONG, logging.getLogger("efface").warning, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _results(manager: pluggy.PluginManager, hook: str, arguments: Mapping[str, object]) -> tuple[Any, ...]:
    """What the plugin's implementations of a hook return, as one checked tuple."""
    results = getattr(manager.hook, hook)(**arguments)
    for result in results:
        if not isinstance(result, list | tuple):
            raise PluginError(f"{hook} must return a list, not {result!r}")
    items = tuple(item for result in results for item in result)
    for item in items:
        _CHECKS[hook](item)
    _check_names_differ(hook, items)
    return items


def _check_names_differ(hook: str, items: Iterable[Any]) -> None:
    for name, times in Counter(item.name for item in items).items():
        if times > 1:
            raise PluginError(f"{hook} returns {times} of the name {name!r}")


def _check_model(model: object) -> None:
    if not isinstance(model, NamedModel):
        raise PluginError(f"efface_models must return NamedModel objects, not {model!r}")
    if not METHOD_NAME.fullmatch(model.name):
        raise PluginError(f"A model's name is lower case, such as 'my-model', not {model.name!r}")


def _check_point(point: object) -> None:
    from efface_hooks import HookPoint

    if not isinstance(point, HookPoint):
        raise PluginError(f"efface_points must return HookPoint objects, not {point!r}")


_CHECKS: Mapping[str, Callable[[object], None]] = {
    "efface_methods": check_method,
    "efface_models": _check_model,
    "efface_suites": check_suite,
    "efface_points": _check_point,
}


def _keyed(provided: Sequence[_Provided]) -> dict[str, Any]:
    """Items by name, and by qualified name where the name alone means several."""
    return dict(sorted((_key(candidate, provided), candidate.item) for candidate in provided))


def _key(candidate: _Provided, provided: Sequence[_Provided]) -> str:
    owners = [rival.info.distribution for rival in provided if rival.name == candidate.name]
    if len(owners) == 1:
        return candidate.name
    owner = candidate.info.distribution
    return f"{owner if owner and owners.count(owner) == 1 else candidate.info.name}:{candidate.name}"


def _in_a_line(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "its message cannot be read"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
