"""How plans are run and what is measured of them."""

from dataclasses import dataclass, field

from pepper.config.checks import within
from pepper.errors import ConfigError

MOST_QUEUED = 64
"""Messages between two stages that a local socket announces without its sender having to wait, with room to spare."""


@dataclass
class ExecuteConfig:
    """How ``task=execute`` runs a plan.

    Attributes:
        plan: The plan's file; it names the model, the devices, their loads and the links.
        parts: Folder of a split to run; None splits the model anew.
        inputs: A file of arrays (``.npz``) by input name; None draws random ones.
        seconds: Length of each trial: one request at a time, as many as possible, and at a rate.
        min_requests: Least requests of the first two; the second has as many more as may be in flight.
        rate_per_s: Requests a second of the third (Poisson); None is 70 % of the measured throughput.
        in_flight: Most requests under way at a time.
        queue: Most messages between two stages, the one that is being worked on included; at most 64.
        time_limit_seconds: A stage that does not answer for this long is taken for hung.
        port: First TCP port for the queues; None uses shared memory, which is faster and never taken.
        tolerance: Largest difference to the whole model's outputs; None is what rounding explains, measured
            on the model itself.
        out: Folder for the figures and tables; None writes none.
        compare: Whether the whole model is run on every device of the fleet, too, and, if there is a champion, each
            part on the device where it alone is fastest, of parts of nearly equal work cut at ``positions`` places.
        exhaustive: Whether all that, and every plan with up to ``max_cuts`` cuts at these places.
        positions: How many places, at nearly equal work; None is every place where the model can be cut.
        max_cuts: Most cuts of these plans.
        adapt: Whether a further stream of requests, at the same rate, is run in which the pipeline moves to another
            plan when the champion says so at the loads that are seen on the devices.
        adapt_margin: By which part the other plan must be better, as predicted.
        adapt_patience_seconds: For how long, without a break.
        adapt_seconds: Length of that stream.
        load_change: By device, the load (percent) that is put on it in mid-stream.
        load_change_after_seconds: When.
        seed: Seed of the inputs and of the arrivals.
        experiment: MLflow experiment of executions.
    """

    plan: str | None = None
    parts: str | None = None
    inputs: str | None = None
    seconds: float = 3.0
    min_requests: int = 20
    rate_per_s: float | None = None
    in_flight: int = 16
    queue: int = 16
    time_limit_seconds: float = 30.0
    port: int | None = None
    tolerance: float | None = None
    out: str | None = None
    compare: bool = False
    exhaustive: bool = False
    positions: int | None = 4
    max_cuts: int = 1
    adapt: bool = False
    adapt_margin: float = 0.1
    adapt_patience_seconds: float = 2.0
    adapt_seconds: float = 20.0
    load_change: dict[str, float] = field(default_factory=dict)
    load_change_after_seconds: float = 5.0
    seed: int = 0
    experiment: str = "pepper/executions"

    def __post_init__(self) -> None:
        within("execute.seconds", self.seconds, 0)
        within("execute.min_requests", self.min_requests, 5)
        within("execute.rate_per_s", self.rate_per_s, 0, above=True)
        within("execute.in_flight", self.in_flight, 1)
        within("execute.queue", self.queue, 1, MOST_QUEUED)
        within("execute.time_limit_seconds", self.time_limit_seconds, 0, above=True)
        within("execute.port", self.port, 1024, 65000)
        within("execute.tolerance", self.tolerance, 0)
        within("execute.positions", self.positions, 1)
        within("execute.max_cuts", self.max_cuts, 1)
        within("execute.adapt_margin", self.adapt_margin, 0, 1)
        within("execute.adapt_patience_seconds", self.adapt_patience_seconds, 0)
        within("execute.adapt_seconds", self.adapt_seconds, 0, above=True)
        within("execute.load_change_after_seconds", self.load_change_after_seconds, 0)
        for device, percent in self.load_change.items():
            within(f"execute.load_change.{device}", percent, 0, 100)
        if self.load_change and not self.adapt:
            raise ConfigError("execute.load_change: is for a run that reacts to it; set execute.adapt=true too")
        within("execute.seed", self.seed, 0)
