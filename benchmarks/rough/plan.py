"""A plan in two parts, written down without a latency model."""

from pathlib import Path

from pepper.config import DeviceConfig, LoadConfig, ModelConfig
from pepper.devices import host
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.placement.plan import Plan, PlannedModel, PlannedPart

SHARES = {"camera": 0.3, "edge": 0.6}


def save_plan(path: Path, file: Path) -> None:
    """Cut a model at its first place, give each part a share of the last core, and write the plan."""
    model = find_model(ModelConfig(path=str(path)))
    graph = load_graph(model.file, shapes=model.shapes)
    cut = find_cuts(graph)[0]
    core = host.allowed_cores()[-1]
    devices = {
        name: FleetDevice(
            DeviceConfig(name=name, kind="emulated", cores=[core], threads=1, share=share),
            LoadConfig(percent=0, name="idle"),
        )
        for name, share in SHARES.items()
    }
    crossing = (graph.inputs, cut.tensors, graph.outputs)
    borders = [tuple(graph.tensors[tensor].name for tensor in tensors) for tensors in crossing]
    first, second = devices
    shapes = {name: tuple(shape) for name, shape in model.shapes.items()}
    Plan(
        model=PlannedModel("tiny", str(path), model.content_hash, shapes),
        fleet=Fleet(devices, everywhere(devices, Link(400.0, 1.0)), first, first),
        objective="latency",
        parts=(
            PlannedPart(0, cut.position, first, 1.0, 0.25, 1e6, 0.0, 0, borders[0], borders[1]),
            PlannedPart(cut.position, len(graph.operators), second, 1.0, 0.25, 1e6, 2.0, 1e3, borders[1], borders[2]),
        ),
        return_ms=1.0,
        latency_ms=4.0,
        period_ms=2.0,
        sent_bytes=1e3,
        bound_ms=4.0,
        gap=0.0,
        solver="by hand",
    ).save(file)
