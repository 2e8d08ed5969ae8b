"""The page as people use it: by mouse, keyboard and phone, in both languages."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Page, Route, expect

from convoy.v1 import classifier_pb2 as pb
from server.page.routes import STATIC
from tests.browser.conftest import Visits

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
SEVEN = ROOT / "tests" / "data" / "digit-7.png"
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
VIEWS = ("classify", "draw", "folder", "networks", "service", "api")
PHONE = {"width": 390, "height": 844}
SLOWLY_MS = 30_000
# Strokes in shares of the sheet's side. Each begins on one before it, since a picture with two
# marks is an error, which the console of a browser shows.
FOUR = (((0.35, 0.15), (0.25, 0.55), (0.72, 0.55)), ((0.61, 0.55), (0.62, 0.2), (0.6, 0.9)))
LETTER_H = (((0.3, 0.15), (0.3, 0.85)), ((0.3, 0.5), (0.7, 0.5), (0.7, 0.15), (0.7, 0.85)))

expect.set_options(timeout=SLOWLY_MS)


@pytest.fixture(scope="module")
def gateway(serve_together: Callable[..., Any], page_repository: Path) -> Any:
    running = serve_together(f"--repository={page_repository}")
    running.wait_until_ready()
    return running


def draw(page: Page, strokes: Any = FOUR) -> None:
    pad = page.locator(".pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box
    for first, *rest in strokes:
        page.mouse.move(box["x"] + first[0] * box["width"], box["y"] + first[1] * box["height"])
        page.mouse.down()
        for x, y in rest:
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
        page.mouse.up()


def test_who_opens_the_address_sees_a_digit_read(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http)
    page = visitor.page
    page.goto(gateway.http)
    expect(page.locator(".result .best b").first).to_have_text("7")
    expect(page.locator(".result")).to_have_count(2)
    visitor.check()


def test_a_chosen_file_is_read_and_served_facts_are_shown(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http)
    page = visitor.show("classify")
    page.locator(".chip", has_text="nin_digits").click()
    page.set_input_files("#file", SEVEN)
    card = page.get_by_role("article", name="nin_digits")
    expect(card.locator(".best b")).to_have_text("7")
    expect(card).to_contain_text("fp32 · CPU · weights: digits")
    page.locator(".snippets summary").click()
    expect(page.locator(".snippets pre")).to_contain_text("curl --data-binary @digit-7.png")
    visitor.check()


def test_a_dropped_file_is_read(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http)
    page = visitor.show("classify")
    expect(page.locator(".result .best b").first).to_have_text("7")
    page.evaluate(
        """async () => {
          const blob = await (await fetch("/page/samples/four.jpg")).blob();
          const transfer = new DataTransfer();
          transfer.items.add(new File([blob], "four.jpg", { type: "image/jpeg" }));
          const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
          document.querySelector(".drop").dispatchEvent(new DragEvent("drop", options));
        }"""
    )
    expect(page.locator(".result .best b").first).to_have_text("4")
    visitor.check()


def test_a_pasted_letter_is_unfamiliar(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http, permissions=["clipboard-read", "clipboard-write"])
    page = visitor.show("classify")
    expect(page.locator(".result .best b").first).to_have_text("7")
    expect(page.locator(".warn")).to_have_count(0)
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(200, 200);
          const context = canvas.getContext("2d");
          context.fillStyle = "white";
          context.fillRect(0, 0, 200, 200);
          context.fillStyle = "black";
          for (const box of [[50, 30, 16, 140], [130, 30, 16, 140], [50, 90, 96, 16]]) {
            context.fillRect(...box);
          }
          const blob = await canvas.convertToBlob({ type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    page.keyboard.press("Control+V")
    card = page.get_by_role("article", name="lenet5")
    expect(card.locator(".warn")).to_contain_text("looks like nothing")
    visitor.check()


def test_a_photograph_is_taken_by_the_camera(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http, permissions=["camera"])
    page = visitor.show("classify")
    page.locator(".chip", has_text="lenet5").click()
    page.locator(".chip", has_text="vgg_digits").click()
    page.locator(".chip", has_text="resnet18").click()
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("button", name="Take it").click()
    expect(page.locator(".preview")).to_have_attribute("alt", "photo.jpg")
    expect(page.get_by_role("article", name="resnet18").locator(".bar")).to_have_count(5)
    expect(page.locator("dialog")).to_have_count(0)
    visitor.check()


def test_a_missing_camera_is_said(visit: Visits, gateway: Any) -> None:
    page = visit(gateway.http).show("classify")
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new Error('none')); }"
    )
    page.get_by_role("button", name="Take a photo").click()
    expect(page.locator("dialog [role=alert]")).to_contain_text("No camera can be used")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("dialog")).to_have_count(0)


def test_the_request_is_copied_as_a_program(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http, permissions=["clipboard-read", "clipboard-write"])
    page = visitor.show("classify")
    page.locator(".snippets summary").click()
    for language, words in (
        ("curl", "curl --data-binary @seven.jpg"),
        ("Python", "from convoy import Client"),
        ("JavaScript", 'from "./convoy.js"'),
    ):
        page.get_by_role("button", name=language, exact=True).click()
        page.get_by_role("button", name="Copy").click()
        expect(page.locator(".snippets [role=status]")).to_have_text("copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert words in copied and gateway.http in copied
        assert copied == page.locator(".snippets pre").text_content()
    visitor.check()


def test_the_choice_of_a_file_is_reached_by_keyboard(visit: Visits, gateway: Any) -> None:
    page = visit(gateway.http).show("classify")
    expect(page.locator(".preview")).to_be_visible()
    page.locator("nav a").last.focus()
    for _ in range(2):  # over the choice of a language
        page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Take a photo")).to_be_focused()


def test_a_photo_has_its_crop_and_heat_map_and_random_weights_are_shouted(
    visit: Visits, gateway: Any
) -> None:
    visitor = visit(gateway.http)
    page = visitor.show("classify")
    page.get_by_role("button", name="chelsea").click()
    card = page.get_by_role("article", name="resnet18")
    expect(card.locator(".shout")).to_be_visible()
    expect(card.get_by_label("Heat-map")).to_be_visible()
    # The networks for digits are not asked about a photo.
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".chip :checked")).to_have_value("resnet18")
    covered = card.locator("canvas").evaluate("it => it.toDataURL()")
    card.get_by_label("Heat-map").fill("0")
    assert card.locator("canvas").evaluate("it => it.toDataURL()") != covered
    card.locator("button.bar").nth(1).click()
    expect(card.locator("button.bar").nth(1)).to_have_attribute("aria-pressed", "true")
    visitor.check()


def test_an_error_says_what_happened(visit: Visits, gateway: Any, tmp_path: Path) -> None:
    page = visit(gateway.http).show("classify")
    broken = tmp_path / "broken.png"
    broken.write_bytes(SEVEN.read_bytes()[:500])
    page.set_input_files("#file", broken)
    expect(page.get_by_role("alert").first).to_contain_text("IMAGE_DECODE_FAILED")


def test_a_file_that_is_chosen_before_the_sample_has_come_stays(
    visit: Visits, gateway: Any, tmp_path: Path
) -> None:
    page = visit(gateway.http, viewport={"width": 1280, "height": 800}).page
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/page/samples/seven.jpg", hold)
    page.goto(f"{gateway.http}/#/classify")
    chosen = tmp_path / "chosen.png"
    chosen.write_bytes(SEVEN.read_bytes())
    page.set_input_files("#file", chosen)
    expect(page.locator(".result .best b").first).to_have_text("7")
    with page.expect_event("requestfinished", lambda request: request.resource_type == "fetch"):
        for route in held:
            route.continue_()
    page.evaluate("() => new Promise((done) => setTimeout(done, 500))")  # it would be shown by then
    expect(page.locator(".preview")).to_have_attribute("alt", "chosen.png")


def test_a_four_is_read_by_all_networks_while_it_is_drawn(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http)
    page = visitor.show("draw")
    expect(page.locator(".reader")).to_have_count(6)
    draw(page)
    for place in range(6):
        expect(page.locator(".reader .digit").nth(place)).to_have_text("4")
    expect(page.locator(".layers canvas")).to_have_count(6)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".reader .digit").first).to_have_text("–")
    expect(page.locator(".unfamiliar")).to_have_count(0)
    draw(page, LETTER_H)
    expect(page.locator(".unfamiliar", has_text="lenet5")).to_contain_text("unfamiliar")
    visitor.check()


def test_a_digit_is_drawn_by_keyboard_alone(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http)
    page = visitor.show("draw")
    page.locator("nav a").last.focus()
    for _ in range(2):  # over the choice of a language to the sheet
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    for _ in range(14):
        page.keyboard.press("ArrowDown")
    expect(page.locator(".reader .digit").first).to_have_text("1")
    visitor.check()


def test_a_gateway_that_goes_away_is_asked_again(
    visit: Visits, serve: Callable[..., Any], shipped_lenet5: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = (f"--repository={shipped_lenet5.parent}", "--models=lenet5")
    first = serve(*options, f"--http-address={address}")
    first.wait_until_ready()
    page = visit(first.http).show("draw")
    first.process.terminate()
    first.process.wait()
    draw(page)
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    serve(*options, f"--http-address={address}").wait_until_ready()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".reader .digit")).to_have_text("4")


def test_who_comes_before_a_model_is_ready_need_not_come_again(
    visit: Visits, serve: Callable[..., Any], shipped_lenet5: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "models"
    empty.mkdir()
    gateway = serve(f"--repository={empty}")
    page = visit(gateway.http).show("classify")
    expect(page.locator(".empty")).to_contain_text("No model is ready yet")
    staged = Path(shutil.copytree(shipped_lenet5, empty / "lenet5.v1.staging"))
    staged.rename(empty / "lenet5.v1")
    expect(page.locator(".best b")).to_have_text("7")


def test_a_version_that_fails_comes_first_with_its_reason(
    visit: Visits, serve: Callable[..., Any], repository: Path
) -> None:
    broken = Path(shutil.copytree(repository / "lenet5.v1", repository / "lenet5.v2"))
    config = broken / "config.pbtxt"
    config.write_text(config.read_text().replace('"lenet5.v1"', '"lenet5.v2"'))
    (broken / "1" / "model.onnx").write_bytes(b"no model")
    gateway = serve(f"--repository={repository}")
    gateway.wait_until_ready()
    visitor = visit(gateway.http)
    page = visitor.show("service")
    versions = page.locator(".versions").first.locator("article")
    failed, ready = versions.nth(0), versions.nth(1)
    expect(failed).to_contain_text("FAILED")
    expect(failed.locator(".error")).to_contain_text("lenet5.v2/1/model.onnx cannot be loaded")
    expect(ready).to_contain_text("READY")
    ready.get_by_text("Parity ladder").click()
    expect(ready.locator(".ladder li")).to_have_count(2)
    visitor.check()


def test_where_keys_are_on_the_page_asks_for_one_and_keeps_it_for_the_tab(
    visit: Visits, serve: Callable[..., Any], shipped_lenet5: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[visitor]\nsha256 = "{sha256(b"the-key").hexdigest()}"\n')
    options = (f"--repository={shipped_lenet5.parent}", "--models=lenet5", f"--api-keys={keys}")
    gateway = serve(*options)
    gateway.wait_until_ready()
    page = visit(gateway.http).page
    page.goto(gateway.http)
    for key in ("wrong", "the-key"):
        page.get_by_label("API key").fill(key)
        page.keyboard.press("Enter")
        if key == "wrong":
            expect(page.locator("dialog .error")).to_be_visible()
    expect(page.locator(".best b").first).to_have_text("7")
    page.reload()
    expect(page.locator(".best b").first).to_have_text("7")
    assert page.evaluate("Object.keys(localStorage)") == []
    other_tab = visit(gateway.http).page
    other_tab.goto(gateway.http)
    expect(other_tab.get_by_label("API key")).to_be_visible()


def test_latency_is_measured_by_ordinary_requests(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http)
    page = visitor.show("networks")
    assert page.evaluate(OVERLAPPING) == []
    page.get_by_role("button", name="Digits").click()
    page.get_by_role("button", name="Measure latency now").click()
    expect(page.locator(".plot").first).to_contain_text("latency, ms")
    expect(page.locator(".mark")).to_have_count(6)
    expect(page.locator(".worked")).to_contain_text("120 M")
    expect(page.locator(".worked")).to_contain_text("12.4 M")
    visitor.check()


def test_classes_below_their_thresholds_are_said_and_not_shown(
    visit: Visits, serve: Callable[..., Any], repository: Path, edit_facts: Any, tmp_path: Path
) -> None:
    def raise_thresholds(facts: pb.Model) -> None:
        for label in facts.labels:
            label.threshold = 1

    edit_facts(repository / "lenet5.v1", raise_thresholds)
    gateway = serve(f"--repository={repository}")
    gateway.wait_until_ready()
    (tmp_path / "photos").mkdir()
    shutil.copy(STATIC / "samples" / "seven.jpg", tmp_path / "photos")
    visitor = visit(gateway.http)
    expect(visitor.show("classify").locator(".result")).to_contain_text("No class reaches its thr")
    page = visitor.show("folder")
    page.set_input_files("#folder", tmp_path / "photos")
    expect(page.locator("figcaption")).to_have_text("No class reaches its threshold")
    visitor.check()


def test_a_folder_is_filtered_by_class(visit: Visits, gateway: Any, tmp_path: Path) -> None:
    for name in ("seven", "four", "two"):
        (tmp_path / f"{name}.jpg").write_bytes((STATIC / "samples" / f"{name}.jpg").read_bytes())
    visitor = visit(gateway.http)
    page = visitor.show("folder")
    page.get_by_label("Network").select_option("lenet5")
    page.set_input_files("#folder", tmp_path)
    expect(page.locator("p[role=status]")).to_have_text("3 of 3 images")
    page.get_by_label("Class", exact=True).select_option("4")
    expect(page.locator("p[role=status]")).to_have_text("1 of 3 images")
    page.get_by_label("Class", exact=True).select_option("")
    page.get_by_label("Score at most").fill("1")
    expect(page.locator("p[role=status]")).to_have_text("0 of 3 images")
    visitor.check()


# Whether text is cut depends on its language, and contrast on the colours.
@pytest.mark.parametrize(("locale", "scheme"), [("en-US", "light"), ("ko-KR", "dark")])
def test_no_view_is_cut_on_a_phone_or_has_a_serious_fault(
    visit: Visits, gateway: Any, locale: str, scheme: str
) -> None:
    visitor = visit(gateway.http, viewport=PHONE, color_scheme=scheme, locale=locale)
    for view in VIEWS:
        page = visitor.show(view)
        page.wait_for_load_state("networkidle") if view != "service" else None
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], view
        assert page.evaluate(CUT) == [], view
        page.evaluate(AXE.read_text(encoding="utf-8"))
        assert page.evaluate(SERIOUS) == [], view
    visitor.check()


# Names of points of which one lies over another.
OVERLAPPING = """() => [...document.querySelectorAll(".mark text")]
  .map((it) => [it.textContent, it.getBoundingClientRect()])
  .filter(([name, box], i, all) => all.slice(0, i).some(([, other]) =>
    box.left < other.right && other.left < box.right
      && box.top + 4 < other.bottom && other.top + 4 < box.bottom))
  .map(([name]) => name)"""
CUT = """() => [...document.querySelectorAll("h1, h2, h3, p, button, label, a, b")]
  .filter((it) => !it.closest(".hidden, .skip") && it.scrollWidth > it.clientWidth + 1
    && it.clientWidth && getComputedStyle(it).display !== "inline")
  .map((it) => it.textContent)"""
SERIOUS = """async () => (await axe.run()).violations
  .filter(({ impact }) => impact === "serious" || impact === "critical")
  .map(({ id, nodes }) => [id, nodes.slice(0, 3).map(({ html }) => html)])"""


def test_the_chosen_language_is_kept(visit: Visits, gateway: Any) -> None:
    visitor = visit(gateway.http)
    page = visitor.show("classify")
    page.get_by_label("Language").select_option("ko")
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    page.reload()
    expect(page.locator("h1")).to_contain_text("신경망")
    visitor.check()
