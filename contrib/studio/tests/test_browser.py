"""The page in a real browser: `make studio-test`. With EFFACE_STUDIO_PICTURES its screenshots go to that folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import efface

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("efface_studio")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PICTURES = os.environ.get("EFFACE_STUDIO_PICTURES")
START = 600.0
FIT = 600_000
DRAW = 400_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The page of a studio that runs as somebody would start it."""
    port = free_port()
    command = [str(Path(sysconfig.get_path("scripts")) / "efface"), "studio", "picturebook", "--no-browser"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--folder", str(folder / "saved")], cwd=folder, stdout=log, stderr=log
        )
    try:
        yield answering(f"http://127.0.0.1:{port}", server, folder / "log")
    finally:
        server.terminate()
        server.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def answering(address: str, server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return address
    raise AssertionError(f"no page at {address}:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Any, address: str) -> Any:
    """One visit, from the empty page on; `page.elsewhere` are the addresses that were asked for outside of it."""
    page = browser.new_page(viewport={"width": 1360, "height": 1160})
    page.elsewhere = []
    page.on("request", lambda asked: noted(page.elsewhere, asked.url, address))
    page.goto(address)
    page.wait_for_selector("#erase", timeout=DRAW)
    return page


def noted(elsewhere: list[str], asked: str, address: str) -> None:
    if not asked.startswith((address, "data:", "blob:")):
        elsewhere.append(asked)


@pytest.fixture
def photographed(page: Any) -> Callable[[str], None]:
    """Keeps a picture of the page where pictures are wanted."""

    def photograph(name: str) -> None:
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            page.mouse.move(0, 0)
            page.wait_for_timeout(800)
            page.screenshot(path=str(Path(PICTURES) / f"studio-{name}.png"))

    return photograph


def choose(page: Any, menu: str, name: str) -> None:
    page.locator(f"#{menu} input").click()
    page.locator(f"#{menu} [role=option][data-value='{name}'], #{menu} [role=option]:has-text('{name}')").first.click()


def erase(page: Any, concept: str, anchor: str, method: str) -> None:
    """Fill in the form, press the button, and wait until the erasure is on."""
    choose(page, "method", method)
    page.fill("#keep textarea, #keep input", "a dog, a bird")
    page.fill("#concept textarea, #concept input", concept)
    page.fill("#anchor textarea, #anchor input", anchor)
    first = efface.describe(efface.Registry.installed().method(method))[0].name
    page.wait_for_selector(f"#setting-{first}")
    page.click("#erase")
    page.wait_for_selector(f"[id='on-{method}-{concept}']", timeout=FIT)


def drawn(page: Any, prompt: str, after: str) -> tuple[bytes, ...]:
    """The pictures before and after, once the page says what they were made with and shows another one after."""
    page.fill("#prompt textarea, #prompt input", prompt)
    image = page.query_selector("#after img")
    former = image.get_attribute("src") if image else ""
    page.click("#draw")
    page.locator("#caption").get_by_text(f"After: with {after}.", exact=True).wait_for(timeout=DRAW)
    page.wait_for_function(
        "former => ['before', 'after'].every(side => document.querySelector(`#${side} img`)?.complete)"
        " && document.querySelector('#after img').getAttribute('src') !== former",
        arg=former,
        timeout=DRAW,
    )
    addresses = [page.locator(f"#{side} img").get_attribute("src") for side in ("before", "after")]
    return tuple(page.request.get(address).body() for address in addresses)


def test_every_installed_method_and_model_is_offered(page: Any) -> None:
    registry = efface.Registry.installed()
    for menu, names in (("method", registry.methods()), ("model", registry.models())):
        page.locator(f"#{menu} input").click()
        offered = [option.strip("✓ \n") for option in page.locator(f"#{menu} [role=option]").all_inner_texts()]
        page.locator("h1").click()
        assert offered == list(names)


def test_the_form_is_that_of_the_method(page: Any) -> None:
    for name in ("gloce", "uce"):
        choose(page, "method", name)
        for setting in efface.describe(efface.Registry.installed().method(name)):
            page.wait_for_selector(f"#setting-{setting.name}")


def test_an_error_is_said_in_its_own_words(page: Any) -> None:
    page.fill("#concept textarea, #concept input", "cat")
    page.fill("#anchor textarea, #anchor input", "cat")
    page.click("#erase")
    page.get_by_text("has itself as anchor").wait_for(timeout=DRAW)
    page.reload()
    page.wait_for_selector("#erase", timeout=DRAW)


def test_an_erasure_is_fitted_and_shows_after_and_not_before(page: Any, photographed: Callable[[str], None]) -> None:
    erase(page, "cat", "fish", "uce")
    before, after = drawn(page, "a cat", after="uce-cat")
    assert before != after
    photographed("compare")


def test_several_are_switched_and_scaled_on_one_pipeline(page: Any, photographed: Callable[[str], None]) -> None:
    erase(page, "car", "house", "uce")
    both = drawn(page, "a cat and a car", after="uce-cat, uce-car")
    page.locator("[id='on-uce-cat'] input").uncheck()
    one = drawn(page, "a cat and a car", after="uce-car")
    assert one[0] == both[0]
    assert one[1] != both[1]
    page.locator("[id='on-uce-car'] input").uncheck()
    none = drawn(page, "a cat and a car", after="uce-car")
    assert none[1] == none[0] == both[0]
    page.locator("[id='on-uce-cat'] input").check()
    page.locator("[id='on-uce-car'] input").check()
    strength = page.locator("[id='scale-uce-cat'] input[type=number]")
    strength.fill("0.5")
    strength.blur()
    half = drawn(page, "a cat and a car", after="uce-cat at 0.5, uce-car")
    assert half[1] not in (one[1], both[1], none[1])
    photographed("several")


def test_what_is_on_is_saved_with_its_policy(page: Any, folder: Path) -> None:
    page.click("#save")
    page.locator("#saved").get_by_text("efface.toml").wait_for(timeout=DRAW)
    policy = efface.Policy.load(folder / "saved" / "efface.toml")
    assert [(one.file, one.scale) for one in policy.erasures] == [
        ("uce-cat.safetensors", 0.5),
        ("uce-car.safetensors", 1.0),
    ]
    with efface.apply(efface.load(policy.source), policy) as editor:
        assert len(editor.entries) == 2


def test_a_method_that_draws_where_it_acts_is_asked(page: Any, photographed: Callable[[str], None]) -> None:
    for label in ("uce-cat", "uce-car"):
        page.click(f"[id='off-{label}']")
        page.wait_for_selector(f"[id='on-{label}']", state="detached", timeout=DRAW)
    erase(page, "cat", "fish", "gloce")
    drawn(page, "a cat and a car", after="gloce-cat")
    page.click("#maps")
    page.wait_for_selector("#gallery img", timeout=FIT)
    photographed("maps")


def test_nothing_was_asked_of_anybody_else(page: Any) -> None:
    assert page.elsewhere == []
