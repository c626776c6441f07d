"""The devices of a plan, and the links between them, as its file lists them."""

import math
from dataclasses import replace

from pepper.fleet import Fleet, FleetDevice, FleetLink
from pepper.placement.evaluate import Stages, instances, unit
from pepper.placement.problem import ChainProblem
from pepper.units import mbit_s


def planned_fleet(problem: ChainProblem, stages: Stages, known: Fleet | None) -> Fleet:
    """List the devices, of kinds those at work, and the links between them."""
    work = dict.fromkeys(
        (stage.device, number) for stage, number in zip(stages, instances(problem, stages), strict=True)
    )
    single = ((d, 0) for d, kind in enumerate(problem.devices) if kind.count == 1)
    units = sorted({*work, *single})
    links = problem.links
    listed = [
        FleetLink(
            bandwidth_mbit_s=mbit_s(occupied := float(links.occupied_ms_per_byte[a[0], b[0]])),
            latency_ms=float(links.latency_ms[a[0], b[0]]),
            forwarded_mbit_s=mbit_s(float(links.ms_per_byte[a[0], b[0]]) - occupied),
            energy_nj_per_byte=float(links.joules_per_byte[a[0], b[0]]) * 1e9,
            origin=unit(problem, *a),
            target=unit(problem, *b),
        )
        for a in units
        for b in units
        if a != b and math.isfinite(links.latency_ms[a[0], b[0]]) and math.isfinite(links.ms_per_byte[a[0], b[0]])
    ]
    kinds = {pair: known.devices[problem.devices[pair[0]].name] if known else FleetDevice() for pair in units}
    devices = {unit(problem, *pair): replace(kind, count=1) for pair, kind in kinds.items()}
    return Fleet(devices, tuple(listed), problem.source, problem.sink)
