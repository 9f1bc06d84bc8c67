"""`MethodTests`: what efface promises of every method, one test for each promise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from efface.composing import compose
from efface.concept import Concept, Request
from efface.editor import Editor
from efface.erasure import Erasure
from efface.errors import EffaceError, WrongBase, unknown
from efface.method import Fitted, covers, merges, stacks
from efface.settings import as_dict, build
from efface.testing.bench import Bench, Counted, Interruption, elsewhere, fresh, gap, interrupted_pass, picture
from efface.testing.pipelines import FAMILIES, Family
from efface.testing.promise import expect, promise
from efface.testing.state import State
from efface_hooks import BadEdit, BypassedError, HookPoint, Patch, UnknownPoint

ACTS = 1e-4
"""The least change of a picture that is no rounding error, as a share of its largest number."""
ROUNDING = 1e-3
"""The largest change of a picture that may be one: batches and fused weights are computed in another order."""
SHIPPED = {"PNDMScheduler": {"skip_prk_steps": True}}
"""Settings that Stable Diffusion gives a scheduler; with its own, PNDM takes no fewer than four steps."""


class MethodTests:
    """The conformance tests of a method: subclass it, name plugin and method, give settings that fit in a second.

    `plugin` is the name of the module that the entry point names, or an object with its hooks. The pictures of
    `prompts` must be among those that the method changes: the first by the erasure of `request`, the second by that
    of `another`. What a method can do is told by `seeded` (a fit depends on the seed), `checkpoints` (an interrupted
    fit goes on from `run.folder`), `fuses` (`editor.fuse()` works) and `merges` (`merge` makes one fit of two); either
    answer is tested. `expected_failures` are promises that it breaks, by the name of their test, with the reason; one
    that is kept after all fails.
    """

    plugin: ClassVar[object]
    method: ClassVar[str]
    settings: ClassVar[Mapping[str, object]] = {}
    request: ClassVar[Request] = Request((Concept("cat", anchor="dog"),), keep=("a red house",))
    another: ClassVar[Request] = Request((Concept("bird", anchor="tree"),), keep=("a red house",))
    prompts: ClassVar[tuple[str, str]] = ("a photo of cat", "a photo of bird")
    seeded: ClassVar[bool] = False
    checkpoints: ClassVar[bool] = False
    fuses: ClassVar[bool] = False
    merges: ClassVar[bool] = False
    dtypes: ClassVar[tuple[str, ...]] = ("float16", "bfloat16")
    schedulers: ClassVar[tuple[str, ...]] = (
        "PNDMScheduler",
        "LMSDiscreteScheduler",
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    )
    expected_failures: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, reason in cls.expected_failures.items():
            if name not in cls.promises():
                raise EffaceError(f"expected_failures: {unknown('promise', name, cls.promises(), 'there are')}")
            if not reason.strip():
                raise EffaceError(f"expected_failures: {name!r} needs a reason")

    @classmethod
    def promises(cls) -> dict[str, str]:
        """Every promise that is tested, by the name of its test."""
        tests = {name: getattr(cls, name) for name in dir(cls) if name.startswith("test_")}
        return {name: test.__doc__ for name, test in tests.items() if test.__doc__}

    @classmethod
    def families(cls) -> list[Family]:
        """The families that the method's `covers` names; all of them if it names none."""
        declared = covers(cls.bench_of().cls)
        named = declared.families if declared else ()
        return [family for family in FAMILIES if family in named] or list(FAMILIES)

    @classmethod
    def bench_of(cls) -> Bench:
        return Bench(cls.plugin, cls.method, cls.settings)

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls) -> Bench:
        return cls.bench_of()

    @pytest.fixture(autouse=True)
    def _expected(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        choices: dict[str, Sequence[object]] = {
            "family": self.families(),
            "dtype": self.dtypes,
            "scheduler": self.schedulers,
        }
        for name in choices.keys() & set(metafunc.fixturenames):
            metafunc.parametrize(name, choices[name])

    # The front door

    @promise("the plugin brings the method and nothing in it is broken")
    def test_plugin_brings_method(self, bench: Bench) -> None:
        broken = bench.registry.broken
        expect(not broken, "; ".join(f"{one.during}: {one.error}" for one in broken))
        expect(self.method in bench.registry.methods(), f"it brings {sorted(bench.registry.methods())}")

    @promise("settings survive JSON, those tested here and those of every preset")
    def test_settings_survive_json(self, bench: Bench) -> None:
        presets: Mapping[str, Mapping[str, object]] = getattr(bench.cls, "presets", {})
        for name, values in {"settings": self.settings, "no settings": {}, **presets}.items():
            written = as_dict(build(bench.cls, values))
            read = as_dict(build(bench.cls, json.loads(json.dumps(written))))
            expect(read == written, f"of {name} {written} comes back as {read}")

    # Fits

    @promise("a fit leaves the model and the global random generators as they were")
    def test_fit_leaves_model_alone(self, bench: Bench, family: Family) -> None:
        pipe = bench.pipe(family)
        before = State.of(pipe)
        bench.new_fit(family, self.request)
        _same(before, pipe)

    @promise("an interrupted fit leaves the model as it was")
    def test_interrupted_fit_leaves_model_alone(self, bench: Bench) -> None:
        family = self._family(bench)
        bench.fit(family, self.request)
        pipe, told = bench.pipe(family), bench.steps_told[family]
        before = State.of(pipe)
        with _raised(Interruption, "it goes on when it is interrupted") if told else nullcontext():
            bench.new_fit(family, self.request, progress=Counted(stop_at=told // 2))
        _same(before, pipe)

    @promise("a fit that was interrupted ends like any other when it runs again with the same folder")
    def test_fit_resumes(self, bench: Bench, tmp_path: Path) -> None:
        family = self._family(bench)
        wanted, told = bench.fit(family, self.request), bench.steps_told[family]
        for moment in (told // 2, told - 1):
            with suppress(Interruption):
                bench.new_fit(family, self.request, progress=Counted(stop_at=moment), folder=tmp_path)
        kept = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
        if self.checkpoints:
            expect(kept, "it kept no checkpoint in run.folder (checkpoints = True)")
        else:
            expect(not kept, f"it wrote {', '.join(kept)} into run.folder (checkpoints = False)")
        resumed = bench.new_fit(family, self.request, folder=tmp_path)
        expect(resumed == wanted, f"it ends with another {', '.join(_different(wanted, resumed))}")

    @promise("a fit is a function of model, request, settings and seed")
    def test_fit_is_deterministic(self, bench: Bench) -> None:
        family = self._family(bench)
        one, two = self._twice(bench, family)
        differ = _different_tensors(one, two)
        expect(not differ, f"a second fit has other numbers in {', '.join(differ)}")

    @promise("equal fits give equal files: no times, no paths and nothing else of the occasion")
    def test_equal_fits_give_equal_files(self, bench: Bench, tmp_path: Path) -> None:
        one, two = self._twice(bench, self._family(bench))
        for name, erasure in (("one", one), ("two", two)):
            erasure.save(tmp_path / name)
        equal = (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
        expect(equal, f"they differ in {', '.join(_different(one, two))}")

    @promise("whether a fit depends on the seed is what `seeded` says")
    def test_seed_counts_as_declared(self, bench: Bench) -> None:
        family = self._family(bench)
        other = bench.new_fit(family, self.request, seed=1)
        differ = bool(_different_tensors(bench.fit(family, self.request), other))
        told = "gives another fit" if differ else "changes nothing"
        expect(differ == self.seeded, f"another seed {told} (seeded = {self.seeded})")

    @promise("an erasure comes back from its file, and acts on an equal model by its tensors and facts alone")
    def test_artifact_round_trip(self, bench: Bench, tmp_path: Path) -> None:
        family = self._family(bench)
        erasure = bench.fit(family, self.request)
        erasure.save(tmp_path / "erasure.safetensors")
        loaded = Erasure.load(tmp_path / "erasure.safetensors")
        expect(loaded == erasure, "what was loaded is another erasure")
        bare = Erasure(replace(loaded.header, report={}), loaded.tensors)
        wanted = self._edited(bench, family)
        with bench.on(fresh(family), bare) as editor:
            expect(torch.equal(picture(editor.pipe, *self.prompts), wanted), "it makes another picture")

    # Edits

    @promise("an edit acts")
    def test_edit_acts(self, bench: Bench, family: Family) -> None:
        self._acts(bench, family)

    @promise("an erasure that is taken off leaves no trace")
    def test_undone_bit_exactly(self, bench: Bench, family: Family) -> None:
        pipe, erasure = bench.pipe(family), bench.fit(family, self.request)
        base, before = bench.base(family, *self.prompts), State.of(pipe)
        with bench.on(pipe, erasure):
            picture(pipe, *self.prompts)
        _same(before, pipe)
        expect(torch.equal(picture(pipe, *self.prompts), base), "the picture is not that of the base")

    @promise("an exception in the middle of a picture leaves no trace")
    def test_undone_after_exception(self, bench: Bench) -> None:
        family = self._family(bench)
        pipe, erasure = bench.pipe(family), bench.fit(family, self.request)
        wanted = self._edited(bench, family)
        base, before = bench.base(family, *self.prompts), State.of(pipe)
        with bench.on(pipe, erasure) as editor:
            with interrupted_pass(pipe):
                picture(pipe, *self.prompts)
            expect(not editor.verify(), f"edits are lost: {editor.verify()}")
            expect(torch.equal(picture(pipe, *self.prompts), wanted), "the next picture is another one")
        _same(before, pipe)
        expect(torch.equal(picture(pipe, *self.prompts), base), "the picture is not that of the base")

    @promise("apply is quick: it runs no pass of the model")
    def test_apply_runs_no_model(self, bench: Bench) -> None:
        family = self._family(bench)
        pipe, erasure = bench.pipe(family), bench.fit(family, self.request)
        ran: list[str] = []
        parts = ("unet", "text_encoder", "text_encoder_2", "vae")
        hooks = [
            getattr(pipe, part).register_forward_pre_hook(lambda *_, part=part: ran.append(part))
            for part in parts
            if isinstance(getattr(pipe, part, None), torch.nn.Module)
        ]
        try:
            bench.method.apply(Patch(pipe, bench.registry.points(pipe)), [Fitted(erasure.fit, erasure.request)])
        finally:
            for hook in hooks:
                hook.remove()
        expect(not ran, f"it ran {', '.join(ran)}")

    @promise("a point that the model lacks is an error, raised before anything changes")
    def test_unknown_point_is_an_error(self, bench: Bench) -> None:
        family = self._family(bench)
        erasure = bench.fit(family, self.request)
        point = erasure.header.points[0]
        with _raised(UnknownPoint, f"apply goes on without {point}"):
            patch = _Lacking(bench.pipe(family), bench.registry.points(bench.pipe(family)), point)
            bench.method.apply(patch, [Fitted(erasure.fit, erasure.request)])
        other: Family = "sd1" if family == "sdxl" else "sdxl"
        pipe = bench.pipe(other)
        before = State.of(pipe)
        with _raised((UnknownPoint, WrongBase), f"an erasure of {family} goes on {other}"):
            Editor(pipe, erasure, registry=bench.registry)
        _same(before, pipe)

    @promise("`covers` is true: the method works on these families and touches these kinds of point, and no others")
    def test_covers_is_true(self, bench: Bench) -> None:
        declared = covers(bench.cls)
        if declared is None:
            raise AssertionError("it declares no covers")
        expect(set(declared.families) & set(FAMILIES), f"covers names none of the families {', '.join(FAMILIES)}")
        touched = {
            point.kind
            for family in self.families()
            for point in bench.points(bench.pipe(family), bench.fit(family, self.request))
        }
        hidden = sorted(kind for kind in touched if not any(_is_kind(kind, wide) for wide in declared.kinds))
        expect(not hidden, f"it touches {', '.join(hidden)}, which covers does not name")
        idle = [wide for wide in declared.kinds if not any(_is_kind(kind, wide) for kind in touched)]
        expect(not idle, f"covers names {', '.join(idle)}, which it does not touch with these settings")

    @promise("precomputed embeddings do not go around an edit, unless `covers` says so or an error does")
    def test_precomputed_embeddings(self, bench: Bench) -> None:
        declared = covers(bench.cls)
        if declared is not None and "precomputed embeddings" in declared.bypassed_by:
            return
        family = self._family(bench)
        pipe, base = bench.pipe(family), bench.base(family, self.prompts[0])
        embeddings = _embeddings(pipe, self.prompts[0])
        with bench.on(pipe, bench.fit(family, self.request)):
            try:
                found = pipe(
                    **embeddings,
                    num_inference_steps=2,
                    generator=torch.Generator().manual_seed(0),
                    output_type="latent",
                ).images
            except BypassedError:
                return
        expect(gap(found, base) > ACTS, "the picture is that of the base")

    # Strength

    @promise("scale 0 is off, scale 1 is as fitted, and one half is neither")
    def test_scale(self, bench: Bench) -> None:
        family = self._family(bench)
        pipe, erasure = bench.pipe(family), bench.fit(family, self.request)
        base, wanted = bench.base(family, *self.prompts), self._edited(bench, family)
        with bench.on(pipe, erasure) as editor:
            editor.scale(erasure, 0.5)
            half = picture(pipe, *self.prompts)
            expect(gap(half, base) > ACTS, "at one half the picture is that of the base")
            expect(gap(half, wanted) > ACTS, "at one half the picture is the one at 1")
            editor.scale(erasure, 0)
            expect(torch.equal(picture(pipe, *self.prompts), base), "at 0 the picture is not that of the base")
            editor.scale(erasure, 1)
            expect(torch.equal(picture(pipe, *self.prompts), wanted), "back at 1 the picture is another one")

    @promise("whether an erasure can be written into the weights is what `fuses` says")
    def test_fuses_as_declared(self, bench: Bench) -> None:
        family = self._family(bench)
        pipe, erasure, wanted = bench.pipe(family), bench.fit(family, self.request), self._edited(bench, family)
        before = State.of(pipe)
        with bench.on(pipe, erasure) as editor:
            if self.fuses:
                editor.fuse()
                found = gap(picture(pipe, *self.prompts), wanted)
                expect(found < ROUNDING, f"the fused picture differs by {found:.2g} of its size")
            else:
                with _raised(BadEdit, "it can be fused (fuses = False)"):
                    editor.fuse()
                expect(torch.equal(picture(pipe, *self.prompts), wanted), "refusing to fuse changed the picture")
        _same(before, pipe)

    # Company

    @promise("two erasures of the method act together, and either comes off by itself")
    def test_composes_with_itself(self, bench: Bench) -> None:
        family = self._family(bench)
        self._meets(bench, family, bench.fit(family, self.another))

    @promise("it acts together with an erasure of another method, and either comes off by itself")
    def test_composes_with_another_method(self, bench: Bench) -> None:
        family = self._family(bench)
        self._meets(bench, family, bench.partner(family, self.another))

    @promise("whether two of its fits can be one is what `merges` says, and each acts there as it was fitted")
    def test_merges_as_declared(self, bench: Bench) -> None:
        family = self._family(bench)
        own, other = bench.fit(family, self.request), bench.fit(family, self.another)
        if not self.merges:
            if merges(bench.cls):
                with _raised(EffaceError, "it can be merged (merges = False)"):
                    compose(own, other, registry=bench.registry)
            return
        expect(merges(bench.cls), "it has no merge (merges = True)")
        both = compose(own, other, registry=bench.registry)
        self._acts_as_both(bench, family, both)
        for gone, left in ((other, own), (own, other)):
            again = compose(both, remove=[concept.text for concept in gone.concepts], registry=bench.registry)
            found, wanted = self._picture(bench, family, again), self._picture(bench, family, left)
            expect(torch.equal(found, wanted), "taking one out again does not leave the other")

    # Circumstances

    # diffusers' schedulers hand torch tensors to numpy in a way that numpy 2 deprecates
    @pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
    @promise("it works with any scheduler and step count, and no picture depends on the ones before")
    def test_any_scheduler(self, bench: Bench, scheduler: str) -> None:
        import diffusers

        family = self._family(bench)
        pipe, erasure = bench.pipe(family), bench.fit(family, self.request)
        own = pipe.scheduler
        pipe.scheduler = getattr(diffusers, scheduler).from_config({**own.config, **SHIPPED.get(scheduler, {})})
        try:
            base = picture(pipe, self.prompts[0], steps=3)
            with bench.on(pipe, erasure):
                first, _, third = (picture(pipe, self.prompts[0], steps=steps) for steps in (3, 2, 3))
        finally:
            pipe.scheduler = own
        expect(gap(first, base) > ACTS, "the picture is that of the base")
        expect(torch.equal(first, third), "the same picture comes out differently after another one")

    @promise("it works with classifier-free guidance and without")
    @pytest.mark.parametrize("guidance", [1.0, 7.5])
    def test_guidance(self, bench: Bench, guidance: float) -> None:
        self._acts(bench, self._family(bench), guidance=guidance)

    @promise("a picture in a batch is the picture made alone")
    @pytest.mark.parametrize("guidance", [1.0, 7.5])
    def test_batch(self, bench: Bench, guidance: float) -> None:
        family = self._family(bench)
        pipe = bench.pipe(family)
        with bench.on(pipe, bench.fit(family, self.request)):
            alone = picture(pipe, self.prompts[0], guidance=guidance)
            batch = picture(pipe, self.prompts[0], self.prompts[1], self.prompts[0], guidance=guidance)
        found = gap(batch[:1], alone)
        expect(found < ROUNDING, f"in a batch it differs by {found:.2g} of its size")

    @promise("it works at any resolution")
    def test_any_resolution(self, bench: Bench) -> None:
        family = self._family(bench)
        pipe = bench.pipe(family)
        size = pipe.unet.config.sample_size * pipe.vae_scale_factor
        self._acts(bench, family, height=size, width=2 * size)

    @promise("it can be fitted and it acts in half precision")
    def test_half_precision(self, bench: Bench, dtype: str) -> None:
        self._half(bench, dtype, fitted_in=dtype)

    @promise("an erasure that was fitted in full precision serves the model in half precision")
    def test_full_precision_fit_serves_half(self, bench: Bench, dtype: str) -> None:
        self._half(bench, dtype, fitted_in="float32")

    def _family(self, bench: Bench) -> Family:
        """The family of the tests that need only one."""
        return self.families()[0]

    def _edited(self, bench: Bench, family: Family) -> torch.Tensor:
        return self._picture(bench, family, bench.fit(family, self.request))

    def _picture(self, bench: Bench, family: Family, *erasures: Erasure) -> torch.Tensor:
        pipe = bench.pipe(family)
        with bench.on(pipe, *erasures):
            return picture(pipe, *self.prompts)

    def _acts_as_both(self, bench: Bench, family: Family, both: Erasure) -> None:
        """Bit for bit as the stack of the two where the method stacks; else each acts, unlike the other alone."""
        own, other = bench.fit(family, self.request), bench.fit(family, self.another)
        found = self._picture(bench, family, both)
        if stacks(bench.cls):
            expect(torch.equal(found, self._picture(bench, family, own, other)), "merged is not as both attached")
        its, mine = self._picture(bench, family, other), self._picture(bench, family, own)
        expect(gap(found[:1], its[:1]) > ACTS, "the first does not act in the merged file")
        expect(gap(found[1:], mine[1:]) > ACTS, "the second does not act in the merged file")

    def _acts(self, bench: Bench, family: Family, **options: Any) -> None:
        pipe, base = bench.pipe(family), bench.base(family, self.prompts[0], **options)
        with bench.on(pipe, bench.fit(family, self.request)) as editor:
            found = picture(pipe, self.prompts[0], **options)
            expect(not editor.verify(), f"edits are lost: {editor.verify()}")
        expect(found.isfinite().all(), "the picture has numbers that are not finite")
        expect(gap(found, base) > ACTS, f"the picture of {self.prompts[0]!r} is that of the base")

    def _half(self, bench: Bench, dtype: str, fitted_in: str) -> None:
        family, half = self._family(bench), getattr(torch, dtype)
        erasure = bench.fit(family, self.request, dtype=getattr(torch, fitted_in))
        pipe, base = bench.pipe(family, half), bench.base(family, self.prompts[0], dtype=half)
        before = State.of(pipe)
        with bench.on(pipe, erasure):
            found = picture(pipe, self.prompts[0])
        _same(before, pipe)
        expect(found.dtype == half, f"the picture is {found.dtype}")
        expect(found.isfinite().all(), "the picture has numbers that are not finite")
        expect(not torch.equal(found, base), "the picture is that of the base")

    def _meets(self, bench: Bench, family: Family, other: Erasure) -> None:
        pipe, own = bench.pipe(family), bench.fit(family, self.request)
        mine = self._edited(bench, family)
        with bench.on(pipe, other):
            its = picture(pipe, *self.prompts)
        with bench.on(pipe, own, other) as editor:
            both = picture(pipe, *self.prompts)
            expect(gap(both[:1], its[:1]) > ACTS, "the first does not act beside the second")
            expect(gap(both[1:], mine[1:]) > ACTS, "the second does not act beside the first")
            editor.detach(own)
            expect(torch.equal(picture(pipe, *self.prompts), its), "taking the first off does not leave the second")
        with bench.on(pipe, own, other) as editor:
            editor.detach(other)
            expect(torch.equal(picture(pipe, *self.prompts), mine), "taking the second off does not leave the first")

    def _twice(self, bench: Bench, family: Family) -> tuple[Erasure, Erasure]:
        one = bench.fit(family, self.request)
        with elsewhere():
            return one, bench.new_fit(family, self.request)


class _Lacking(Patch):
    """A patch of a model that lacks one point."""

    def __init__(self, pipe: Any, extra: Sequence[HookPoint], lacks: str) -> None:
        super().__init__(pipe, extra)
        self._lacks = lacks

    def _place(self, point: str | HookPoint, verb: Any) -> HookPoint:
        place = super()._place(point, verb)
        if place.name == self._lacks:
            raise UnknownPoint(f"No hook point {self._lacks!r} on this pipeline")
        return place


class _raised:  # noqa: N801 - reads like pytest.raises
    """A context in which an error must be raised; `instead` tells what happens without it."""

    def __init__(self, error: type[BaseException] | tuple[type[BaseException], ...], instead: str) -> None:
        self.error = error
        self.instead = instead

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        expect(error is not None, self.instead)
        return isinstance(error, self.error)


def _same(before: State, pipe: Any) -> None:
    changed = before.changed(State.of(pipe))
    expect(not changed, f"changed: {changed}")


def _is_kind(kind: str, wanted: str) -> bool:
    return kind.startswith(wanted[:-1]) if wanted.endswith(".*") else kind == wanted


def _different(one: Erasure, two: Erasure) -> list[str]:
    """Names of header fields and tensors in which two erasures differ."""
    return [*_different_fields(one.header.to_json(), two.header.to_json()), *_different_tensors(one, two)]


def _different_tensors(one: Erasure, two: Erasure) -> list[str]:
    names = sorted({*one.tensors, *two.tensors})
    return [
        name
        for name in names
        if name not in one.tensors or name not in two.tensors or not torch.equal(one.tensors[name], two.tensors[name])
    ]


def _different_fields(one: Any, two: Any, where: str = "") -> Iterator[str]:
    """Paths of the values in which two pieces of JSON differ."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in sorted({*one, *two}):
            yield from _different_fields(one.get(key), two.get(key), f"{where}.{key}".lstrip("."))
    elif one != two:
        yield where


def _embeddings(pipe: Any, prompt: str) -> dict[str, Any]:
    """The embeddings of a prompt as a pipeline takes them in place of it."""
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    found = pipe.encode_prompt(prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
    return dict(zip(names, found, strict=False))
