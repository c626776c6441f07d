"""A generator of load that is not pepper's own."""

from harness import Desk

from tests.additions.conftest import Install

SPIN = '''
import time

from pepper.errors import ConfigError, MeasureError
from pepper.measure.load import Load, Usage


class Spin(Load):
    """A shell that is always busy, on one core."""

    def __init__(self, device):
        self._device, self._command = device, None

    @classmethod
    def check(cls, load, device):
        if load.percent != 100:
            raise ConfigError(f"load.percent={load.percent:g}: a shell spins or it does not; give 100")

    def set(self, load):
        self.close()
        if load.percent:
            self._command = self._device.run(["sh", "-c", "while :; do :; done & wait"], 1)
            if not self._command.confine(1, 30):
                raise MeasureError("load.generator=spin: did not start")

    def usage(self):
        return Usage(self._command.cpu_s() if self._command else 0.0, time.perf_counter())

    def close(self):
        if self._command:
            self._command.end()
        self._command = None
'''


def test_models_are_measured_beside_it(desk: Desk, install: Install) -> None:
    install("pepper.loads", "spin = newcomer:Spin", SPIN)
    load = ("load=cpu", "load.generator=spin")
    refused = desk("model=tiny", "device=share100", *load, "load.percent=50")
    assert refused.status == 2
    assert refused.error.endswith("load.percent=50: a shell spins or it does not; give 100")
    done = desk("model=tiny", "device=share100", *load, "load.percent=100", "measure.verify_load_seconds=0.2")
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.params["load_generator"] == "spin"
    assert run.data.metrics["load_alone_percent"] > 0


def test_one_that_nobody_adds_is_told(desk: Desk) -> None:
    done = desk("model=tiny", "device=share100", "load=cpu50", "load.generator=spin")
    assert done.status == 2
    assert "load.generator=spin: must be one of pepper, stress-ng" in done.err
