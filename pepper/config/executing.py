"""How plans are run and what is measured of them."""

from dataclasses import dataclass, field

from pepper.config.checks import a_name, within
from pepper.errors import ConfigError

MOST_QUEUED = 64
"""Messages between two stages that a local socket announces without its sender having to wait, with room to spare."""


@dataclass
class TrialsConfig:
    """The trials: one request at a time, as many as possible, and at a rate.

    Attributes:
        seconds: Length of each.
        min_requests: Least requests of the first two; the second has as many more as may be in flight.
        rate_per_s: Requests a second of the third (Poisson); None is 70 % of the measured throughput.
        in_flight: Most requests under way at a time.
    """

    seconds: float = 3.0
    min_requests: int = 20
    rate_per_s: float | None = None
    in_flight: int = 16

    def __post_init__(self) -> None:
        within("execute.trials.seconds", self.seconds, 0)
        within("execute.trials.min_requests", self.min_requests, 5)
        within("execute.trials.rate_per_s", self.rate_per_s, 0, above=True)
        within("execute.trials.in_flight", self.in_flight, 1)


@dataclass
class TransportConfig:
    """How tensors get from stage to stage.

    Attributes:
        queue: Most messages between two stages, the one that is being worked on included; at most 64.
        port: First TCP port for the queues; None uses shared memory, which is faster and never taken.
    """

    queue: int = 16
    port: int | None = None

    def __post_init__(self) -> None:
        within("execute.transport.queue", self.queue, 1, MOST_QUEUED)
        within("execute.transport.port", self.port, 1024, 65000)


@dataclass
class OthersConfig:
    """Which other plans are run beside the given one.

    Attributes:
        compare: Whether the whole model is run on every device of the fleet, and, if there is a champion, each part
            on the device where it alone is fastest, of parts of nearly equal work cut at ``positions`` places.
        exhaustive: Whether all that, and every plan with up to ``max_cuts`` cuts at these places.
        positions: How many places, at nearly equal work; None is every place where the model can be cut.
        max_cuts: Most cuts of these plans.
    """

    compare: bool = False
    exhaustive: bool = False
    positions: int | None = 4
    max_cuts: int = 1

    def __post_init__(self) -> None:
        within("execute.others.positions", self.positions, 1)
        within("execute.others.max_cuts", self.max_cuts, 1)


@dataclass
class MovesConfig:
    """A further stream of requests, at the same rate, in which the pipeline may move to another plan.

    Attributes:
        allowed: Whether it is run: the pipeline moves when the champion says so at the loads that are seen.
        margin: By which part the other plan must be better, as predicted.
        patience_seconds: For how long, without a break.
        seconds: Length of that stream.
        load_change: By device, the load (percent) that is put on it in mid-stream.
        load_change_after_seconds: When.
    """

    allowed: bool = False
    margin: float = 0.1
    patience_seconds: float = 2.0
    seconds: float = 20.0
    load_change: dict[str, float] = field(default_factory=dict)
    load_change_after_seconds: float = 5.0

    def __post_init__(self) -> None:
        within("execute.moves.margin", self.margin, 0, 1)
        within("execute.moves.patience_seconds", self.patience_seconds, 0)
        within("execute.moves.seconds", self.seconds, 0, above=True)
        within("execute.moves.load_change_after_seconds", self.load_change_after_seconds, 0)
        for device, percent in self.load_change.items():
            within(f"execute.moves.load_change.{device}", percent, 0, 100)
        if self.load_change and not self.allowed:
            raise ConfigError(
                "execute.moves.load_change: is for a run that reacts to it; set execute.moves.allowed=true too"
            )


@dataclass
class ExecuteConfig:
    """How ``task=execute`` runs a plan.

    Attributes:
        plan: The plan's file; it names the model, the devices, their loads and the links.
        parts: Folder of a split to run; None splits the model anew.
        inputs: A file of arrays (``.npz``) by input name; None draws random ones.
        trials: How it is measured.
        transport: How tensors travel.
        others: Which other plans are run, too.
        moves: Whether the pipeline moves to other plans as loads change.
        time_limit_seconds: A stage that does not answer for this long is taken for hung.
        tolerance: Largest difference to the whole model's outputs; None is what rounding explains, measured
            on the model itself.
        out: Folder for the figures and tables; None writes none.
        seed: Seed of the inputs and of the arrivals.
        experiment: MLflow experiment of executions.
    """

    plan: str | None = None
    parts: str | None = None
    inputs: str | None = None
    trials: TrialsConfig = field(default_factory=TrialsConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)
    others: OthersConfig = field(default_factory=OthersConfig)
    moves: MovesConfig = field(default_factory=MovesConfig)
    time_limit_seconds: float = 30.0
    tolerance: float | None = None
    out: str | None = None
    seed: int = 0
    experiment: str = "pepper/executions"

    def __post_init__(self) -> None:
        a_name("execute.experiment", self.experiment)
        within("execute.time_limit_seconds", self.time_limit_seconds, 0, above=True)
        within("execute.tolerance", self.tolerance, 0)
        within("execute.seed", self.seed, 0)


RENAMED = {
    **{f"execute.{key}": f"execute.trials.{key}" for key in ("seconds", "min_requests", "rate_per_s", "in_flight")},
    **{f"execute.{key}": f"execute.transport.{key}" for key in ("queue", "port")},
    **{f"execute.{key}": f"execute.others.{key}" for key in ("compare", "exhaustive", "positions", "max_cuts")},
    "execute.adapt": "execute.moves.allowed",
    "execute.adapt_margin": "execute.moves.margin",
    "execute.adapt_patience_seconds": "execute.moves.patience_seconds",
    "execute.adapt_seconds": "execute.moves.seconds",
    "execute.load_change": "execute.moves.load_change",
    "execute.load_change_after_seconds": "execute.moves.load_change_after_seconds",
}
"""Keys by the names that they had before."""
