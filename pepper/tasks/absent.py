"""``task=adapt adapt.csv=FILE``: learn a device that is not at hand; before, propose what to measure there."""

from pathlib import Path

import numpy as np

from pepper.config import PepperConfig
from pepper.console.tables import show
from pepper.errors import ConfigError, listed
from pepper.latency import collect, elsewhere
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import scores
from pepper.latency.model import LatencyModel
from pepper.planning import absent
from pepper.planning.absent import AbsentDevice
from pepper.planning.latency_models import chosen_version, load_version, open_registry
from pepper.tasks.import_measurements import import_measurements
from pepper.tasks.result import Result
from pepper.tracking.history import history
from pepper.tracking.store import Store


def absent_device(config: PepperConfig, name: str) -> AbsentDevice:
    """Learn a device from its imported latencies and from what the champion knows of others.

    Raises:
        LatencyError: Nothing of the device was imported.
    """
    return absent.learn(name, history(Store(config.tracking)), *_champion(config))


def adapt_to_absent(config: PepperConfig, file: Path) -> Result:
    """Log a device's latencies, learn it, and say how well each of them follows from the others.

    Raises:
        ConfigError: The file has several devices, and `adapt.device` names none of them.
        LatencyError: The file cannot be read, or holds too little.
    """
    lines, _ = elsewhere.read(file)
    devices = sorted({line.device for line in lines})
    if config.adapt.device is not None and config.adapt.device not in devices:
        raise ConfigError(f"adapt.device={config.adapt.device}: not in {file}; it has {listed(devices)}")
    if config.adapt.device is None and len(devices) > 1:
        raise ConfigError(f"adapt.csv={file}: has {len(devices)} devices; give adapt.device=... ({listed(devices)})")
    known = _champion(config)
    bad = import_measurements(config, file)
    name = config.adapt.device or devices[0]
    learned = absent.learn(name, history(Store(config.tracking)), *known)
    figures = scores(learned.latency_ms, learned.left_out_ms)
    judged = (
        f"each, left out, is {figures['median_error']:.1%} off by median, {figures['within_10']:.0%} within 10 %"
        if np.isfinite(figures["median_error"])
        else "too few to leave any out"
    )
    count = len(learned.latency_ms)
    show(f"{name}: {count} latencies; {judged}", device=name, measurements=count, left_out=figures)
    for line in learned.warnings():
        show(f"warning: {line}")
    show(f"ask about it with task=predict predict.device={name}")
    return Result(1 if bad else 0)


def propose(config: PepperConfig, file: Path) -> Result:
    """Write which models to measure on a device that is not at hand.

    Raises:
        LatencyError: Too few models are known, or the file cannot be written.
    """
    champion, _ = _champion(config)
    device = config.adapt.device or "mine"
    chosen = absent.propose(history(Store(config.tracking)), champion, device, config.adapt.measurements)
    elsewhere.write(chosen, file)
    for row in chosen:
        show(f"  {row['model']}", models=[each["model"] for each in chosen])
    show(
        f"measure these {len(chosen)} on {device}, fill in latency, and give task=adapt adapt.csv={file}",
        file=str(file),
    )
    return Result()


def _champion(config: PepperConfig) -> tuple[LatencyModel, Rows]:
    """The champion, or the version that the configuration names, and the rows that it was trained on."""
    registry = open_registry(config)
    version = chosen_version(registry, config.latency.version)
    with registry.artifacts(version, "dataset") as folder:
        return load_version(registry, version), collect.read(folder / "train.parquet")
