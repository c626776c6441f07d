"""An execution provider that is not pepper's own."""

import pytest
from harness import Desk

from pepper.devices.device import DeviceSpec
from pepper.hosts.host import CoreUse, UseMeter
from pepper.hosts.local import LocalHost
from tests.additions.conftest import Install, documented, documented_entry

HEADING = "An execution provider"


def test_models_are_measured_on_it_and_it_is_probed(desk: Desk, install: Install) -> None:
    install(*documented_entry(HEADING), documented(HEADING, "python"))
    done = desk("model=tiny", "device=share100", "device.provider=SlowExecutionProvider", "load=idle")
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.params["provider"] == "SlowExecutionProvider"
    assert run.data.metrics["latency_p50_ms"] > 20
    assert (float(run.data.params["device_gflops"]), float(run.data.params["device_memory_gbps"])) == (123.0, 4.5)


class Idle(UseMeter):
    """Nobody has used the cores, nor the process that waits."""

    def __init__(self, spec: DeviceSpec) -> None:
        self._name = spec.name

    def read(self) -> dict[str, CoreUse]:
        return {self._name: CoreUse(wall_s=1.0, busy_s=0.0, stolen_s=0.0, own_s=0.0, throttled_periods=0)}


def test_time_that_it_waits_is_not_taken_by_others(
    desk: Desk, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(*documented_entry(HEADING), documented(HEADING, "python"))
    monkeypatch.setattr(LocalHost, "meter", lambda self, specs, own=False: Idle(specs[0]))
    done = desk("model=tiny", "device=share100", "device.provider=SlowExecutionProvider", "load=idle")
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.metrics["feeding_percent"] < 50
    assert run.data.metrics["foreign_percent"] <= 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Slow = 3", "'SlowExecutionProvider' of pepper.providers: is no subclass of pepper.devices.providers"),
        ("import no_such_module", "cannot be imported from package newcomer (No module named 'no_such_module')"),
    ],
)
def test_one_that_is_none_is_told(desk: Desk, install: Install, text: str, said: str) -> None:
    install(*documented_entry(HEADING), text)
    done = desk("model=tiny", "device=share100", "device.provider=SlowExecutionProvider", "load=idle")
    assert done.status in (1, 2)
    assert said in done.err
    assert "Traceback" not in done.err
