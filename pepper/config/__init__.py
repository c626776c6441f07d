"""Typed schemas behind the Hydra tree, and their validation.

Every option file is merged into these dataclasses, so that a mistyped key or a wrong type fails at
composition, and :func:`typed` checks the values when it makes plain objects of them.
"""

import re
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pepper.config.checks import MISSING
from pepper.config.comparing import CompareConfig
from pepper.config.cutting import CutsConfig, SplitConfig
from pepper.config.executing import ExecuteConfig
from pepper.config.exporting import ExportConfig
from pepper.config.finding import PrometheusConfig
from pepper.config.hosting import HostsConfig
from pepper.config.learning import (
    AdaptConfig,
    ExportDataConfig,
    ImportConfig,
    LatencyConfig,
    PredictConfig,
    PromoteConfig,
    TuningConfig,
)
from pepper.config.measuring import (
    DeviceConfig,
    LimitsConfig,
    LoadConfig,
    MeasureConfig,
    ModelConfig,
    SessionConfig,
    SweepConfig,
)
from pepper.config.placing import FleetConfig, FleetDeviceConfig, LinkConfig, ObjectiveConfig, PlaceConfig
from pepper.config.reporting import ReportConfig
from pepper.config.serving import ServeConfig
from pepper.config.tracking import TrackingConfig
from pepper.errors import ConfigError, argument, nearest

__all__ = [
    "MISSING",
    "OPEN_KEYS",
    "AdaptConfig",
    "CompareConfig",
    "CutsConfig",
    "DeviceConfig",
    "ExecuteConfig",
    "ExportConfig",
    "ExportDataConfig",
    "FleetConfig",
    "FleetDeviceConfig",
    "HostsConfig",
    "ImportConfig",
    "LatencyConfig",
    "LimitsConfig",
    "LinkConfig",
    "LoadConfig",
    "MeasureConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OutputMode",
    "PepperConfig",
    "PlaceConfig",
    "PredictConfig",
    "PrometheusConfig",
    "PromoteConfig",
    "ReportConfig",
    "ServeConfig",
    "SessionConfig",
    "SplitConfig",
    "SweepConfig",
    "TaskConfig",
    "TrackingConfig",
    "TuningConfig",
    "conf_dir",
    "register",
    "typed",
]

OPEN_KEYS = re.compile(
    r"(model\.(shapes|dims|inputs)|device\.(options|facts)|place\.(pinned|rates|priorities)|export\.addresses|execute\.moves\.load_change"
    r"|fleet\.(hub|links)|fleet\.devices\.[^.=]+\.overrides|objective\.weights)[.=]"
)
"""Below these, the names are the model's, the device's or the fleet's own: any key is welcome."""


def conf_dir() -> Path:
    """Return the configuration tree: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parent / "conf"


@dataclass
class TaskConfig:
    """What the command does.

    Attributes:
        name: The task; ``docs/tasks/`` has a page on each.
    """

    name: str = MISSING


class OutputMode(StrEnum):
    """What a task says, and to whom."""

    text = "text"
    json = "json"
    quiet = "quiet"


@dataclass
class PepperConfig:
    """The whole configuration.

    Attributes:
        output: ``text`` for people, ``json`` for scripts (stdout is one JSON document), ``quiet`` (problems only).
    """

    task: TaskConfig = MISSING
    model: ModelConfig = MISSING
    device: DeviceConfig = MISSING
    load: LoadConfig = MISSING
    measure: MeasureConfig = MISSING
    tracking: TrackingConfig = MISSING
    cuts: CutsConfig = MISSING
    split: SplitConfig = MISSING
    latency: LatencyConfig = MISSING
    tuning: TuningConfig = MISSING
    fleet: FleetConfig = MISSING
    link: LinkConfig = MISSING
    objective: ObjectiveConfig = MISSING
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    compare: CompareConfig = field(default_factory=CompareConfig)
    export_data: ExportDataConfig = field(default_factory=ExportDataConfig)
    imports: ImportConfig = field(default_factory=ImportConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    promote: PromoteConfig = field(default_factory=PromoteConfig)
    place: PlaceConfig = field(default_factory=PlaceConfig)
    execute: ExecuteConfig = field(default_factory=ExecuteConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    report: ReportConfig = MISSING
    hosts: HostsConfig = MISSING
    prometheus: PrometheusConfig = MISSING
    serve: ServeConfig = field(default_factory=ServeConfig)
    output: OutputMode = OutputMode.text
    sweep: SweepConfig | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether problems only are to be said."""
        return self.output == OutputMode.quiet


def register() -> None:
    """Make the schema known to Hydra, under the name that ``conf/run.yaml`` starts from."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=PepperConfig)


def typed(cfg: Any) -> PepperConfig:
    """Turn a composed configuration into checked plain objects.

    Raises:
        ConfigError: A value is missing, out of range or contradicts another.
    """
    from omegaconf import MissingMandatoryValue, OmegaConf

    cfg = _with_first_values(cfg)
    try:
        config = OmegaConf.to_object(cfg)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or "a key"
        raise ConfigError(f"{key}: has no value; give {argument(key, '...')} on the command line") from error
    assert isinstance(config, PepperConfig)
    _check_keys(config, "")
    return config


def _check_keys(values: Any, place: str) -> None:
    """Refuse keys that were added with ``+`` and that nothing reads: OmegaConf lets them in."""
    known = [field.name for field in fields(values)]
    for name, value in vars(values).items():
        if name not in known:
            raise ConfigError(f"{place}{name}: no such key{nearest(name, known)}")
        if is_dataclass(value):
            _check_keys(value, f"{place}{name}.")


def _with_first_values(cfg: Any) -> Any:
    """Fill keys that have no value but are a sweep's axis with the axis's first value."""
    from omegaconf import OmegaConf

    axes = OmegaConf.select(cfg, "sweep.axes") or {}
    if axes and not (OmegaConf.is_dict(axes) and all(OmegaConf.is_list(values) for values in axes.values())):
        raise ConfigError("sweep.axes: must be lists of values by group or key")
    missing = OmegaConf.missing_keys(cfg) & {str(name) for name, values in axes.items() if values}
    if not missing:
        return cfg
    filled = cfg.copy()
    for key in sorted(missing):
        OmegaConf.update(filled, key, axes[key][0])
    return filled
