"""A load that has a part on the device's accelerator: a neighbour that infers there, beside what loads the cores."""

from dataclasses import replace

from pepper.config import LoadConfig
from pepper.devices.device import Device, DeviceSpec, Program
from pepper.errors import ConfigError
from pepper.measure.load import Load, Usage

INFERENCES = 25  # of which one more or less is within a load's limit
TIMEOUT_S = 120.0  # an accelerator's first inference compiles


def check_accelerator(load: LoadConfig, device: DeviceSpec) -> None:
    """Make sure that the device has an accelerator that the load's neighbour can infer on.

    Raises:
        ConfigError: It computes on cores.
    """
    if load.accelerator_percent and device.on_cores:
        raise ConfigError(
            f"load.accelerator_percent={load.accelerator_percent:g}: {device.provider} computes on cores; give"
            f" load.percent={load.accelerator_percent:g} in its place"
        )


class WithAccelerator(Load):
    """Adds the neighbour on the accelerator, started when it is first wanted.

    Args:
        device: Where it runs.
        cores: The load's other part, which loads the device's cores.
    """

    def __init__(self, device: Device, cores: Load) -> None:
        self._device, self._cores = device, cores
        self._program: Program | None = None
        self._inference_s = self._fraction = 0.0

    def set(self, load: LoadConfig) -> None:
        """Load the cores, and infer for ``load.accelerator_percent`` of the time."""
        self._cores.set(load)
        if self._program is None and load.accelerator_percent:
            spec = self._device.spec
            self._program = self._device.start("pepper.measure.inferring")
            answer, _ = self._program.request(
                "open", timeout_s=TIMEOUT_S, provider=spec.choice.to_json(), threads=spec.threads
            )
            self._inference_s = answer["inference_s"]
            self._program.confine()
        if self._program:
            self._fraction = load.accelerator_percent / 100
            self._program.request("set", timeout_s=TIMEOUT_S, fraction=self._fraction, period_ms=load.period_ms)

    @property
    def least_span_s(self) -> float:
        """As long as some of its inferences and the pauses between them take."""
        return INFERENCES * self._inference_s / self._fraction if self._fraction else 0.0

    def usage(self) -> Usage:
        """Return what both parts have used."""
        used = self._cores.usage()
        if self._program is None:
            return used
        answer, _ = self._program.request("usage", timeout_s=TIMEOUT_S)
        return replace(
            used,
            feeding_s=answer["cpu_s"],
            inferring_s=answer["inferring_s"],
            inferring_clock_s=answer["clock_s"],
        )

    def close(self) -> None:
        """End both parts."""
        if self._program:
            self._program.end()
        self._program = None
        self._cores.close()
