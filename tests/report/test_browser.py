"""The report and MLflow's UI in a real browser: they open without an error, and show what they should."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import Picture
from harness import Desk, MakeDesk, composed, free_port, server, wait_until
from measured import log_cells

from pepper.report import notes
from pepper.tracking.record import NewVersion
from pepper.tracking.registry import MODEL_FOLDER, Registry, promotion, write_signature
from pepper.tracking.runs import artifacts, figure_address
from pepper.tracking.store import Store
from pepper.tracking.views import CELLS

pytestmark = pytest.mark.slow

NASTY = "<script>alert(1)</script>"
# What MLflow's UI complains of by itself: servers without accounts, and charts drawn before they have a size.
KNOWN = re.compile(r"/ajax-api/2.0/mlflow/users/current|/static-files/.*attribute \w+: Expected (number|length)")


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A store with a finished sweep and cells with odd names."""
    desk = make_desk(tmp_path_factory.mktemp("browser") / "desk")
    desk.sweep("one", "# One.\nname: one\naxes:\n  model: [tiny]\n  device: [share100]\n  load: [idle, cpu25]\n")
    assert desk("+sweep=one").status == 0
    log_cells(desk, ["resnet", "vgg", NASTY])
    return desk


@pytest.fixture(scope="module")
def ui(desk: Desk, browser: Any) -> Iterator[str]:
    """The address of MLflow's UI on the desk's store; its assistant's pane stays closed."""
    port = free_port()
    with server(desk.folder, desk.folder / "mlruns" / "mlflow.db", port):
        address = f"http://127.0.0.1:{port}"
        browser.get(address)
        browser.execute_script(
            "localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');"
            "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
        )
        yield address


def errors(browser: Any) -> list[str]:
    """What the pages complained of since the last look."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE" and not KNOWN.search(entry["message"])
    ]


def shows(browser: Any, *texts: str) -> None:
    """Wait until a page shows all of these texts."""

    def body() -> str:
        return str(browser.execute_script("return document.body ? document.body.innerText : ''"))

    wait_until(lambda: all(text in body() for text in texts), timeout_s=60)


def shows_figure(browser: Any) -> None:
    """Wait until a description's picture is there."""
    width = "const i = document.querySelector('img[src*=get-artifact]'); return i ? i.naturalWidth : 0"
    wait_until(lambda: browser.execute_script(width) > 100)


def opened(browser: Any, address: str, *texts: str) -> None:
    """Open a page, and wait until it shows all of these texts without an error."""
    browser.get("about:blank")
    browser.get(address)
    shows(browser, *texts)
    assert errors(browser) == []


def test_the_report(desk: Desk, browser: Any, picture: Picture) -> None:
    file = desk.folder / "report.html"
    assert desk("task=report", f"report.out={file}").status == 0
    opened(browser, file.as_uri(), "What was measured", "Latency against load")
    wait_until(lambda: browser.find_elements("css selector", ".main-svg"))
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    charts = browser.find_elements("css selector", ".chart")
    wait_until(lambda: all(chart.find_elements("css selector", ".main-svg") for chart in charts))
    assert len(charts) == 1 + 4
    assert errors(browser) == [], "no alert was opened either: Chromium would have refused the next command"
    shows(browser, NASTY)
    drawn = browser.execute_script("return [...document.querySelectorAll('.ytick text')].map(t => t.textContent)")
    assert NASTY in drawn, "in a chart, too, a name is shown as it is"
    picture("report")


def test_the_report_sorts_and_filters(desk: Desk, browser: Any, picture: Picture) -> None:
    file = desk.folder / "report.html"
    assert desk("task=report", f"report.out={file}").status == 0
    opened(browser, file.as_uri(), "Every cell")
    browser.execute_script("document.querySelector('details').open = true")
    box = browser.find_element("css selector", "details input")
    box.send_keys("vgg share25")
    assert browser.find_element("css selector", "details output").text == "3 of 29 rows"
    header = next(cell for cell in browser.find_elements("css selector", "details th") if cell.text == "median ms")
    column = browser.execute_script("return arguments[0].cellIndex", header)
    for turn in (1, -1):
        browser.execute_script("arguments[0].click()", header)
        cells = browser.execute_script(
            "return [...document.querySelectorAll('details tbody tr')].map(r => r.cells[arguments[0]].textContent)",
            column,
        )
        medians = [float(cell.replace(",", "")) for cell in cells]
        assert medians == sorted(medians)[::turn]
    picture("report-table")


def test_mlflow_shows_the_table_and_the_charts(desk: Desk, ui: str, browser: Any, picture: Picture) -> None:
    experiment = desk.runs()[0].info.experiment_id
    view = f"{ui}/#/experiments/{experiment}/runs?viewStateShareKey={CELLS}"
    opened(browser, view, "latency_p50_ms", "pepper.verdict", "share100", "VALID", "pepper: cells")
    picture("mlflow-table")
    opened(browser, f"{view}&compareRunsMode=CHART", "Parallel Coordinates", "load_percent vs. latency_p50_ms")
    picture("mlflow-charts")


def test_mlflow_compares_runs(desk: Desk, ui: str, browser: Any, picture: Picture) -> None:
    runs = [run for run in desk.runs() if run.data.params["model"] in ("resnet", "vgg")]
    chosen = json.dumps([run.info.run_id for run in runs])
    experiments = json.dumps([runs[0].info.experiment_id])
    opened(browser, f"{ui}/#/compare-runs?runs={chosen}&experiments={experiments}", "Parallel Coordinates", "share25")
    picture("mlflow-compare")


def test_mlflow_describes_a_sweep_and_a_cell(desk: Desk, ui: str, browser: Any, picture: Picture) -> None:
    (sweep,) = desk.runs("sweep")
    page = f"{ui}/#/experiments/{sweep.info.experiment_id}/runs"
    opened(browser, f"{page}/{sweep.info.run_id}", "2 VALID", "Description")
    shows_figure(browser)
    picture("mlflow-sweep")
    cell = next(run for run in desk.runs() if run.data.params["model"] == NASTY)
    opened(browser, f"{page}/{cell.info.run_id}", "median", NASTY, "samples from")
    picture("mlflow-cell")


def test_mlflow_describes_a_version_of_the_latency_model(desk: Desk, ui: str, browser: Any, picture: Picture) -> None:
    store = Store(composed(*(each for each in desk.arguments() if each.startswith("tracking."))).tracking)
    registry = Registry(store, "pepper-latency")
    (sweep,) = desk.runs("sweep")  # stands for a training: it has a figure, and gets a model's description
    with artifacts(store, sweep.info.run_id) as folder:
        (folder / MODEL_FOLDER).mkdir()
        write_signature(folder / MODEL_FOLDER, ["macs"], ["p50_ms"])
    scores = [{"held_out": "model", "predictor": NASTY, "mape": 0.12, "within_10": 0.5}]
    for rows in ("100", "200"):
        champion = registry.champion()
        before = None if champion is None else (champion, registry.tags(champion))
        figure = figure_address(sweep.info.run_id, "latency.png")
        note = notes.version(registry.name, {"rows": rows}, scores, before, figure)
        version = registry.register(sweep.info.run_id, NewVersion(registry.name, {"rows": rows}, note))
        registry.promote(promotion(version, champion, f"better than {NASTY}"))
    opened(browser, f"{ui}/#/models/pepper-latency/versions/2", "Version 2", "Since the champion, version 1", NASTY)
    shows(browser, "Champion since", "LatencyModel.load", "12.0%")
    shows_figure(browser)
    picture("mlflow-version")
