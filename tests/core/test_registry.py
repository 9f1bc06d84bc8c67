"""Plugins are found by their metadata, loaded one by one, and fail one by one."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from efface.concept import Concept, Request
from efface.errors import BadSetting, PluginError, UnknownMethod, UnknownModel, UnknownPlugin, UnknownSuite
from efface.hookspecs import hookimpl
from efface.named import NamedModel
from efface.registry import PluginInfo, Registry
from efface.settings import setting
from efface.suite import Suite, SuiteConcept, check_suite, configured, settings_of
from efface_hooks import HookPoint

METHOD = """
from dataclasses import dataclass
from typing import ClassVar

import efface.hookspecs
from efface.settings import setting

@dataclass(frozen=True)
class {title}:
    name: ClassVar[str] = "{method}"
    rate: float = setting(0.5, help="how much")

    def fit(self, model, request, run): ...
    def apply(self, patch, fits): ...

@efface.hookspecs.hookimpl
def efface_methods():
    return [{title}]
"""

Install = Callable[..., None]


def method_module(method: str) -> str:
    return METHOD.format(title=method.title(), method=method)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs distributions of one module each on a sys.path entry that lasts as long as the test."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("EFFACE_DISABLE_PLUGINS", raising=False)
    monkeypatch.delenv("EFFACE_LOAD_PLUGINS", raising=False)
    before = set(sys.modules)

    def write(distribution: str, source: str, *, plugin: str = "", version: str = "1.0", target: str = "") -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(source)
        folder = tmp_path / f"{module}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\nSummary: About {distribution}.\n"
        )
        name = plugin or distribution.removeprefix("fake-")
        (folder / "entry_points.txt").write_text(f"[efface]\n{name} = {target or module}\n")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("fake"):
            del sys.modules[name]


def fakes(registry: Registry) -> list[PluginInfo]:
    return [info for info in registry.plugins() if info.distribution.startswith("fake")]


def faults(registry: Registry) -> dict[str, str]:
    return {broken.plugin.name: broken.error for broken in registry.broken}


def test_an_installed_plugin_brings_its_method(install: Install) -> None:
    install("fake-blur", method_module("blur"))
    registry = Registry.installed()
    assert registry.method("blur").name == "blur"
    assert registry.methods()["blur"] is registry.method("blur")
    assert "blur" not in faults(registry)


def test_a_method_knows_where_it_came_from(install: Install) -> None:
    install("fake-blur", method_module("blur"), version="1.2.3")
    registry = Registry.installed()
    assert registry.origin(registry.method("blur")) == ("fake-blur", "1.2.3")


def test_metadata_is_read_without_importing_anything(install: Install) -> None:
    install("fake-blur", "raise RuntimeError('imported')")
    registry = Registry.installed()
    assert fakes(registry) == [PluginInfo("blur", "fake-blur", "1.0", "About fake-blur.", "fake_blur")]
    assert registry.plugin("blur") is registry.plugin("Fake_Blur")
    assert "fake_blur" not in sys.modules


def test_a_plugin_that_takes_long_to_load_is_named_meanwhile(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("efface.registry.LONG", 0.2)
    install("fake-slow", "import time; time.sleep(1)\n" + method_module("slow"))
    install("fake-quick", method_module("quick"))
    registry = Registry.installed({"EFFACE_LOAD_PLUGINS": "slow,quick"})
    assert {"slow", "quick"} <= set(registry.methods())
    (said,) = caplog.messages
    assert said == "Plugin slow has been loading for 0.2 s; EFFACE_DISABLE_PLUGINS=slow leaves it out"


def test_the_first_distribution_on_the_path_counts(install: Install) -> None:
    install("fake-blur", method_module("blur"), version="1.0")
    (Path(sys.path[0]) / "late").mkdir()
    older = Path(sys.path[0]) / "fake_blur-1.0.dist-info"
    newer = Path(sys.path[0]) / "late" / "fake_blur-2.0.dist-info"
    newer.mkdir()
    for file in older.iterdir():
        (newer / file.name).write_text(file.read_text().replace("1.0", "2.0"))
    sys.path.append(str(newer.parent))
    try:
        assert [info.version for info in fakes(Registry.installed())] == ["1.0"]
    finally:
        sys.path.remove(str(newer.parent))


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import a_module_nobody_has", "ModuleNotFoundError: No module named 'a_module_nobody_has'"),
        ("def (", "SyntaxError: invalid syntax (fake_bad.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("class Odd(BaseException): ...\nraise Odd('two\\nlines')", "Odd: two lines"),
        (
            "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute",
            "Mute: its message cannot be read",
        ),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_reported_and_skipped(install: Install, source: str, error: str) -> None:
    install("fake-bad", source)
    install("fake-blur", method_module("blur"))
    registry = Registry.installed()
    assert registry.method("blur").name == "blur"
    [broken] = [broken for broken in registry.broken if broken.plugin.name == "bad"]
    assert (broken.during, broken.error) == ("import", error)
    assert "Traceback" in broken.traceback
    assert "fake_bad" in broken.traceback


def test_ctrl_c_while_a_plugin_is_imported_is_no_fault_of_the_plugin(install: Install) -> None:
    install("fake-bad", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry.installed().methods()


def test_an_entry_point_to_nothing_is_reported(install: Install) -> None:
    install("fake-bad", "", target="fake_bad:plugin")
    assert faults(Registry.installed())["bad"] == "AttributeError: module 'fake_bad' has no attribute 'plugin'"


def test_a_misspelled_hook_is_refused(install: Install) -> None:
    install("fake-bad", method_module("bad").replace("efface_methods", "efface_method"))
    install("fake-blur", method_module("blur"))
    registry = Registry.installed()
    assert faults(registry)["bad"] == (
        "PluginError: No hook 'efface_method'; efface has: efface_methods, efface_models, efface_points, "
        "efface_suites. Did you mean 'efface_methods'?"
    )
    assert "blur" in registry.methods()
    assert "bad" not in registry.methods()


def test_a_hook_for_a_later_efface_may_be_marked_optional(install: Install) -> None:
    later = "\n@efface.hookspecs.hookimpl(optionalhook=True)\ndef efface_dreams(): ...\n"
    install("fake-blur", method_module("blur") + later)
    assert "blur" in Registry.installed().methods()


def test_a_plugin_without_any_hook_is_told_so(install: Install) -> None:
    install("fake-bad", "def efface_methods(): return []")
    assert "fake_bad implements no hook with @efface.hookimpl" in faults(Registry.installed())["bad"]


def test_a_hook_with_an_unknown_argument_is_refused(install: Install) -> None:
    install("fake-bad", method_module("bad").replace("efface_methods()", "efface_methods(model)"))
    assert "{'model'} are declared in the hookimpl" in faults(Registry.installed())["bad"]


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("exit()", "SystemExit"),
        ("Bad", "PluginError: efface_methods must return a list, not <class 'fake_bad.Bad'>"),
        ("'Bad'", "PluginError: efface_methods must return a list, not 'Bad'"),
        ("[Bad()]", "PluginError: A method is a class, not Bad(rate=0.5); leave out the brackets after its name"),
        ("[None]", "PluginError: A method is a class, not None"),
        ("[Bad, Bad]", "PluginError: efface_methods returns 2 of the name 'bad'"),
    ],
)
def test_a_hook_that_fails_or_returns_nonsense_is_reported(install: Install, returned: str, error: str) -> None:
    install("fake-bad", method_module("bad").replace("return [Bad]", f"return {returned}"))
    install("fake-blur", method_module("blur"))
    registry = Registry.installed()
    [broken] = [broken for broken in registry.broken if broken.plugin.name == "bad"]
    assert broken.during == "efface_methods"
    assert broken.error.startswith(error)
    assert "blur" in registry.methods()


def test_a_hook_that_returns_nothing_brings_nothing(install: Install) -> None:
    install("fake-quiet", method_module("quiet").replace("return [Quiet]", "return None"))
    registry = Registry.installed()
    assert "quiet" not in registry.methods()
    assert "quiet" not in faults(registry)


def test_a_method_that_breaks_the_contract_breaks_its_plugin_only(install: Install) -> None:
    install("fake-bad", method_module("bad").replace("def apply(self, patch, fits)", "def apply(self)"))
    install("fake-blur", method_module("blur"))
    registry = Registry.installed()
    assert "must take apply(self, patch, fits)" in faults(registry)["bad"]
    assert "blur" in registry.methods()


def test_a_name_that_two_plugins_use_is_an_error_only_when_used(install: Install) -> None:
    for distribution in ("fake-blur", "fake-other"):
        install(distribution, method_module("blur"))
    install("fake-fade", method_module("fade"))
    registry = Registry.installed()
    assert registry.method("fade").name == "fade"
    assert {"fade", "fake-blur:blur", "fake-other:blur"} <= registry.methods().keys()
    assert "blur" not in registry.methods()
    with pytest.raises(PluginError) as refused:
        registry.method("blur")
    assert str(refused.value) == (
        "Several plugins bring a method 'blur'; choose one of: fake-blur:blur, fake-other:blur"
    )


def test_a_distribution_selects_among_methods_of_one_name(install: Install) -> None:
    for distribution in ("fake-blur", "fake-other"):
        install(distribution, method_module("blur"))
    registry = Registry.installed()
    chosen = registry.method("fake-other:blur")
    assert registry.origin(chosen) == ("fake-other", "1.0")
    assert registry.method("Fake_Other:blur") is chosen
    assert registry.method("other:blur") is chosen


def test_choosing_a_distribution_loads_no_other(install: Install) -> None:
    install("fake-blur", method_module("blur"))
    install("fake-fade", method_module("fade"))
    Registry.installed().method("fake-blur:blur")
    assert "fake_blur" in sys.modules
    assert "fake_fade" not in sys.modules


def test_an_unknown_method_is_answered_with_what_there_is(install: Install, monkeypatch: Any) -> None:
    monkeypatch.setenv("EFFACE_LOAD_PLUGINS", "blur,bad,fade")
    monkeypatch.setenv("EFFACE_DISABLE_PLUGINS", "fade")
    install("fake-blur", method_module("blur"))
    install("fake-bad", "raise ValueError('no luck')")
    install("fake-fade", method_module("fade"))
    registry = Registry.installed()
    with pytest.raises(UnknownMethod) as refused:
        registry.method("blurr")
    said = str(refused.value)
    assert said.startswith("No method 'blurr'; installed: blur. Did you mean 'blur'? Not loaded: ")
    assert "bad (ValueError: no luck)" in said
    assert "fade (disabled)" in said


def test_an_unknown_plugin_is_answered_with_what_there_is(install: Install) -> None:
    install("fake-blur", method_module("blur"))
    for ask in (Registry.installed().plugin, lambda name: Registry.installed().method(f"{name}:blur")):
        with pytest.raises(UnknownPlugin, match=r"No plugin 'fake-blu'; installed: .*Did you mean 'fake-blur'\?"):
            ask("fake-blu")


@pytest.mark.parametrize("name", ["blur", "fake-blur", "Fake.Blur", " fake_blur ", "nobody, blur"])
def test_a_plugin_can_be_disabled_by_any_of_its_names(install: Install, monkeypatch: Any, name: str) -> None:
    monkeypatch.setenv("EFFACE_DISABLE_PLUGINS", name)
    install("fake-blur", "raise RuntimeError('imported')")
    install("fake-fade", method_module("fade"))
    registry = Registry.installed()
    assert {info.name: info.disabled for info in fakes(registry)} == {"blur": True, "fade": False}
    assert "fade" in registry.methods()
    assert "blur" not in faults(registry)
    with pytest.raises(UnknownMethod, match=r"blur \(disabled\)"):
        registry.method("fake-blur:blur")


@pytest.mark.parametrize(("names", "loaded"), [("blur", ["blur"]), ("", []), ("fake-blur,fade", ["blur", "fade"])])
def test_only_chosen_plugins_load(install: Install, monkeypatch: Any, names: str, loaded: list[str]) -> None:
    monkeypatch.setenv("EFFACE_LOAD_PLUGINS", names)
    install("fake-blur", method_module("blur"))
    install("fake-fade", method_module("fade"))
    assert list(Registry.installed().methods()) == loaded


def test_damaged_metadata_of_somebody_else_hides_no_plugin(install: Install) -> None:
    install("fake-blur", method_module("blur"))
    damaged = Path(sys.path[0]) / "fake_damaged-1.0.dist-info"
    damaged.mkdir()
    (damaged / "entry_points.txt").write_bytes(b"[efface\nno entry\n\xff")
    assert "blur" in Registry.installed().methods()


def test_a_distribution_without_a_name_is_a_plugin_all_the_same(install: Install) -> None:
    install("fake-blur", method_module("blur"))
    (Path(sys.path[0]) / "fake_blur-1.0.dist-info" / "METADATA").write_text("")
    assert "blur" in Registry.installed().methods()


def given(
    *, methods: object = None, models: object = None, suites: object = None, points: object = None
) -> SimpleNamespace:
    """A plugin object that returns these things."""
    hooks: dict[str, Callable[..., object]] = {
        "efface_methods": lambda: methods,
        "efface_models": lambda: models,
        "efface_suites": lambda: suites,
        "efface_points": lambda pipe: points(pipe) if callable(points) else points,
    }
    return SimpleNamespace(__name__="given", **{name: hookimpl(hook) for name, hook in hooks.items()})


def test_a_module_can_be_given_instead_of_installed(install: Install) -> None:
    install("fake-blur", method_module("blur"))
    registry = Registry([importlib.import_module("fake_blur")])
    assert registry.plugins() == [PluginInfo("fake_blur", "", "", "", "fake_blur")]
    assert registry.origin(registry.method("blur")) == ("", "")
    assert registry.method("fake-blur:blur") is registry.method("blur")


def test_given_plugins_of_one_method_name_are_told_apart_by_their_own_names(install: Install) -> None:
    for distribution in ("fake-one", "fake-two"):
        install(distribution, method_module("blur"))
    modules = map(importlib.import_module, ("fake_one", "fake_two"))
    assert list(Registry(modules).methods()) == ["fake_one:blur", "fake_two:blur"]


def test_a_registry_without_plugins_has_nothing() -> None:
    registry = Registry()
    assert (registry.methods(), registry.models(), registry.suites()) == ({}, {}, {})
    assert (registry.points(None), registry.broken) == ([], [])
    with pytest.raises(UnknownMethod, match=r"No method 'blur'; installed: none\."):
        registry.method("blur")


def test_a_class_that_no_plugin_brings_comes_from_nowhere() -> None:
    assert Registry().origin(SimpleNamespace) == ("", "")  # type: ignore[arg-type]


PICTURES = NamedModel("pictures", "Drawn pictures.", path=lambda: Path("pictures"), neutral="a picture")


def test_a_plugin_can_bring_a_model() -> None:
    registry = Registry([given(models=[PICTURES])])
    assert registry.models() == {"pictures": PICTURES}
    assert registry.model("pictures") is PICTURES
    with pytest.raises(UnknownModel, match=r"No model 'picture'; installed: pictures\. Did you mean 'pictures'\?"):
        registry.model("picture")


@pytest.mark.parametrize("wrong", ["pictures", replace(PICTURES, name="a/b"), replace(PICTURES, name="a:b")])
def test_a_model_that_is_none_breaks_nothing_else(wrong: object) -> None:
    registry = Registry([given(models=[wrong]), given(models=[PICTURES])])
    assert list(registry.models()) == ["pictures"]
    assert [broken.during for broken in registry.broken] == ["efface_models"]


class Judge(Suite):
    summary = "Tells a cat."
    digest = "1"
    example = Request((Concept("cat"),))

    def __init__(self, name: str = "judge", accepted: str = "mine", **changes: object) -> None:
        self.name = name
        self.accepted = accepted
        vars(self).update(changes)

    def accepts(self, model: object) -> bool:
        return model == self.accepted

    def concepts(self, kind: object = None) -> list[SuiteConcept]:
        return [SuiteConcept("cat")]

    def templates(self, kind: object) -> list[str]:
        return ["{}"]

    def found(self, images: Sequence[object], concept: str) -> list[float]:  # type: ignore[override]
        return [1.0] * len(images)


def test_a_plugin_can_bring_a_suite() -> None:
    judge = Judge()
    registry = Registry([given(suites=[judge])])
    assert registry.suites() == {"judge": judge}
    assert registry.suite("judge") is judge
    with pytest.raises(UnknownSuite, match=r"No suite 'jury'; installed: judge\."):
        registry.suite("jury")


def test_a_model_gets_the_first_suite_by_name_that_accepts_it() -> None:
    one, two, other = Judge("one"), Judge("two"), Judge("a-first", accepted="another")
    registry = Registry([given(suites=[two, other]), given(suites=[one])])
    assert registry.suite_for("mine") is one  # type: ignore[arg-type]
    assert registry.suite_for("another") is other  # type: ignore[arg-type]
    assert registry.suite_for("yours") is None  # type: ignore[arg-type]


def test_a_suite_that_is_used_by_name_only_is_chosen_for_no_model() -> None:
    shy, other = Judge("a-first", only_by_name=True), Judge("other")
    registry = Registry([given(suites=[shy, other])])
    assert registry.suite_for("mine") is other  # type: ignore[arg-type]
    assert registry.suite("a-first") is shy


def test_a_suite_that_derives_from_ours_may_leave_out_what_it_cannot_tell() -> None:
    judge = Judge()
    assert (judge.scenes("cat"), judge.unrelated("cat"), judge.guidance) == ((), (), 7.5)
    assert judge.region([], "cat") is None
    assert judge.features([]) is None
    assert (judge.facts, judge.measured(["cat"]), judge.only_by_name) == ({}, ["cat"], False)
    judge.prepare()


@dataclass(frozen=True)
class Strict(Judge):
    name: ClassVar[str] = "strict"
    accepted: ClassVar[str] = "mine"
    threshold: float = setting(0.5, min=0, max=1, help="How sure it has to be.")
    words: tuple[str, ...] = setting((), help="What it listens to.")


def test_a_suite_that_is_a_dataclass_has_settings() -> None:
    assert [one.name for one in settings_of(Strict())] == ["threshold", "words"]
    one = configured(Strict(words=("cat",)), {"threshold": "0.75"})
    assert one == Strict(threshold=0.75, words=("cat",))
    assert configured(Strict(), {}) == Strict()
    with pytest.raises(BadSetting, match=r"No setting 'treshold'; it has: threshold, words\. Did you mean"):
        configured(Strict(), {"treshold": 1})
    with pytest.raises(BadSetting, match="'threshold' of strict must be at most 1, not 2"):
        configured(Strict(), {"threshold": 2})


@dataclass(frozen=True)
class Plain(Judge):
    name: str = "plain"
    accepted: str = "mine"


@pytest.mark.parametrize("suite", [Judge(), Plain()])
def test_fields_that_are_no_settings_are_none(suite: Suite) -> None:
    check_suite(suite)
    assert settings_of(suite) == []
    assert configured(suite, {}) is suite
    with pytest.raises(BadSetting, match=f"Suite '{suite.name}' has no settings"):
        configured(suite, {"threshold": 1})


@dataclass(frozen=True)
class Unhelpful(Judge):
    name: ClassVar[str] = "unhelpful"
    threshold: float = setting(0.5, help="")


class Factless(Judge):
    facts = None  # type: ignore[assignment]


class Mute(Suite):
    name = "mute"
    summary = "Says nothing."
    digest = "1"
    example = Request((Concept("cat"),))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (Judge, "efface_suites returns objects, not the class Judge; call it"),
        (Judge("a/b"), "A suite's name is lower case, such as 'my-suite', not 'a/b'"),
        (Judge(summary=None), "has summary = None, which is not what efface.Suite says"),
        (Judge(example="cat"), "has example = 'cat', which is not what efface.Suite says"),
        (Judge(scenes=()), "has no function 'scenes'; derive it from efface.Suite"),
        (Judge(measured=None), "has no function 'measured'; derive it from efface.Suite"),
        (Factless(), "has facts = None, which is not what efface.Suite says"),
        (Unhelpful(), "Setting 'threshold' of unhelpful has no help"),
        (Mute(), "does not define 'accepts', for which there is no default"),
    ],
)
def test_a_suite_that_is_none_breaks_nothing_else(wrong: object, error: str) -> None:
    registry = Registry([given(suites=[wrong]), given(suites=[Judge()])])
    assert list(registry.suites()) == ["judge"]
    (broken,) = registry.broken
    assert broken.during == "efface_suites"
    assert error in broken.error


MIDDLE = HookPoint("unet.mid", "mid", "unet", "", 0, 0, None, None)


def test_a_plugin_can_add_hook_points_of_a_pipeline() -> None:
    deeper = replace(MIDDLE, name="unet.deeper")
    registry = Registry([given(points=lambda pipe: [MIDDLE] if pipe == "mine" else []), given(points=[deeper])])
    assert registry.points("mine") == [MIDDLE, deeper]
    assert registry.points("yours") == [deeper]


@pytest.mark.parametrize("wrong", [lambda pipe: pipe.unet, ["unet.mid"], MIDDLE])
def test_a_plugin_whose_points_fail_is_left_out(wrong: object) -> None:
    registry = Registry([given(points=wrong), given(points=[MIDDLE])])
    assert registry.points("pipe") == [MIDDLE]
    assert [broken.during for broken in registry.broken] == ["efface_points"]


def in_a_fresh_python(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_listing_plugins_imports_nothing_heavy(install: Install) -> None:
    install("fake-blur", "import torch")
    code = (
        "import sys; from efface.registry import Registry; names = [i.name for i in Registry.installed().plugins()];"
        "print('blur' in names, sorted({'torch', 'diffusers', 'transformers', 'fake_blur'} & set(sys.modules)))"
    )
    assert in_a_fresh_python(code) == "True []"
