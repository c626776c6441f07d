"""Latency models: training, tuning and promotion."""

from dataclasses import dataclass, field

from pepper.config.checks import MISSING, a_name, within
from pepper.errors import ConfigError


@dataclass
class LatencyConfig:
    """The latency model and its dataset.

    Attributes:
        registered_model: Its name in MLflow's registry.
        experiment: MLflow experiment of trainings.
        test_fraction: Share of the models whose measurements no trial sees.
        version: Version to predict with; None is the champion, or where there is none the one that pepper ships, 0.
    """

    registered_model: str = MISSING
    experiment: str = MISSING
    test_fraction: float = MISSING
    version: int | None = None

    def __post_init__(self) -> None:
        a_name("latency.registered_model", self.registered_model, without="/:")
        a_name("latency.experiment", self.experiment)
        within("latency.test_fraction", self.test_fraction, 0, 0.9, above=True)
        within("latency.version", self.version, 0)


@dataclass
class TuningConfig:
    """The search for hyperparameters.

    Attributes:
        trials: How many in total; what an interrupted training did counts.
        folds: Folds of the cross-validation, grouped by model.
        seed: Seed of the search and of the folds.
        prune: Whether a trial that starts badly is given up.
        hosts: Hosts that joined, and have XGBoost, which try hyperparameters beside this machine.
        together: How many trials are drawn at a time, before the results of any of them are known; None is one for each
            machine.
    """

    trials: int = MISSING
    folds: int = MISSING
    seed: int = 0
    prune: bool = True
    hosts: list[str] = field(default_factory=list)
    together: int | None = None

    def __post_init__(self) -> None:
        within("tuning.trials", self.trials, 1)
        within("tuning.together", self.together, 1)
        within("tuning.folds", self.folds, 2)
        within("tuning.seed", self.seed, 0)


@dataclass
class AdaptConfig:
    """How the champion learns a new device.

    Attributes:
        measurements: How many cells are measured there, or proposed to be.
        csv: A CSV file of latencies of a device that is not at hand, as ``task=import`` reads it; None measures here.
        propose: A CSV file to write the models to that are best measured on such a device; None proposes none.
        device: Which of the file's devices it is, where it has several; what the proposed rows name.
    """

    measurements: int = 10
    csv: str | None = None
    propose: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        within("adapt.measurements", self.measurements, 3)
        if self.csv is not None and self.propose is not None:
            raise ConfigError(f"adapt.propose={self.propose}: comes before adapt.csv; give one of the two")


@dataclass
class PredictConfig:
    """What ``task=predict`` is asked.

    Attributes:
        device: A device that is not at hand, by the name that its imported measurements have; None asks about
            ``device``.
        explain: Whether to say what the prediction is made of.
    """

    device: str | None = None
    explain: bool = False

    def __post_init__(self) -> None:
        if self.explain and self.device is not None:
            raise ConfigError(
                f"predict.explain=true: says what the champion makes of a device that is at hand; drop"
                f" predict.device={self.device}"
            )


@dataclass
class ImportConfig:
    """What ``task=import`` reads besides what waits; on the command line ``import.csv`` is the same as ``imports.csv``.

    Attributes:
        csv: A CSV file of measurements that were taken elsewhere; None reads none.
        keep_good: Whether to log the good lines of a file in which others are bad.
    """

    csv: str | None = None
    keep_good: bool = False


@dataclass
class ExportDataConfig:
    """What ``task=export_data`` writes.

    Attributes:
        csv: The CSV file.
    """

    csv: str = "measurements.csv"


@dataclass
class PromoteConfig:
    """How a latency model becomes the champion.

    Attributes:
        version: The challenger; None is the newest version.
        force: Promote whatever the scores say; needs a reason.
        reason: Why, in a person's words.
        rollback: Give the alias back to the champion before, or to ``version``.
        history: Only print who was champion, when and why.
        confidence: Of the interval that must lie below 0 for the challenger to be better.
    """

    version: int | None = None
    force: bool = False
    reason: str | None = None
    rollback: bool = False
    history: bool = False
    confidence: float = 0.95

    def __post_init__(self) -> None:
        within("promote.version", self.version, 1)
        within("promote.confidence", self.confidence, 0.5, 0.9999)
        if self.force and not self.reason:
            raise ConfigError("promote.force=true: needs a reason; give promote.reason='...'")
