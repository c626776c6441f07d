"""The page in a real browser: with the mouse, by keyboard alone, on a telephone, in the dark, and with a token."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from browsers import Picture
from harness import Desk, wait_until

from pepper.config.serving import Scope
from pepper.service.tokens import Tokens
from tests.service.conftest import Client, served, unzipped

pytestmark = pytest.mark.slow

# Every control has a name, every region its heading, and every chart a text.
NAMELESS = """
return [...document.querySelectorAll("input, select, button, a, [role=img], [role=region], section, progress")]
  .filter((each) => !each.closest("[hidden]"))
  .filter((each) => !(each.labels?.length || each.textContent.trim() || each.ariaLabel))
  .map((each) => each.outerHTML)
"""
# Of the chart library, at once: the style of maps, which the policy forbids, and which no chart here is.
KNOWN = re.compile(r"/charts.js .*Applying inline style|the server responded with a status of 4")
FOCUSED = "const e = document.activeElement; return e.id || e.textContent.trim()"
GROUNDS = """
return [...document.querySelectorAll("[role=img]")]
  .map((each) => each.querySelector(".main-svg").style.background || "none")
"""
WIDER = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def page(client: Client, browser: Any, desk: Desk) -> Any:
    """The page after a model was sent to it, and placed: what is downloaded lies in the desk's folder."""
    (desk.folder / "downloads").mkdir()
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(desk.folder / "downloads")}
    )
    browser.get(client.address)
    return browser


def shown(browser: Any, name: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", name))


def says(browser: Any, name: str, text: str) -> None:
    wait_until(lambda: text in shown(browser, name) or shown(browser, "problem"), timeout_s=120)
    assert text in shown(browser, name), shown(browser, "problem")


def complaints(browser: Any) -> list[str]:
    """What the browser's console complains of: scripts, and what the policy forbids."""
    return [
        each["message"]
        for each in browser.get_log("browser")
        if each["level"] == "SEVERE" and not KNOWN.search(each["message"])
    ]


def send(browser: Any, file: Path) -> None:
    browser.find_element("id", "file").send_keys(str(file))


def test_a_model_is_sent_cut_and_placed(page: Any, desk: Desk, client: Client, picture: Picture) -> None:
    picture("page-begin")
    assert page.execute_script(NAMELESS) == []
    send(page, desk.folder / "net.onnx")
    says(page, "status", "places to cut")
    assert "12 operators" in shown(page, "facts")
    rows = page.find_elements("css selector", "#cuts-shown tbody tr")
    model = client("GET", "/v1/models").json()[0]["model"]
    assert len(rows) == len(client("POST", f"/v1/models/{model}/cuts", json={}).json()["cuts"])
    assert page.find_elements("css selector", "#cuts-shown .main-svg")
    picture("page-cuts")
    for name, option in (("fleet", "three_shares"), ("link", "wifi"), ("objective", "throughput")):
        page.execute_script("document.getElementById(arguments[0]).value = arguments[1]", name, option)
    page.find_element("id", "parts").send_keys("2")
    page.find_element("css selector", "#asked button").click()
    wait_until(lambda: page.find_element("id", "cancel").is_displayed())
    picture("page-working")
    says(page, "status", "The plan is ready")
    assert page.execute_script(FOCUSED) == "plan-title", "who reads by ear hears it"
    text = shown(page, "plan-shown")
    for part in ("predicted latency", "The plan beside the alternatives", "one request, predicted", "Parts of"):
        assert part.lower() in text.lower()
    assert len(page.find_elements("css selector", "#plan-shown [role=img] .main-svg")) >= 2
    picture("page-plan")

    page.find_element("id", "get-plan").click()
    says(page, "status", "plan.json is downloaded")
    page.find_element("id", "get-parts").click()
    says(page, "status", "parts.zip is downloaded")
    files = desk.folder / "downloads"
    wait_until(lambda: {file.name for file in files.iterdir()} == {"plan.json", "parts.zip"})
    plan = json.loads((files / "plan.json").read_text())
    parts = [name for name in unzipped((files / "parts.zip").read_bytes()) if name.endswith(".onnx")]
    assert len(parts) == len(plan["parts"]) <= 2
    assert page.execute_script(NAMELESS) == []
    assert complaints(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark"), (360, "dark")])
def test_it_fits_a_telephone_and_the_dark(page: Any, picture: Picture, width: int, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        wait_until(lambda: page.execute_script(WIDER) == 0)
        wait_until(lambda: set(page.execute_script(GROUNDS)) == {ground})
        page.execute_script("scrollTo(0, 0)")
        picture(f"page-{width}-{scheme}")
        page.execute_script("document.getElementById('plan-title').scrollIntoView()")
        picture(f"page-{width}-{scheme}-plan")
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_by_keyboard_alone(page: Any, client: Client, desk: Desk) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    def pressed(key: str) -> str:
        ActionChains(page).send_keys(key).perform()
        return str(page.execute_script(FOCUSED))

    client.upload(desk.folder / "net.onnx")
    page.get(client.address)
    wait_until(lambda: len(page.find_elements("css selector", "#models option")) > 1)
    begin = ["Skip to the model", "The routes behind this page", "file", "models"]
    assert [pressed(Keys.TAB) for _ in begin] == begin
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    pressed(Keys.ARROW_DOWN)
    pressed(Keys.ENTER)
    says(page, "status", "places to cut")
    focused = [pressed(Keys.TAB) for _ in range(9)]
    assert [name for name in focused if name in ("fleet", "link", "objective", "parts", "Place")] == [
        *("fleet", "link", "objective", "parts", "Place")
    ]


def test_what_is_wrong_is_said_in_the_services_words(
    page: Any, client: Client, models: dict[str, Path], tmp_path: Path, picture: Picture
) -> None:
    page.get(client.address)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    send(page, tmp_path / "bad.onnx")
    wait_until(lambda: shown(page, "problem"))
    answer = client("POST", "/v1/models", data=b"no model", headers={"Content-Type": "application/octet-stream"}).json()
    assert shown(page, "problem").startswith(answer["detail"])
    picture("page-problem")
    send(page, models["dynamic"])
    wait_until(lambda: page.find_element("id", "sizes").is_displayed())
    says(page, "status", "places to cut")
    picture("page-sizes")
    page.find_element("id", "dims").send_keys("M=4")
    page.find_element("css selector", "#sizes button").click()
    wait_until(lambda: "model.dims.M" in shown(page, "problem"))
    page.find_element("id", "dims").clear()
    page.find_element("id", "dims").send_keys("N=4")
    page.find_element("css selector", "#sizes button").click()
    says(page, "status", "places to cut")
    page.execute_script("document.getElementById('parts').value = 99")
    page.find_element("css selector", "#asked button").click()
    wait_until(lambda: page.find_element("id", "cancel").is_displayed() or shown(page, "problem"))
    if page.find_element("id", "cancel").is_displayed():
        page.find_element("id", "cancel").click()
        wait_until(lambda: "was cancelled" in shown(page, "problem"))
    assert complaints(page) == []


def test_a_token_is_asked_for_and_kept_in_memory_only(desk: Desk, browser: Any, picture: Picture) -> None:
    token = Tokens(desk.folder / "service").make("page", [Scope.read])
    with served(desk) as client:
        answer = client("GET", "/")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        browser.get(client.address)
        wait_until(lambda: browser.find_element("id", "entry").is_displayed())
        assert "no token was sent" in shown(browser, "problem")
        picture("page-token")
        browser.find_element("id", "token").send_keys(token)
        browser.find_element("css selector", "#entry button").click()
        wait_until(lambda: len(browser.find_elements("css selector", "#fleet option")) > 1)
        assert not shown(browser, "problem")
        send(browser, desk.folder / "net.onnx")
        wait_until(lambda: "has no scope predict" in shown(browser, "problem"))
        stored = "return JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        assert token not in browser.execute_script(stored)
        browser.refresh()
        wait_until(lambda: browser.find_element("id", "entry").is_displayed())
        browser.get("about:blank")
