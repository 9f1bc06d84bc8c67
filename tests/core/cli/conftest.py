"""The command line as people meet it: run in an empty folder, with one plugin and a tiny model installed."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from efface.cli.group import efface
from efface.testing.pipelines import tiny_pipeline

JUDGE = """
import efface
import numpy as np


class Judge(efface.Suite):
    name = "judge"
    summary = "cats and dogs"
    digest = "1"
    guidance = 3.0
    example = efface.Request((efface.Concept("cat", "dog"),))

    def accepts(self, model):
        return True

    def concepts(self, kind=None):
        return [efface.SuiteConcept(one) for one in ("cat", "dog") if kind in (None, "object")]

    def templates(self, kind):
        return ["a {}"]

    def found(self, images, concept):
        return np.array([np.asarray(image).mean() / 255 for image in images])


@efface.hookimpl
def efface_suites():
    return [Judge()]
"""

PLUGIN = '''
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import efface.hookspecs
from efface.method import Covers, Fit
from efface.named import NamedModel
from efface.settings import setting


@dataclass(frozen=True)
class Dim:
    """Dims the words.

    A toy with a low-rank map of the text.
    """

    name: ClassVar[str] = "dim"
    cost_hint: ClassVar[float] = 1.5
    covers: ClassVar[Covers] = Covers(families=("sd1",), kinds=("text", "cross_attn.*"), bypassed_by=("image prompts",))
    presets: ClassVar[dict] = {"strong": {"strength": 0.5, "layers": (1, 2)}}
    strength: float = setting(0.1, min=0, max=1, help="how much is taken away")
    mode: Literal["near", "far"] = setting("near", help="where it is taken away")
    layers: tuple[int, ...] = setting((), help="which layers")

    def fit(self, model, request, run):
        import torch

        width = model.points("text")[0].in_features
        up = torch.randn(width, 1, generator=run.generator()) * self.strength
        for step in range(3):
            run.progress(step, 3, "dimming")
        return Fit({"up": up, "down": up.T.clone()}, report={"loss": {"first": 2.0, "last": 1.0}})

    def apply(self, patch, fits):
        from efface_hooks import LowRank

        for fitted in fits:
            patch.map("unet.text", LowRank(fitted.fit.tensors["up"], fitted.fit.tensors["down"]))


@dataclass(frozen=True)
class Stop(Dim):
    """Is interrupted, after its first checkpoint if it may write one."""

    name: ClassVar[str] = "stop"
    covers: ClassVar[Covers] = Covers(kinds=("text", "nowhere"))

    def fit(self, model, request, run):
        if run.folder:
            (run.folder / "step-1").write_text("half way")
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Chat(Dim):
    """Talks where it should not."""

    name: ClassVar[str] = "chat"

    def fit(self, model, request, run):
        print("on stdout")
        logging.getLogger("transformers").warning("an advice")
        logging.getLogger("chat").warning("a warning")
        return super().fit(model, request, run)


@efface.hookspecs.hookimpl
def efface_methods():
    return [Dim, Stop, Chat]


@efface.hookspecs.hookimpl
def efface_models():
    return [NamedModel("tiny", "A model of noise.", lambda: Path(os.environ["TINY_MODEL"]), "a picture")]
'''

Install = Callable[..., None]
Run = Callable[..., Result]


def installed(folder: Path, distribution: str, modules: Mapping[str, str], entries: str) -> None:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    about = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\nSummary: About {distribution}.\n"
    )
    (about / "entry_points.txt").write_text(entries)
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def judge() -> str:
    """Source for a plugin's end: a suite that tells cats and dogs by how bright a picture is."""
    return JUDGE


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one structure with different weights: the folders `one` and `other`."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("one", "other")):
        tiny_pipeline("sd1", seed=seed).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed distributions with the toy plugin."""
    folder = tmp_path_factory.mktemp("site")
    installed(folder, "efface-toys", {"efface_toys": PLUGIN}, "[efface]\ntoys = efface_toys\n")
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, site: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty folder that every command runs in, here and in the processes it starts; only the toys are loaded."""
    before = set(sys.modules)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("TINY_MODEL", str(models / "one"))
    monkeypatch.setenv("EFFACE_LOAD_PLUGINS", "toys")
    for name in ("EFFACE_DISABLE_PLUGINS", "EFFACE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    yield here
    for name in set(sys.modules) - before:
        if name.startswith(("efface_toys", "extra_")):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs one more distribution, by name, modules and entry points, for as long as the test lasts."""
    own = tmp_path / "site"
    own.mkdir()
    monkeypatch.syspath_prepend(own)
    monkeypatch.setenv("PYTHONPATH", f"{own}:{site}")

    def install(distribution: str, modules: Mapping[str, str], entries: str, *, plugin: str = "") -> None:
        installed(own, distribution, modules, entries)
        monkeypatch.setenv("EFFACE_LOAD_PLUGINS", f"toys,{plugin or distribution}")

    return install


@pytest.fixture
def run() -> Run:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(efface, arguments, prog_name="efface")

    return run


@pytest.fixture
def refused(run: Run, place: Path) -> Callable[..., str]:
    """Runs a command that must end as a user's error: its one line, with nothing printed and nothing written."""

    def refused(*arguments: str) -> str:
        before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
        return result.stderr.removeprefix("Error: ").rstrip("\n")

    return refused


@pytest.fixture(scope="session")
def _erasure(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def erasure(_erasure: dict[str, Path], run: Run, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An erasure of "cat" to "dog" from the model `one`, in the file dim-cat.safetensors."""
    if not _erasure:
        file = tmp_path_factory.mktemp("erasure") / "dim-cat.safetensors"
        result = run("erase", "tiny", "--concept", "cat", "--anchor", "dog", "--method", "dim", "-o", str(file))
        assert result.exit_code == 0, result.output
        _erasure["file"] = file
    return Path(shutil.copy(_erasure["file"], place))
