"""The page is one well-formed file that loads nothing, and no text in it is ever markup."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.report import synthetic
from pepper.execution.runner import Event
from pepper.fleet import Fleet, FleetDevice
from pepper.placement.plan import Plan, PlannedModel, PlannedPart
from pepper.report import measurements, plans
from pepper.report.cells import tidy
from pepper.report.charts import log_axis
from pepper.report.execution_tables import MoveLine, RunLine, StepLine
from pepper.report.learning import LatencyModelReport
from pepper.report.learning import section as learning_section
from pepper.report.page import Chart, Facts, Section, Table, number, render
from pepper.report.timelines import Busy

NASTY = "<script>alert(1)</script>&amp;\"'</script><!-- `${x}` {{ y }} \u2028 🤔 名"
VOID = {"meta", "link", "input", "br"}


class Reader(HTMLParser):
    """Collects a page's tags and texts; refuses tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.figures: list[dict[str, Any]] = []
        self.scripts = 0
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        self.is_figure = ("type", "application/json") in attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            if self.is_figure:
                self.figures.append(json.loads(data))
        else:
            self.texts.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def page_of(cells: pd.DataFrame) -> Reader:
    return read(render("title", "subtitle", measurements.sections(tidy(cells), [])))


@pytest.fixture(scope="module")
def page() -> Reader:
    return page_of(synthetic(300))


def test_every_figure_is_one_that_plotly_knows(page: Reader) -> None:
    assert len(page.figures) == 16  # the devices, and a chart for each of the 15 models
    for figure in page.figures:
        go.Figure(figure)  # refuses a mistyped key


def test_every_axis_has_its_unit(page: Reader) -> None:
    for figure in page.figures:
        titles = [figure["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")]
        assert all(re.search(r"\((ms|%)", title) or title == "" for title in titles), titles
        assert any(titles)


def test_every_chart_has_its_sample_count(page: Reader) -> None:
    counted = [text for text in page.texts if re.search(r"\d+ cells of [\d,]+( to [\d,]+)? samples", text)]
    assert len(counted) == len(page.figures)


def test_every_cell_is_there(page: Reader) -> None:
    cells = tidy(synthetic(300))
    texts = set(page.texts)
    for median in cells["p50_ms"].dropna():
        assert number(float(median)) in texts
    drawn = sum(
        len(trace["x"])
        for figure in page.figures[1:]
        for trace in figure["data"]
        if "median" in trace.get("text", [""])[0]
    )
    assert drawn == cells["p50_ms"].notna().sum()


def test_nothing_is_loaded_from_anywhere(page: Reader) -> None:
    addresses = [value for _, name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert all(value.startswith(("#", "data:")) for value in addresses if value)
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in str(value))
    assert "default-src 'none'" in str(policy)


def test_names_are_never_markup(page: Reader) -> None:
    cells = synthetic(40)
    for column in ("params.model", "params.device", "params.load", "reasons"):
        cells[column] = NASTY + cells[column].fillna("").astype(str)
    hostile = page_of(cells)
    assert hostile.scripts == 2 + len(hostile.figures)
    shown = " ".join(hostile.texts)
    assert "<script>alert(1)</script>" in shown
    for figure in hostile.figures:
        names = [str(trace.get("name")) for trace in figure["data"]]
        names += [text for trace in figure["data"] for text in trace.get("text", [])]
        assert not any("<script" in name for name in names), "Plotly knows some markup, so it is escaped there too"


# What HTML can hold: the parser itself replaces control characters.
texts = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=40)


@settings(max_examples=30, deadline=None)
@given(texts, texts, texts)
def test_any_text_comes_out_as_it_went_in(title: str, caption: str, value: str) -> None:
    sections = [
        Section(title, [caption, Facts({caption: value}), Table(caption, [title], [[value]])]),
        Section("charts", [Chart({"data": [], "layout": {"title": value, "height": 1}}, caption)]),
    ]
    reader = read(render(title, caption, sections))
    assert reader.figures[0]["layout"]["title"] == value
    joined = "\n".join(reader.texts)
    for text in (title, caption, value):
        for line in text.splitlines():
            assert line.strip() in joined


def test_sections_without_content_are_absent() -> None:
    empty = read(render("title", "", measurements.sections(tidy(pd.DataFrame()), [])))
    assert "Nothing was measured yet" in " ".join(empty.texts)
    assert "Verdicts" not in empty.texts
    assert empty.figures == []


def test_a_page_without_charts_needs_no_library() -> None:
    assert len(render("title", "", [Section("text", ["words"])])) < 20_000


def test_only_failed_cells() -> None:
    cells = synthetic(100)
    cells = cells[cells["status"] == "FAILED"]
    failed = page_of(cells)
    assert failed.figures == []
    assert "No cell has a figure" in " ".join(failed.texts)
    assert "worker: crashed" in failed.texts


def test_runs_of_others_are_left_out() -> None:
    foreign = pd.DataFrame([{"run_id": "x", "status": "FINISHED", "cell": None, "params.learning_rate": "0.1"}])
    assert tidy(foreign).empty
    assert len(tidy(pd.concat([synthetic(5), foreign]))) == 5


def test_the_newest_measurement_of_a_cell_counts() -> None:
    cells = synthetic(1)
    later = cells.assign(**{"metrics.latency_p50_ms": 77.0, "ended_ms": cells["ended_ms"] + 1})
    (median,) = tidy(pd.concat([later, cells]))["p50_ms"]
    assert median == 77.0


def test_what_varies_names_the_series() -> None:
    cells = synthetic(4).assign(**{"params.load_percent": "0", "params.device": "d", "params.model": "m"})
    cells["params.threads"] = ["1", "1", "2", "2"]
    cells["params.optimization"] = ["all", "basic", "all", "all"]
    assert sorted(set(tidy(cells)["series"])) == [
        "d (1 thread), optimization=all",
        "d (1 thread), optimization=basic",
        "d (2 threads)",
    ]


def test_a_load_on_an_accelerator_is_a_series_of_its_own() -> None:
    cells = synthetic(2).assign(**{"params.load_percent": "0", "params.device": "d", "params.model": "m"})
    cells["params.threads"] = "1"
    cells["params.load_accelerator_percent"] = [None, "50.0"]
    assert sorted(tidy(cells)["series"]) == ["d, load_accelerator_percent=0", "d, load_accelerator_percent=50.0"]


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=5))
def test_logarithmic_axes_have_a_few_ticks(values: list[float]) -> None:
    low, high = min(values), max(values)
    ticks = [tick for tick in log_axis(values).get("tickvals", [low]) if low <= tick <= high]
    assert 1 <= len(ticks) <= 15


def test_a_plan_is_drawn_from_its_own_figures() -> None:
    parts = (
        PlannedPart(0, 3, "a", 5.0, 0.5, 1e6, 0.0, 0.0, (NASTY,)),
        PlannedPart(3, 9, "b", 7.0, 0.5, 1e6, 2.0, 1e5, (NASTY,)),
    )
    fleet = Fleet({"a": FleetDevice(), "b": FleetDevice()}, (), "a", "a")
    model = PlannedModel(NASTY, "net.onnx", "0", {})
    plan = Plan(model, fleet, "latency", parts, 1.0, 16.0, 7.0, 2e5, 16.0, 0.0, "by hand")
    events = plans.predicted(plan)
    assert [(e.start_ms, e.stop_ms) for e in events] == [(0.5, 5.5), (5.5, 7.5), (8, 15), (15, 16)]
    assert events[-1].stop_ms == plan.latency_ms
    steps = [StepLine("part 1", NASTY, 5.0, 6.0), StepLine("link", NASTY, None, 7.0)]
    runs = [RunLine(NASTY, "a", 1.0, 2.0, 1.0)]
    happened = [Event(5 * 10**9, "lost", NASTY), Event(7 * 10**9, "moved", "to a - c")]
    moves = [MoveLine(2.5, "a - b", "a - c", NASTY, 9.0, 7.0, 10.0, float("nan"), 90.0, 0.0)]
    one, several = ([Busy(NASTY, NASTY, 1, "part 1", 0, 5)], [Busy(f"a -> {NASTY}", NASTY, 2, "transfer", 5, 6)])
    busy = {f"0 {NASTY}": one, f"1 {NASTY}": [*one, *several]}
    for placement, charts in (
        (plans.PlanReport(NASTY, plan, "run"), 2),
        (plans.PlanReport(NASTY, plan, "run", front=[plan, plan]), 3),
        (plans.PlanReport(NASTY, plan, "run", steps=steps, runs=runs), 3),
        (plans.PlanReport(NASTY, plan, "run", steps=steps, events=happened, moves=moves), 3),
        (plans.PlanReport(NASTY, plan, "run", steps=steps, timelines=busy, events=happened, moves=moves), 5),
    ):
        reader = read(render("t", "", [plans.section(placement)]))
        assert len(reader.figures) == charts
        for figure in reader.figures:
            go.Figure(figure)
        assert "optimal" in reader.texts
    predicted, measured, stream = reader.figures[1:4]
    assert len({json.dumps([f["layout"][axis] for axis in ("xaxis", "yaxis")]) for f in (predicted, measured)}) == 1
    colours = [bar["marker"]["color"] for f in (predicted, measured, stream) for bar in f["data"] if bar["y"]]
    assert colours[0][0] != colours[2][0], "a device of its own"
    assert colours[2] == colours[3] == colours[4], "the same device"
    hatched = [["pattern" in bar["marker"] for bar in f["data"] if bar["y"]] for f in (measured, stream)]
    assert hatched == [[False], [False, True]]
    assert stream["data"][1]["text"] == ["2"]
    assert stream["data"][1]["hovertext"][0].startswith("request 2, transfer, a -&gt; &lt;script")
    for text in ("to a - c", "a - c", "2", "2.5", "lost"):
        assert text in reader.texts, "the events and moves, as tables"


def test_predictions_are_drawn() -> None:
    table = pd.DataFrame(
        {
            "model": ["a", "b", NASTY],
            "device": ["d", "d", NASTY],
            "load": ["idle"] * 3,
            "p50_ms": [1.0, 2.0, 4.0],
            "predicted_without_model_ms": [1.05, 2.0, 3.0],
        }
    )
    scores = pd.DataFrame([{"held_out": "model", "predictor": NASTY, "mape": 0.117, "fastest_picked": float("nan")}])
    section = learning_section(LatencyModelReport("latency", 3, True, table, scores, [["now", "3", NASTY, NASTY]]))
    reader = read(render("t", "", [section]))
    go.Figure(reader.figures[0])
    assert "10.0%" in reader.texts  # (5 % + 0 % + 25 %) / 3
    assert "67%" in reader.texts  # within 10 %
