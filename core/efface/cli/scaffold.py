"""A new plugin, written from templates: installs, passes the linters and the conformance kit as it is."""

from __future__ import annotations

import builtins
import importlib.metadata
import keyword
import os
import re
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from efface.errors import CannotSave, EffaceError
from efface.method import METHOD_NAME
from efface.registry import Registry, canonical

Kind = Literal["weights", "hooks", "trained"]
PREFIX = "efface"
LONGEST = 40


@dataclass(frozen=True)
class Scaffold:
    """The files of a plugin with one method: `name` is the method's, `kind` says what the method is made of."""

    name: str
    kind: Kind

    @property
    def distribution(self) -> str:
        return f"{PREFIX}-{canonical(self.name)}"

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def title(self) -> str:
        """The name of the class: `MyMethod` for `my-method`, with `Method` after it where the bare word is taken."""
        bare = "".join(part.capitalize() for part in re.split("[-_]", self.name))
        taken = keyword.iskeyword(bare) or hasattr(builtins, bare)
        return f"{bare}Method" if taken or re.search(rf"\b{bare}\b", _source(self.kind)) else bare

    def files(self) -> dict[str, str]:
        """Every file's text by its path in the plugin's folder."""
        inside = f"src/{self.package}"
        return {
            "pyproject.toml": self._rendered("pyproject.toml"),
            "README.md": self._rendered("README.md"),
            f"{inside}/__init__.py": self._rendered("init.py"),
            f"{inside}/method.py": self._rendered(f"{self.kind}.py"),
            f"{inside}/py.typed": "",
            "tests/test_conformance.py": self._rendered("test_conformance.py"),
        }

    def write(self, folder: Path) -> None:
        """Makes the folder with all files in it, or none of it; CannotSave when something is there already."""
        if os.path.lexists(folder):
            raise CannotSave(f"Cannot make {folder}: it is there already")
        try:
            with tempfile.TemporaryDirectory(prefix=".efface-", dir=folder.parent) as partial:
                whole = Path(partial) / "plugin"
                for path, text in self.files().items():
                    (whole / path).parent.mkdir(parents=True, exist_ok=True)
                    (whole / path).write_text(text, encoding="utf-8")
                whole.rename(folder)
        except OSError as error:
            raise CannotSave(f"Cannot make {folder}: {error.strerror or error}") from error

    def _rendered(self, template: str) -> str:
        import jinja2

        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
        )
        return environment.from_string(_template(template)).render(
            name=self.name,
            kind=self.kind,
            title=self.title,
            package=self.package,
            distribution=self.distribution,
            requirement=_requirement(),
        )


def check_name(name: str, registry: Registry) -> None:
    """Raise EffaceError for a name that no method may have or that an installed plugin has."""
    if not METHOD_NAME.fullmatch(name) or len(name) > LONGEST:
        raise EffaceError(
            f"A method's name is lower case, such as 'my-method', and has at most {LONGEST} letters, not {name!r}"
        )
    same = [
        method
        for key, method in registry.methods().items()
        if canonical(key.partition(":")[2] or key) == canonical(name)
    ]
    owners = [" ".join(registry.origin(method)) for method in same]
    owners += [f"{plugin.distribution} {plugin.version}" for plugin in registry.plugins() if plugin.goes_by(name)]
    if owners:
        raise EffaceError(f"The name {name!r} is taken by {owners[0]}; choose another one")


def _template(name: str) -> str:
    return (files("efface.cli") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _source(kind: Kind) -> str:
    return "".join(map(_template, ("init.py", f"{kind}.py", "test_conformance.py")))


def _requirement() -> str:
    """This efface and what stays compatible with it: before 1.0 the same minor version."""
    major, minor = importlib.metadata.version("efface").split(".")[:2]
    above = f"0.{int(minor) + 1}" if major == "0" else str(int(major) + 1)
    return f"efface>={major}.{minor},<{above}"
