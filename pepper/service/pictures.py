"""A placement as the report shows it: key figures, charts and tables, as JSON that the page draws."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from pepper.placement.plan import Plan
from pepper.report.page import Chart, Facts, Table, number
from pepper.report.plans import PlanReport, section
from pepper.service.jobs import Job
from pepper.service.problems import Refused
from pepper.service.running import result_of


class Picture(BaseModel):
    """Key figures, a chart or a table."""

    kind: Literal["facts", "chart", "table"]
    caption: str = Field(description="What it shows")
    facts: dict[str, str] = Field(default={}, description="Key figures by name")
    figure: dict[str, Any] = Field(default={}, description="Plotly's data and layout")
    columns: list[str] = []
    rows: list[list[str]] = Field(default=[], description="As a person reads them")


def placement_pictures(job: Job, home: Path) -> list[Picture]:
    """Return what is shown of a placement: the plan, when its parts work, and beside it the alternatives.

    Args:
        job: The job.
        home: Its folder.

    Raises:
        Refused: It is no placement, or none that is done.
    """
    answer = json.loads(result_of(job, home))
    if job.task != "place":
        raise Refused(409, f"job {job.job}: is a {job.task}, which has no report", "job", "ask for a POST /v1/place")
    shown = section(PlanReport("", Plan.parse(json.dumps(answer["plan"]).encode(), "the plan"))).blocks
    blocks = [_block(block) for block in shown if isinstance(block, Facts | Chart | Table)]
    return [*blocks[:1], _alternatives(answer["plans"]), *blocks[1:]]


def _block(block: Facts | Chart | Table) -> Picture:
    if isinstance(block, Facts):
        return Picture(kind="facts", caption="The plan", facts=dict(block.values))
    if isinstance(block, Chart):
        return Picture(kind="chart", caption=block.caption, figure=dict(block.figure))
    rows = [[number(value) for value in row] for row in block.rows]
    return Picture(kind="table", caption=block.caption, columns=list(block.columns), rows=rows)


def _alternatives(plans: list[Mapping[str, Any]]) -> Picture:
    columns = {
        "plan": "name",
        "parts": "parts",
        "latency ms": "latency_ms",
        "between results ms": "period_ms",
        "sent bytes": "sent_bytes",
        "times the best": "ratio",
    }
    rows = [[*(number(line[name]) for name in columns.values()), "; ".join(line["broken"] or ())] for line in plans]
    return Picture(kind="table", caption="The plan beside the alternatives", columns=[*columns, "breaks"], rows=rows)
