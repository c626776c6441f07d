"""Plans of small and real models, written down without a latency model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pepper.config import DeviceConfig, LoadConfig, ModelConfig
from pepper.config.cutting import CutKind
from pepper.devices import host
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.placement.plan import Plan, PlannedModel, PlannedPart

CORES = host.allowed_cores()
LINK_MBIT_S, LINK_MS = 400.0, 1.0


def shares(**share: float) -> dict[str, FleetDevice]:
    """Devices that share the last core."""
    return {
        name: FleetDevice(
            DeviceConfig(name=name, kind="emulated", cores=[CORES[-1]], threads=1, share=part),
            LoadConfig(percent=0, name="idle"),
        )
        for name, part in share.items()
    }


def make_plan(
    path: str,
    devices: Sequence[str],
    fleet: Mapping[str, FleetDevice],
    kind: CutKind = CutKind.tensors,
    **changes: Any,
) -> Plan:
    """Place a model in parts of equal work, cut at cuts of a kind."""
    config = ModelConfig(path=path)
    model = find_model(config)
    graph = load_graph(model.file, shapes=model.shapes)
    macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
    cuts = balanced_cuts(graph, find_cuts(graph, kind), len(devices), macs)
    names = [tuple(graph.tensors[t].name for t in cut.tensors) for cut in cuts]
    ends = [0, *(cut.position for cut in cuts), len(graph.operators)]
    inputs = [tuple(graph.tensors[t].name for t in graph.inputs), *names]
    outputs = [*names, tuple(graph.tensors[t].name for t in graph.outputs)]
    content = {
        "model": PlannedModel(
            str(config.name), path, model.content_hash, {name: tuple(shape) for name, shape in model.shapes.items()}
        ),
        "fleet": Fleet(fleet, everywhere(fleet, Link(LINK_MBIT_S, LINK_MS)), devices[0], devices[0]),
        "objective": "latency",
        "parts": tuple(
            PlannedPart(
                ends[k], ends[k + 1], device, 1.0, 0.25, 1e6, 2.0 if k else 0.0, 1e3 if k else 0, inputs[k], outputs[k]
            )
            for k, device in enumerate(devices)
        ),
        "return_ms": 1.0 if len(devices) > 1 else 0.0,
        "latency_ms": 4.0,
        "period_ms": 2.0,
        "sent_bytes": 1e3,
        "bound_ms": 4.0,
        "gap": 0.0,
        "solver": "by hand",
        "provenance": {"latency_model": "pepper-latency", "latency_model_version": 3},
    }
    return Plan(**{**content, **changes})


def save(plan: Plan, folder: Path) -> Path:
    file = folder / "plan.json"
    plan.save(file)
    return file
