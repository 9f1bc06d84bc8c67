"""The documentation is true: its code runs and prints what it shows, its tables are complete, its links lead on."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from click.testing import CliRunner

import efface
import efface_hooks.errors
import efface_hooks.patch
from efface import erasure, fingerprint, header, hookspecs, registry
from efface.cli import group
from efface.evaluation.gallery import CACHE
from efface.settings import Setting, describe
from efface.suite import settings_of
from efface.testing import FAMILIES, tiny_pipeline

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SITE = sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))
READMES = [f"{path.parent.relative_to(ROOT)}/README.md" for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))]
CONTRIBUTED = [f"contrib/{name}/README.md" for name in ("adavd", "esd", "judges", "uce")]
PAGES = ["README.md", *SITE, *CONTRIBUTED, *READMES]


# Reading a page


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title if it has one, its text, the line where that begins."""

    language: str
    title: str
    text: str
    line: int
    follows: bool
    """Whether nothing but space is between this block and the one before."""


def source(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    found, end = [], 0
    for match in re.finditer(r"^```(\w+)(?: title=\"(.+?)\")?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start(3)) + 1
        follows = bool(found) and not text[end : match.start()].strip()
        found.append(Block(match[1], match[2] or "", match[3], line, follows))
        end = match.end()
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), "a fence is not closed or has no language"
    return found


def prose(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", source(page), flags=re.MULTILINE | re.DOTALL)


def section(page: str, heading: str) -> str:
    """The text under a heading, up to the next one of its rank or a higher one."""
    text = source(page)
    match = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert match, f"{page} has no heading {heading!r}"
    rest = text[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def tables(text: str) -> list[list[list[str]]]:
    """The rows of every table, heads left out, each cell without the marks of code."""
    found = re.findall(r"^\|.*\n\|[-:| ]+\n((?:\|.*\n)*)", text, re.MULTILINE)
    return [[[cell.strip() for cell in row[1:-1].split("|")] for row in body.splitlines()] for body in found]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def column(text: str, number: int = 0, table: int = 0) -> list[str]:
    """One column of a table, the code in it where there is some."""
    return [
        cell if not codes(cell) else ", ".join(codes(cell)) for cell in (row[number] for row in tables(text)[table])
    ]


def names(cells: list[str]) -> set[str]:
    """The names in a column of calls such as `weight(point)` and lists such as `pipe, unet`."""
    return {re.sub(r"\(.*?\)", "", name).strip() for cell in cells for name in re.sub(r"\(.*?\)", "", cell).split(",")}


# Running a page


class Failed(AssertionError):
    """What a page says is not so."""


@dataclass
class Reader:
    """Somebody who types in a page from top to bottom, in an empty folder."""

    page: str
    folder: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__docs__"})
    ran: int = 0

    def read(self, found: list[Block]) -> None:
        for block, shown in zip_longest(found, found[1:]):
            expected = shown.text if shown and shown.follows and shown.language == "text" else None
            self.type(block, expected)

    def type(self, block: Block, expected: str | None) -> None:
        where = f"{self.page}, line {block.line}"
        if block.title:
            (self.folder / block.title).write_text(block.text)
            importlib.invalidate_caches()
            if block.title.startswith("test_"):
                self.test(block.title.removesuffix(".py"))
        elif block.language == "python":
            printed = self.python(block)
            if expected is not None:
                agree(where, expected, printed)
        elif block.language in ("console", "bash"):
            for command, output in commands(block):
                agree(f"{where}: {command}", output, self.command(command, where))
        else:
            assert block.language in ("text", "toml"), f"{where}: nothing is known of {block.language}"
            return
        self.ran += 1

    def python(self, block: Block) -> str:
        code = compile("\n" * (block.line - 1) + block.text, str(ROOT / self.page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self.names)
        return printed.getvalue()

    def test(self, module: str) -> None:
        known = vars(importlib.import_module(module)).items()
        tests = [one for name, one in known if name.startswith("test_")]
        assert tests or any(name.startswith("Test") for name, _ in known), f"{module} has no test"
        for one in tests:
            one()

    def command(self, command: str, where: str) -> str:
        match shlex.split(command, comments=True):
            case ["efface", *arguments]:
                result = CliRunner().invoke(group.efface, arguments, prog_name="efface")
                if result.exit_code != 0:
                    raise Failed(
                        f"{where}: {command}\nexit code {result.exit_code}: {result.output}"
                    ) from result.exception
                return result.stdout
            case ["pytest", *arguments]:
                return self.pytest(arguments, where)
            case ["make", *targets]:
                assert set(targets) <= make_targets(), f"{where}: the Makefile has no {targets}"
            case ["pip", "install", "--editable", "."]:
                self.install()
            case [".", ".venv/bin/activate"]:
                pass
            case _:
                raise Failed(f"{where}: this test does not know how to check {command!r}")
        return ""

    def pytest(self, arguments: list[str], where: str) -> str:
        """In a process of its own, as somebody would run it; the folder is on its path."""
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(self.folder), *arguments]
        environment = os.environ | {"PYTHONPATH": str(self.folder)}
        result = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise Failed(f"{where}\n{result.stdout}{result.stderr}")
        return result.stdout

    def install(self) -> None:
        """What pip would leave in site-packages for the pyproject.toml that the page has written."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        info = self.folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
            f"Summary: {project['description']}\n"
        )
        lines = [
            f"[{kind}]\n" + "\n".join(f"{name} = {module}" for name, module in entries.items())
            for kind, entries in project["entry-points"].items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()


def commands(block: Block) -> Iterator[tuple[str, str | None]]:
    """Each command of a block with the output that is shown for it, None where none is."""
    if block.language == "bash":
        yield from ((line, None) for line in block.text.splitlines() if line.strip())
        return
    assert block.text.startswith("$ "), f"a console block begins with '$ ': {block.text!r}"
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output or None


def agree(where: str, expected: str | None, printed: str) -> None:
    """Raise unless the output is what the page shows: `...` stands for anything, any spaces for any others."""
    if expected is None:
        return
    wanted, got = squeezed(expected), squeezed(printed)
    if not re.fullmatch(re.escape(wanted).replace(r"\.\.\.", ".*?"), got, re.DOTALL):
        raise Failed(f"{where}\n--- shown\n{wanted}\n--- printed\n{got}")


def squeezed(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", source("Makefile"), re.MULTILINE))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Reader]]:
    """A reader in a folder of its own, from which modules can be imported; nothing of it stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for variable in (registry.LOAD, registry.DISABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    before = set(sys.modules)
    yield lambda page: Reader(page, tmp_path)
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == tmp_path:
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_is_so(page: str, reader: Callable[[str], Reader]) -> None:
    picturebook = importlib.import_module("efface_picturebook")
    assert (picturebook.weights() / "model_index.json").is_file(), (
        f"no weights of picturebook: {page} cannot be executed"
    )
    found = blocks(source(page))
    one = reader(page)
    one.read(found)
    assert one.ran == len([block for block in found if block.title or block.language in ("python", "console", "bash")])


# Whether this file would notice


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\nassert False\n```\n", AssertionError),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", Failed),
        ("```console\n$ efface plugins\nno such line\n```\n", Failed),
        ("```console\n$ efface no-such-command\n```\n", Failed),
        ("```bash\nmake no-such-target\n```\n", AssertionError),
        ("```bash\nrm something\n```\n", Failed),
        ('```python title="test_it.py"\ndef test_it():\n    assert False\n```\n', AssertionError),
        ("```pythn\n```\n", AssertionError),
        ("```python\nprint(1)\n", AssertionError),
    ],
)
def test_a_page_that_is_wrong_fails(text: str, fault: type[Exception], reader: Callable[[str], Reader]) -> None:
    with pytest.raises(fault):
        reader("a page").read(blocks(text))


def test_shown_output_may_leave_parts_out() -> None:
    agree("", "a  b ... d\n...", "a b c d\ne\nf")
    for printed in ("a b d\ne", "a b c\ne"):
        with pytest.raises(Failed):
            agree("", "a b c d\n...", printed)


# Form


@pytest.mark.parametrize("page", SITE)
def test_a_page_opens_with_what_its_reader_can_do(page: str) -> None:
    assert re.match(r"# .+\n\n\*After this page you (can|know) [^*]+\.\*\n", source(page))


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """The ids that mkdocs gives to headings."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head.replace("`", "")).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for link in links(prose(page)):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://arxiv.org/abs/"), f"{page}: {link}"
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.is_file(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}; there are {sorted(anchors(target))}"
        if page in SITE:
            assert target.resolve().is_relative_to(DOCS), f"{page}: {link} leaves the site"


def test_every_page_is_in_the_navigation_once() -> None:
    def listed(entries: list[Any]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from listed(value) if isinstance(value, list) else [value]

    navigation = list(listed(yaml.safe_load(source("mkdocs.yml"))["nav"]))
    assert sorted(f"docs/{page}" for page in navigation) == SITE


LOADS = re.compile(
    r"""!\[[^\]]*\]\(\s*(https?:)?// | (src|srcset|data|poster|xlink:href)\s*=\s*["']?(https?:)?// | @import
    | url\(\s*["']?(https?:)?// | <(image|use)\b[^>]*href\s*=\s*["']?(https?:)?// | <link\b | <script\b | <iframe\b""",
    re.VERBOSE | re.IGNORECASE,
)


def test_no_page_loads_anything_from_elsewhere() -> None:
    others = [
        path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*") if path.suffix in (".svg", ".css", ".js", ".html")
    ]
    for page in [*PAGES, *others]:
        assert not LOADS.search(source(page)), f"{page}: {LOADS.search(source(page))}"
    config = yaml.safe_load(source("mkdocs.yml"))
    assert config["theme"]["font"] is False
    assert "http" not in str(config), "mkdocs.yml names something on the network"


@pytest.mark.parametrize(
    "text",
    ["![a](https://x.org/a.png)", '<img src="//x.org/a.png">', "@import 'a'", "url(http://x.org/f)", "<script>"],
)
def test_loading_from_elsewhere_would_be_seen(text: str) -> None:
    assert LOADS.search(text)


@pytest.mark.parametrize("page", PAGES)
def test_every_name_in_the_text_exists(page: str) -> None:
    owners: dict[str, Any] = {
        "efface": efface,
        "Editor": efface.Editor,
        "editor": efface.Editor,
        "erasure": efface.Erasure,
    }
    owners |= {"Erasure": efface.Erasure, "call": efface.Call, "patch": efface.Patch, "run": efface.Run}
    owners |= {"fitted": efface.Fitted, "model": efface.Model}
    for code in codes(prose(page)):
        match = re.match(r"([a-zA-Z]+)\.(\w+)", code)
        if match and match[1] in owners and code != "efface.commands":
            owner = owners[match[1]]
            submodule = inspect.ismodule(owner) and importlib.util.find_spec(f"efface.{match[2]}")
            known = hasattr(owner, match[2]) or match[2] in getattr(owner, "__dataclass_fields__", ())
            assert known or submodule, f"{page}: {code}"


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_in_the_text_exists(page: str) -> None:
    for code in codes(prose(page)):
        if code.startswith("make "):
            assert code.split()[1] in make_targets(), f"{page}: {code}"


def test_every_folder_of_the_readme_exists() -> None:
    folders = [cell for row in tables(section("README.md", "Where things are"))[0] for cell in codes(row[0])]
    assert len(folders) > 3
    assert all((ROOT / folder).is_dir() for folder in folders)


# Hooks


SPECS = {name: spec for name, spec in vars(hookspecs).items() if hasattr(spec, f"{hookspecs.PROJECT}_spec")}
BRINGS: dict[str, Callable[[registry.Registry, Any], Any]] = {
    "efface_methods": lambda found, pipe: [method.name for method in found.methods().values()],
    "efface_models": lambda found, pipe: [model.name for model in found.models().values()],
    "efface_suites": lambda found, pipe: [
        one.name for one in found.suites().values() if one.accepts(efface.Model(pipe))
    ],
    "efface_points": lambda found, pipe: [point.name for point in found.points(pipe)],
}


def signature(spec: Callable[..., Any]) -> str:
    return f"{spec.__name__}{inspect.signature(spec)}".replace("'", "")


def test_the_tutorials_method_takes_fewer_than_sixty_lines() -> None:
    files = [block.text for block in blocks(source("docs/plugins/tutorial.md")) if block.title]
    assert len(files) == 3
    assert sum(1 for text in files for line in text.splitlines() if line.strip()) < 60


def hook_page(name: str) -> str:
    return f"docs/plugins/hooks/{name.removeprefix(f'{hookspecs.PROJECT}_')}.md"


def test_every_hook_has_its_page_and_its_test_here() -> None:
    assert SPECS.keys() == BRINGS.keys()
    assert sorted(map(hook_page, SPECS)) == [page for page in SITE if page.startswith("docs/plugins/hooks/")]
    listed = tables(section("docs/plugins.md", "The hooks"))[0]
    assert [codes(row[0])[0] for row in listed] == [signature(spec) for spec in SPECS.values()]


@pytest.mark.parametrize("hook", SPECS)
def test_a_hook_has_its_signature_as_heading_and_an_example_that_works(
    hook: str, reader: Callable[[str], Reader]
) -> None:
    page = hook_page(hook)
    assert source(page).startswith(f"# `{signature(SPECS[hook])}`\n")
    one = reader(page)
    one.read(blocks(source(page)))

    class Plugin:
        pass

    setattr(Plugin, hook, staticmethod(one.names[hook]))
    found = registry.Registry([Plugin])
    brought = BRINGS[hook](found, tiny_pipeline("sd1"))
    assert brought
    assert found.broken == []


def test_the_example_of_a_point_can_be_edited(reader: Callable[[str], Reader]) -> None:
    page = hook_page("efface_points")
    one = reader(page)
    one.read(blocks(source(page)))
    pipe, seen = tiny_pipeline("sd1"), []
    (point,) = one.names["efface_points"](pipe)
    patch = efface.Patch(pipe, [point])
    patch.output(point, lambda x, call: seen.append(x) or x)
    efface_hooks.Wiring(pipe).set([patch])
    pipe("a cat", num_inference_steps=1, output_type="latent")
    assert [x.shape for x in seen] == [(len(x), point.out_features) for x in seen]
    assert seen


def test_a_models_fields_are_listed_on_its_hooks_page() -> None:
    for hook, brought in (("efface_models", efface.NamedModel), ("efface_points", efface.HookPoint)):
        assert sorted(names(column(source(hook_page(hook))))) == sorted(one.name for one in fields(brought))


# Tables


def test_methods_that_work_are_there_and_planned_ones_are_not() -> None:
    rows = tables(section("README.md", "Methods"))[0]
    states = {re.sub(r"\[(.*?)\].*", r"\1", row[0]): row[2] for row in rows}
    assert {name for name, state in states.items() if state == "works"} == set(registry.Registry.installed().methods())
    assert set(states.values()) <= {"works", "planned"}


def test_all_commands_are_listed() -> None:
    listed = [code.split()[1] for code in column(section("docs/commands.md", "All of them"))]
    assert listed == list(group.COMMANDS)


def test_all_errors_are_explained() -> None:
    def below(module: Any, *bases: type[Exception]) -> set[str]:
        exported = [getattr(module, name) for name in module.__all__]
        return {
            one.__name__ for one in exported if inspect.isclass(one) and issubclass(one, bases) and one not in bases
        }

    page = source("docs/errors.md")
    solver = section("docs/errors.md", "From the solver")
    bases = (efface.HookError, efface.EffaceError)
    assert set(column(solver)) == below(importlib.import_module("efface.solver"), *bases)
    listed = [name for number in range(len(tables(page))) for name in column(page, 0, number)]
    assert sorted(set(listed) - set(column(solver))) == sorted(below(efface, *bases))
    assert len(listed) == len(set(listed))


def test_the_vocabulary_and_the_verbs_are_efface_own() -> None:
    words = names(column(section("docs/architecture.md", "Vocabulary")))
    assert words <= set(efface.__all__)
    verbs = names(column(section("docs/architecture.md", "Verbs and their algebra")))
    assert verbs == set(get_args(efface_hooks.patch.Verb))


def test_the_tolerances_are_the_ones_in_use() -> None:
    stated = [
        float(number) for number in re.findall(r"1e-\d", section("docs/architecture.md", "The base it was made for"))
    ]
    assert stated == [fingerprint.TOLERANCE, fingerprint.BFLOAT16_TOLERANCE]


def test_the_fields_of_the_header_are_listed_in_their_order() -> None:
    stated = column(section("docs/artifact.md", "The header"))
    assert stated == ["format", *(one.name for one in fields(header.Header)), "sha256"]
    text = section("docs/artifact.md", "The header")
    assert f"format: {header.FORMAT} |" in text
    assert [word for word in re.findall(r"\w+", text) if word in header.DTYPES] == list(header.DTYPES)
    (versions,) = (row[1] for row in tables(text)[0] if "libraries" in row[0])
    assert [word for word in re.findall(r"\w+", versions) if word in erasure.LIBRARIES] == list(erasure.LIBRARIES)
    refused = section("docs/artifact.md", "What loading refuses")
    assert f"more than {erasure.LARGEST_HEADER // 2**20} MiB" in refused
    assert f"more than {header._DEEPEST} deep" in refused


@pytest.mark.parametrize("method", ["uce", "erasepro", "realera", "gloce", "dumo", "esd", "adavd"])
def test_the_settings_of_a_method_are_the_ones_it_has(method: str) -> None:
    rows = [
        [codes(cell)[0] if codes(cell) else cell for cell in row]
        for row in tables(section(f"docs/methods/{method}.md", "Settings"))[0]
    ]
    known = describe(registry.Registry.installed().method(method))
    assert rows == [
        [one.name, one.type.replace(" | ", ", "), as_shown(one.default), least(one), one.help] for one in known
    ]


def test_the_settings_of_the_judges_are_the_ones_they_have() -> None:
    stated = {
        (suite, *(codes(cell)[0] if codes(cell) else cell for cell in rest))
        for names, *rest in tables(section("docs/judges.md", "Settings"))[0]
        for suite in codes(names)
    }
    suites = registry.Registry.installed().suites()
    known = {
        (name, one.name, as_shown(one.default) if one.name != "labels" else "the five above", one.help)
        for name in ("artists", "explicit", "mass", "objects")
        for one in settings_of(suites[name])
    }
    assert stated == known


def test_the_words_of_the_ten_objects_are_listed() -> None:
    concepts = registry.Registry.installed().suite("objects").concepts()
    assert tables(section("docs/judges.md", "Objects: synonyms and paraphrases"))[0] == [
        [one.text, ", ".join(one.synonyms), ", ".join(one.held_out)] for one in concepts
    ]


def as_shown(default: object) -> str:
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return "none" if default is None else str(default)


def least(one: Setting) -> str:
    return "" if one.min is None else str(one.min)


def test_what_fit_may_use_is_all_that_a_model_has() -> None:
    public = {name for name in vars(efface.Model) if not name.startswith("_")} | {"pipe", "unet", "registry"}
    assert names(column(section("docs/plugins.md", "What `fit` may use"))) == public


def test_the_environment_variables_are_the_ones_that_count() -> None:
    assert column(section("docs/plugins.md", "Which plugins load")) == [registry.LOAD, registry.DISABLE]


# Hook points


@pytest.fixture(scope="module")
def pipes() -> dict[str, Any]:
    return {family: tiny_pipeline(family) for family in FAMILIES}


def test_every_kind_is_listed_with_its_verbs(pipes: dict[str, Any]) -> None:
    rows = tables(section("docs/hook-points.md", "Kinds"))[0]
    stated = {kind: tuple(codes(takes)) for kinds, _, takes in rows for kind in codes(kinds)}
    kinds = dict.fromkeys(point.kind for pipe in pipes.values() for point in efface.points(pipe))
    takes = efface_hooks.patch.TAKES
    assert stated == {kind: takes.get(kind, efface_hooks.patch.PROJECTION_TAKES) for kind in (*kinds, "weight")}


def test_the_names_are_names_of_points(pipes: dict[str, Any]) -> None:
    rows = tables(section("docs/hook-points.md", "Names"))[0]
    assert len(rows) > 5
    for kind, first, second in rows:
        for family, name in (("sd1", first), ("sd2", first), ("sdxl", second)):
            assert efface_hooks.find(pipes[family], codes(name)[0]).kind == codes(kind)[0]


def test_the_counts_are_right(pipes: dict[str, Any]) -> None:
    skips, first, encoders = tables(section("docs/hook-points.md", "Names"))[1]
    for family, number in (("sd1", 1), ("sd2", 1), ("sdxl", 2)):
        found = efface.points(pipes[family])
        assert int(skips[number]) == len([point for point in found if point.kind == "skip"])
        assert next(point.name for point in found if point.kind == "cross_attn.k").startswith(
            codes(first[number])[0] + "."
        )
        assert int(encoders[number]) == len({point.component for point in found} - {"unet"})


@pytest.mark.parametrize("family", FAMILIES)
def test_edits_get_the_shapes_that_are_stated(pipes: dict[str, Any], family: str) -> None:
    pipe = pipes[family]
    stated = {kind: row[1:] for row in tables(section("docs/hook-points.md", "Shapes"))[0] for kind in codes(row[0])}
    seen: dict[tuple[str, str], torch.Size] = {}

    def note(point: efface.HookPoint, verb: str) -> Callable[[Any, efface.Call], Any]:
        def edit(x: torch.Tensor, call: efface.Call) -> torch.Tensor:
            seen[point.name, verb] = x.shape
            return x

        return edit

    patch = efface.Patch(pipe)
    places = [point for point in patch.points if point.kind != "step"]
    for point in places:
        for verb in {"input", "output"} & set(
            efface_hooks.patch.TAKES.get(point.kind, efface_hooks.patch.PROJECTION_TAKES)
        ):
            getattr(patch, verb)(point, note(point, verb))
    wiring = efface_hooks.Wiring(pipe)
    wiring.set([patch])
    try:
        pipe(["a cat", "a dog"], height=16, width=32, num_inference_steps=1, output_type="latent")
    finally:
        wiring.clear()
    for point in places:
        texts = stated.get(point.kind) or stated[point.kind.partition(".")[0] + ".*"]
        for verb, text in zip(("input", "output"), texts, strict=True):
            assert bool(text) == ((point.name, verb) in seen), (point, verb)
            if text:
                check_shape(point, text, seen[point.name, verb])


def check_shape(point: efface.HookPoint, text: str, shape: torch.Size) -> None:
    """Two prompts of 16 tokens, with guidance, for latents that are twice as wide as high."""
    symbols = text.strip("()").split(", ")
    assert len(symbols) == len(shape), (point, text, shape)
    for symbol, size in zip(symbols, shape, strict=True):
        if symbol.startswith("`"):
            assert size == getattr(point, symbol.strip("`")), (point, text, shape)
        else:
            batch = 4 if point.component == "unet" else 2
            sizes = {"B": (batch,), "T": (16,), "h": (8, 4, 2, 1), "w": (16, 8, 4, 2), "h w": (128, 32, 8, 2)}
            assert size in sizes[symbol], (point, text, shape)


def test_all_that_a_call_knows_is_listed() -> None:
    public = {name for name, value in vars(efface.Call).items() if not name.startswith("_")} | {"memo"}
    assert names(column(section("docs/hook-points.md", "What an edit knows"))) == public
