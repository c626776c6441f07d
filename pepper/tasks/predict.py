"""``task=predict``: how long a model would take on a device under a load, and how sure that is."""

import warnings

from pepper.config import PepperConfig
from pepper.devices.calibration import calibrate
from pepper.devices.device import resolve
from pepper.errors import ModelError
from pepper.graph.characteristics import Characteristics, CostWarning
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.latency.features import rows
from pepper.latency.ranges import in_short
from pepper.measure.load import check_load
from pepper.sweep.cells import Cell
from pepper.tasks.latency_models import chosen_version, load_version, open_registry
from pepper.tasks.settings import setting


def predict(config: PepperConfig) -> int:
    """Print the predicted median, 95th percentile and interval; returns the exit status."""
    registry = open_registry(config)
    version = chosen_version(registry, config.latency.version)
    model = load_version(registry, version)
    found = find_model(config.model)
    device = resolve(config.device)
    check_load(config.load, device)
    cell = Cell(config.model, found, device, config.load, config.measure)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        graph = load_graph(found.file, shapes=found.shapes)
        if not graph.operators:
            raise ModelError(f"{found.file}: has no operators to predict")
        characteristics = Characteristics(graph)
    part = characteristics.table([0], [len(graph.operators)])
    row = rows(part, setting(cell, calibrate(device)))
    result = model.predict(row)
    print(f"{cell.name}: median {result.p50_ms[0]:.3g} ms, 95th percentile {result.p95_ms[0]:.3g} ms")
    print(f"  90 % of models never seen take {result.low_ms[0]:.3g} to {result.high_ms[0]:.3g} ms where this is said")
    print(f"  by {registry.name} version {version}")
    for gap in characteristics.gaps:
        print(f"warning: cost not known of {gap}; the prediction counts it as nothing")
    for line in in_short(model.out_of_range(row)):
        print(f"warning: {line}")
    return 0
