"""An erasure comes back from its file as it went in, or not at all."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from efface.concept import Concept, Request
from efface.erasure import METADATA_KEY, Erasure
from efface.errors import BadArtifact, BadSetting, CannotSave, PluginError
from efface.header import canonical_json
from efface.method import Fit, Fitted, Run
from efface.settings import build, setting


@dataclass(frozen=True)
class Blur:
    name: ClassVar[str] = "blur"
    rate: float = setting(0.5, min=0, help="how much")
    layers: tuple[int, ...] = setting((1, 2), help="where")

    def fit(self, model: Any, request: Any, run: Run) -> Fit:
        return Fit({})

    def apply(self, patch: Any, fits: Sequence[Fitted]) -> None:
        return


REQUEST = Request((Concept("cat", "animal", ("kitty",)), Concept("chaton é", kind="style")), keep=("dog",))
BASE = {"structure": "abc", "weights": {"unet.w": [0.5, -1.0]}, "name": "tiny"}
POINTS = ("unet.text", "unet.skip.0")


def made(fit: Fit | None = None, method: Blur | None = None, **changes: Any) -> Erasure:
    numbers = torch.Generator().manual_seed(0)
    tensors = {"up": torch.randn(4, 2, generator=numbers), "unet.skip.0:down": torch.arange(6.0).reshape(2, 3)}
    known: dict[str, Any] = {"origin": ("fake-blur", "1.2.3"), "base": BASE, "points": POINTS, "seed": 3}
    found = fit or Fit(tensors, {"eta": 1.5, "windows": [[0, 500]]}, {"loss": 0.25})
    return Erasure.of(method or Blur(), found, REQUEST, **(known | changes))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made().save(tmp_path / "cat.safetensors")
    return tmp_path / "cat.safetensors"


def alone(path: Path) -> bool:
    """Whether nothing but this file is in its folder."""
    return list(path.parent.iterdir()) == [path]


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    loaded, erasure = Erasure.load(saved), made()
    assert loaded == erasure
    assert loaded.header == erasure.header
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in erasure.tensors.items())
    assert alone(saved)


def test_an_erasure_says_what_it_is(saved: Path) -> None:
    erasure = Erasure.load(saved)
    assert erasure.method == "blur"
    assert erasure.request == REQUEST
    assert erasure.concepts == REQUEST.concepts
    assert erasure.fit.facts == {"eta": 1.5, "windows": [[0, 500]]}
    assert erasure.fit.report == {"loss": 0.25}
    assert (erasure.header.distribution, erasure.header.version) == ("fake-blur", "1.2.3")
    assert (erasure.header.base, erasure.header.points, erasure.header.seed) == (BASE, POINTS, 3)
    assert erasure.header.libraries["torch"] == importlib.metadata.version("torch")
    assert repr(erasure) == f"<Erasure of 'cat', 'chaton é' by blur, {erasure.digest[:12]}>"


def test_the_header_builds_the_method_again(saved: Path) -> None:
    assert build(Blur, Erasure.load(saved).header.settings) == Blur()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.5], dtype=torch.float64),
        torch.tensor([1.5], dtype=torch.float16),
        torch.tensor([1.5], dtype=torch.bfloat16),
        torch.tensor([2**40]),
        torch.tensor([-3], dtype=torch.int8),
        torch.tensor([True, False]),
        torch.tensor(2.5),
        torch.empty(0, 3),
        torch.arange(6.0).reshape(2, 3).T,
        torch.zeros(1).expand(3, 4),
        torch.ones(2, requires_grad=True),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{list(tensor.shape)}",
)
def test_tensors_of_every_kind_come_back_bit_for_bit(tmp_path: Path, tensor: Tensor) -> None:
    erasure = made(Fit({"x": tensor}))
    erasure.save(tmp_path / "x")
    back = Erasure.load(tmp_path / "x").tensors["x"]
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(back, tensor)


def test_an_erasure_may_have_no_tensors_and_share_some(tmp_path: Path) -> None:
    made(Fit({})).save(tmp_path / "none")
    assert Erasure.load(tmp_path / "none").tensors == {}
    shared = torch.ones(2, 2)
    made(Fit({"a": shared, "b": shared, "c": shared[0]})).save(tmp_path / "shared")
    assert set(Erasure.load(tmp_path / "shared").tensors) == {"a", "b", "c"}


def test_an_erasure_has_its_own_copy_of_everything() -> None:
    tensor, facts = torch.ones(2), {"windows": [1]}
    erasure = made(Fit({"x": tensor}, facts))
    digest = made(Fit({"x": tensor}, facts)).digest
    tensor.zero_()
    facts["windows"].append(2)
    assert erasure.digest == digest


def test_equal_erasures_have_equal_bytes(tmp_path: Path) -> None:
    made().save(tmp_path / "one")
    Erasure.load(tmp_path / "one").save(tmp_path / "two")
    fit = made().fit
    turned = Fit(dict(reversed(fit.tensors.items())), dict(reversed(fit.facts.items())), fit.report)
    made(turned).save(tmp_path / "three")
    assert len({(tmp_path / name).read_bytes() for name in ("one", "two", "three")}) == 1


@pytest.mark.parametrize(
    "other",
    [
        made(seed=4),
        made(method=Blur(rate=0.25)),
        made(points=("unet.text",)),
        made(base=BASE | {"name": "other"}),
        made(origin=("fake-blur", "1.2.4")),
        made(Fit({"up": torch.zeros(4, 2)})),
    ],
)
def test_any_difference_makes_another_digest(other: Erasure) -> None:
    assert other != made()
    assert other.digest != made().digest


def test_the_sign_of_zero_is_a_difference() -> None:
    assert made(Fit({"x": torch.tensor([0.0])})) != made(Fit({"x": torch.tensor([-0.0])}))


def test_equal_erasures_are_one_in_a_set() -> None:
    assert len({made(), made(), made(seed=4)}) == 2


def test_the_header_can_be_shown_as_json() -> None:
    erasure = made()
    told = json.loads(json.dumps(erasure.to_dict()))
    assert told["format"] == 1
    assert told["settings"] == {"rate": 0.5, "layers": [1, 2]}
    assert told["request"]["concepts"][0]["synonyms"] == ["kitty"]
    assert told["tensors"]["up"] == {"shape": [4, 2], "dtype": "float32"}
    assert told["sha256"] == erasure.digest


def test_the_file_is_plain_safetensors(saved: Path) -> None:
    with safetensors.safe_open(str(saved), "pt") as file:
        assert list(file.metadata()) == [METADATA_KEY]
        assert sorted(file.keys()) == ["unet.skip.0:down", "up"]


@pytest.mark.parametrize(
    ("fit", "says"),
    [
        (Fit({"x": torch.tensor([1.0, float("nan")])}), "tensor 'x' holds numbers that are not finite"),
        (Fit({"x": torch.tensor([float("inf")], dtype=torch.bfloat16)}), "tensor 'x' holds numbers that are not"),
        (Fit({"x": torch.ones(1, dtype=torch.complex64)}), "'tensors.x' must be one of the dtypes float64"),
        (Fit({"../x": torch.ones(1)}), "'tensors' must be a plain name, not '../x'"),
        (Fit({"__metadata__": torch.ones(1)}), "'tensors' must be a plain name, not '__metadata__'"),
        (Fit({"x" * 300: torch.ones(1)}), "'tensors' must be a plain name"),
        (Fit({}, {"window": {0: 1}}), "'facts.window' must be an object with texts as keys, not 0"),
        (Fit({}, {"window": [1, torch.ones(1)]}), "'facts.window[1]' must be JSON with finite numbers, not tensor("),
        (Fit({}, {}, {"loss": float("nan")}), "'report.loss' must be JSON with finite numbers, not nan"),
        (Fit({}, {"count": 2**64}), "'facts.count' must be JSON with finite numbers"),
    ],
)
def test_a_fit_that_cannot_be_kept_is_refused_at_once(fit: Fit, says: str) -> None:
    with pytest.raises(BadArtifact) as refused:
        made(fit)
    assert str(refused.value).startswith("Method 'blur' made no sound erasure: ")
    assert says in str(refused.value)


def test_facts_nested_without_end_are_refused() -> None:
    facts: dict[str, Any] = {}
    facts["again"] = facts
    with pytest.raises(BadArtifact, match="must be nested at most 32 deep"):
        made(Fit({}, facts))


def test_something_else_among_the_tensors_is_the_plugins_fault() -> None:
    with pytest.raises(PluginError, match=r"Method 'blur' returned 'x' as a tensor, which is \[1, 2\]"):
        made(Fit({"x": [1, 2]}))  # type: ignore[dict-item]


def test_settings_out_of_bounds_are_refused() -> None:
    with pytest.raises(BadSetting, match="'rate' of blur must be at least 0, not -1"):
        made(method=Blur(rate=-1))


@pytest.mark.parametrize(
    "changes",
    [
        {"points": ["unet/text"]},
        {"points": ["unet..text"]},
        {"points": [3]},
        {"origin": ("../fake", "1")},
        {"origin": ("fake", "1\n")},
        {"seed": -1},
        {"seed": True},
        {"base": {"weights": {1}}},
    ],
)
def test_other_facts_that_cannot_be_kept_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadArtifact):
        made(**changes)


def test_saving_again_replaces_the_file(saved: Path) -> None:
    made(seed=9).save(saved)
    assert Erasure.load(saved).header.seed == 9
    assert alone(saved)


def test_a_link_stays_a_link_to_the_new_content(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    made().save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert Erasure.load(tmp_path / "real") == made()


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        made().save(tmp_path / "cat")
    finally:
        os.umask(before)
    assert (tmp_path / "cat").stat().st_mode & 0o777 == 0o644


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (OSError(28, "No space left on device"), CannotSave, "cat.safetensors: No space left on device"),
        (PermissionError(13, "Permission denied"), CannotSave, "cat.safetensors: Permission denied"),
    ],
)
def test_a_save_that_fails_leaves_what_was_there(
    saved: Path, monkeypatch: Any, step: str, error: BaseException, raised: type[BaseException], says: str
) -> None:
    before = saved.read_bytes()
    erasure = made(seed=9)
    monkeypatch.setattr(os, step, failing(error))
    with pytest.raises(raised) as failed:
        erasure.save(saved)
    assert says in str(failed.value)
    assert saved.read_bytes() == before
    assert alone(saved)


def test_a_first_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "fsync", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        made().save(tmp_path / "cat")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_device_is_never_replaced() -> None:
    with pytest.raises(CannotSave, match="Cannot save /dev/full: what is there is not a regular file"):
        made().save("/dev/full")
    assert not Path("/dev/full").is_file()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere/cat", "No such file or directory"),
        ("file/cat", "Not a directory"),
        ("folder", "what is there is not a regular file"),
        ("c" * 300, "File name too long"),
        ("nul\0byte", "null byte"),
    ],
)
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(CannotSave) as failed:
        made().save(tmp_path / name)
    assert str(failed.value).startswith(f"Cannot save {tmp_path / name}: ")
    assert says in str(failed.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(saved: Path) -> None:
    saved.parent.chmod(0o500)
    try:
        with pytest.raises(CannotSave, match="Permission denied"):
            made().save(saved)
    finally:
        saved.parent.chmod(0o700)


def test_a_header_too_large_to_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CannotSave, match="numbers belong in tensors"):
        made(Fit({}, {"columns": "x" * 17_000_000})).save(tmp_path / "cat")
    assert list(tmp_path.iterdir()) == []


def refusal(path: Path) -> str:
    with pytest.raises(BadArtifact) as refused:
        Erasure.load(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


def framed(frame: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(frame) if length is None else length) + frame + body


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "this is not a safetensors file, or it was cut short"),
        (b"PK\x03\x04", "this is not a safetensors file, or it was cut short"),
        (b"\x80\x04\x95" + b"pickled" * 9, "this is not a safetensors file, or it was cut short"),
        (framed(b"{}", length=2**63), "this is not a safetensors file, or it was cut short"),
        (framed(b"not json"), "the safetensors header is not JSON"),
        (framed(b"\xff\xfe"), "the safetensors header is not JSON"),
        (framed(b"[" * 100_000), "the safetensors header is not JSON"),
        (framed(b"[]"), "this is not an erasure"),
        (framed(b"{}"), "this is not an erasure: the safetensors header has no metadata 'efface'"),
        (framed(b'{"__metadata__":{"format":"pt"}}'), "this is not an erasure"),
        (framed(b'{"__metadata__":{"efface":"{}","format":"pt"}}'), "the metadata 'efface', a text, and no other"),
        (framed(b'{"__metadata__":{"efface":{}}}'), "the metadata 'efface', a text, and no other"),
        (framed(b'{"__metadata__":{"efface":"{}","efface":"{}"}}'), "a key occurs twice"),
        (framed(b'{"__metadata__":{"efface":"{"}}'), "the header is not JSON"),
        (framed(b'{"__metadata__":{"efface":"[1]"}}'), "header field 'header' must be an object, not [1]"),
        (framed(b'{"__metadata__":{"efface":"{}"}}'), "header field 'format' must be a whole number, not None"),
        (framed(b'{"__metadata__":{"efface":"{\\"format\\":NaN}"}}'), "NaN is no JSON number"),
    ],
)
def test_a_file_that_is_no_erasure_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "cat"
    path.write_bytes(content)
    assert says in refusal(path)


def test_a_header_of_many_megabytes_is_not_even_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.write(struct.pack("<Q", 2**35))
        file.truncate(2**36)  # a hole: takes no room on the disk
    assert refusal(tmp_path / "huge") == f"its header claims {2**35} bytes; the most is {16 * 2**20}"


def test_a_path_without_a_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nothing") == "No such file or directory"
    assert refusal(tmp_path) == "this is a folder, not an erasure"
    assert refusal(tmp_path / "nul\0byte") == "embedded null byte"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        assert refusal(tmp_path / "fifo") == "this is not a regular file"


def test_a_fault_is_told_in_few_words(saved: Path) -> None:
    assert len(refusal(rewritten(saved, put("request", "concepts", 0, "kind", value="gas" * 10_000)))) < 600


def test_ordinary_weights_are_no_erasure(tmp_path: Path) -> None:
    safetensors.torch.save_file({"x": torch.ones(2)}, tmp_path / "weights")
    assert "this is not an erasure" in refusal(tmp_path / "weights")


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The file with its header changed, everything else as it was."""
    tensors = safetensors.torch.load_file(path)
    header = made().to_dict()
    change(header)
    safetensors.torch.save_file(tensors, path, metadata={METADATA_KEY: json.dumps(header)})
    return path


def put(*keys: Any, value: object) -> Callable[[dict[str, Any]], None]:
    def change(header: Any) -> None:
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


def drop(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: Any) -> None:
        for key in keys[:-1]:
            header = header[key]
        del header[keys[-1]]

    return change


DEEP: list[Any] = []
for _ in range(40):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("format", value=2), "written by a newer efface: format 2, this one reads 1"),
        (put("format", value=0), "header field 'format' must be 1, not 0"),
        (put("format", value=True), "header field 'format' must be a whole number, not True"),
        (put("format", value="1"), "header field 'format' must be a whole number, not '1'"),
        (drop("seed"), "header field 'seed' is missing"),
        (put("colour", value="red"), "header field 'colour' is unknown; format 1 has: format, method"),
        (put("\x1b[31m", value=1), "header field '\\x1b[31m' is unknown"),
        (put("x" * 500, value=1), "header field 'xxx"),
        (put("method", value=None), "header field 'method' must be text, not None"),
        (put("method", value="../blur"), "header field 'method' must be a plain name, not '../blur'"),
        (put("method", value="blur\x00"), "header field 'method' must be a plain name"),
        (put("method", value="blur/x"), "header field 'method' must be a plain name"),
        (put("distribution", value="a/b"), "header field 'distribution' must be a plain name, not 'a/b'"),
        (put("distribution", value="a..b"), "header field 'distribution' must be a plain name"),
        (put("version", value="1 && rm"), "header field 'version' must be a plain name"),
        (put("points", 0, value="unet..text"), "header field 'points' must be a plain name, not 'unet..text'"),
        (put("points", 0, value="/etc/passwd"), "header field 'points' must be a plain name"),
        (put("points", 0, value=3), "header field 'points' must be text, not 3"),
        (put("points", value="unet.text"), "header field 'points' must be a list, not 'unet.text'"),
        (put("settings", value=[]), "header field 'settings' must be an object, not []"),
        (put("settings", "rate", value=10**30), "header field 'settings.rate' must be JSON with finite numbers"),
        (put("seed", value=-1), "header field 'seed' must be a whole number from 0"),
        (put("seed", value=1.0), "header field 'seed' must be a whole number, not 1.0"),
        (put("base", value=None), "header field 'base' must be an object, not None"),
        (put("facts", "deep", value=DEEP), "must be nested at most 32 deep"),
        (put("facts", value="none"), "header field 'facts' must be an object, not 'none'"),
        (put("report", value=1), "header field 'report' must be an object, not 1"),
        (put("libraries", "torch", value=2), "header field 'libraries' must be text, not 2"),
        (put("request", value=None), "header field 'request': A request in JSON is an object"),
        (put("request", "concepts", value=[]), "header field 'request': A request needs at least one concept"),
        (put("request", "concepts", 0, "kind", value="gas"), "header field 'request': Concept 'cat' has no kind 'gas'"),
        (put("request", "concepts", 0, "text", value=" cat"), "'request' is not in the form that efface writes"),
        (drop("request", "keep"), "header field 'request' is not in the form that efface writes"),
        (put("tensors", value=[]), "header field 'tensors' must be an object, not []"),
        (put("tensors", "up", value=[]), "header field 'tensors.up' must be an object, not []"),
        (put("tensors", "up", "data", value=1), "header field 'tensors.up' must be an object with shape and dtype"),
        (put("tensors", "up", "shape", value=[4, -2]), "header field 'tensors.up' must be a shape, not (4, -2)"),
        (put("tensors", "up", "shape", value=[4, 2.0]), "header field 'tensors.up' must be a whole number, not 2.0"),
        (put("tensors", "up", "dtype", value="object"), "header field 'tensors.up' must be one of the dtypes float64"),
        (put("tensors", "../up", value={"shape": [1], "dtype": "int8"}), "must be a plain name, not '../up'"),
        (put("tensors", "down", value={"shape": [1], "dtype": "int8"}), "tensor 'down' is missing"),
        (drop("tensors", "up"), "tensor 'up' is not in the header"),
        (
            put("tensors", "up", "shape", value=[2, 4]),
            "tensor 'up' is float32 [4, 2], the header says float32 [2, 4]",
        ),
        (
            put("tensors", "up", "dtype", value="int32"),
            "tensor 'up' is float32 [4, 2], the header says int32 [4, 2]",
        ),
        (put("tensors", "up", "shape", value=[2**62, 2**62]), "the header says float32 [46116"),
        (put("facts", "eta", value=1.25), "header field 'sha256' does not fit the content"),
        (put("sha256", value="0" * 64), "header field 'sha256' does not fit the content"),
        (put("sha256", value=None), "header field 'sha256' does not fit the content"),
        (drop("sha256"), "header field 'sha256' does not fit the content"),
    ],
)
def test_a_header_that_was_tampered_with_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    assert says in refusal(rewritten(saved, change))


def test_the_helper_of_these_tests_changes_nothing_by_itself(saved: Path) -> None:
    assert Erasure.load(rewritten(saved, lambda header: None)) == made()


def resaved(path: Path, **tensors: Tensor) -> Path:
    """The file with other tensors under the same header."""
    safetensors.torch.save_file(tensors, path, metadata={METADATA_KEY: canonical_json(made().to_dict())})
    return path


def test_tensors_that_were_tampered_with_are_refused(saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved)
    assert "does not fit the content" in refusal(resaved(saved, **(tensors | {"up": tensors["up"] + 1})))
    infinite = tensors | {"up": torch.full((4, 2), float("inf"))}
    assert refusal(resaved(saved, **infinite)) == "tensor 'up' holds numbers that are not finite"
    assert refusal(resaved(saved, up=tensors["up"])) == "tensor 'unet.skip.0:down' is missing"
    assert refusal(resaved(saved, **tensors, more=torch.ones(1))) == "tensor 'more' is not in the header"
    narrow = tensors | {"up": tensors["up"].to(torch.float8_e4m3fn)}
    assert "tensor 'up' is float8_e4m3fn [4, 2]" in refusal(resaved(saved, **narrow))


def test_offsets_that_lie_are_refused(saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for change in ([0, 2**40], [8, 40], [32, 0], [0, 24]):
        frame = json.loads(data[8 : 8 + length])
        frame["up"]["data_offsets"] = change
        saved.write_bytes(framed(json.dumps(frame).encode(), data[8 + length :]))
        assert "this is not a sound safetensors file" in refusal(saved)


def test_bytes_after_the_end_are_refused(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"more")
    assert "this is not a sound safetensors file" in refusal(saved)


def test_a_file_cut_short_anywhere_is_refused(saved: Path) -> None:
    data = saved.read_bytes()
    for length in [*range(0, 64), *range(64, len(data), 37), len(data) - 1]:
        saved.write_bytes(data[:length])
        refusal(saved)


Flips = st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=4)


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=Flips, cut=st.none() | st.integers(0, 2**20))
def test_a_damaged_file_gives_the_same_erasure_or_none(
    saved: Path, flips: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(saved.read_bytes())
    for place, mask in flips:
        data[place % len(data)] ^= mask
    damaged = saved.with_name("damaged")
    damaged.write_bytes(data if cut is None else data[: cut % len(data)])
    try:
        loaded = Erasure.load(damaged)
    except BadArtifact:
        return
    assert loaded == made()


def test_one_wrong_bit_is_noticed(saved: Path) -> None:
    data, erasure = saved.read_bytes(), made()
    for place in range(0, len(data), 5):
        saved.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            assert Erasure.load(saved) == erasure
        except BadArtifact:
            continue


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_is_refused_and_never_opened(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    torch.save(Trap(tmp_path / "sprung"), tmp_path / "zipped")
    for name in ("raw", "zipped"):
        assert refusal(tmp_path / name) == "this is not a safetensors file, or it was cut short"
    assert not (tmp_path / "sprung").exists()


def test_what_is_shown_can_be_changed_without_harm() -> None:
    erasure = made()
    shown = erasure.to_dict()

    shown["base"].clear()
    shown["request"]["concepts"].clear()

    assert erasure.to_dict() == made().to_dict()
