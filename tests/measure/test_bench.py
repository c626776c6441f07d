"""Models timed on devices under load; generators that use what was asked for."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer

import numpy as np
import psutil
import pytest
from harness import QUICK, composed, lasting, undisturbed

from pepper.config import LoadConfig
from pepper.devices import host
from pepper.devices.cores import CoresDevice, resolve
from pepper.devices.process import Process
from pepper.errors import ConfigError, MeasureError
from pepper.graph.model import find_model
from pepper.measure import load, loads
from pepper.measure.built_in_load import BuiltIn
from pepper.measure.launcher import Bench
from pepper.measure.stress_ng import StressNg

pytestmark = pytest.mark.quiet

needs_stress_ng = pytest.mark.skipif(shutil.which("stress-ng") is None, reason="stress-ng is not installed")
IDLE = LoadConfig(name="idle", percent=0)


@contextmanager
def bench(model: Path, *overrides: str, generator: str | None = "pepper") -> Iterator[Bench]:
    cfg = composed("model=onnx", f"model.path={model}", *QUICK, *overrides)
    with Bench(find_model(cfg.model), resolve(cfg.device), cfg.measure, generator) as opened:
        yield opened


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No process outlives a bench, however it ended."""
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("device", ["share100", "share50", "local"])
def test_one_worker_serves_several_loads(models: dict[str, Path], device: str) -> None:
    with bench(models["conv"], f"device={device}") as opened:
        profiles = [opened.profile(each) for each in (IDLE, LoadConfig(percent=60), IDLE)]
    for profile in profiles:
        assert (profile.status, profile.verdict) == ("FINISHED", "VALID")
        assert profile.trusted
        assert profile.started_s < profile.ended_s
        metrics = profile.metrics
        assert metrics["samples"] == len(profile.samples["latency_ns"]) >= 5
        assert metrics["latency_p50_ms"] == pytest.approx(np.median(profile.samples["latency_ns"]) / 1e6)
        assert metrics["throughput_per_s"] == pytest.approx(metrics["samples"] / metrics["timed_s"])
        assert metrics["input_bytes"] == 32 * 64 * 64 * 4
        assert metrics["output_bytes"] == 64 * 64 * 64 * 4
        assert all(np.isfinite(value) for value in metrics.values())
        assert profile.operators is None
        assert metrics["kernel_us"] > 0
        assert metrics["pace_change_percent"] >= 0
        json.dumps(profile.environment)
    idle, loaded, idle_again = profiles
    for profile in (idle, idle_again):
        assert profile.metrics["load_alone_percent"] == profile.metrics["load_timed_percent"] == 0
    assert loaded.metrics["load_timed_percent"] > 5
    assert loaded.environment["throttle_method"] == ("suspend" if device == "share50" else "none")


@pytest.mark.usefixtures("nothing_left")
def test_operators_are_profiled_on_request(models: dict[str, Path]) -> None:
    with bench(models["conv"], "device=share100", "measure.operators=true", generator=None) as opened:
        profile = opened.profile(IDLE)
        again = opened.profile(IDLE)
    for found in (profile, again):
        assert found.operators is not None
        events = json.loads(found.operators)
        assert any(event.get("args", {}).get("op_name") == "Conv" for event in events)


@pytest.mark.usefixtures("nothing_left")
def test_a_model_that_cannot_run_is_told(models: dict[str, Path]) -> None:
    with pytest.raises(MeasureError, match="Frobnicate"), bench(models["unknown"], "device=share100"):
        pass


@pytest.mark.usefixtures("nothing_left")
def test_a_model_that_hangs_is_told(models: dict[str, Path]) -> None:
    quick = ("device=share50", "measure.time_limit_seconds=1.5")
    with (
        pytest.raises(
            MeasureError, match=r"no answer to 'open' within 1.5 s \(hung\).* raise measure.time_limit_seconds"
        ),
        bench(models["endless"], *quick),
    ):
        pass


@pytest.mark.usefixtures("nothing_left")
def test_a_worker_that_dies_is_told(models: dict[str, Path]) -> None:
    with bench(models["tiny"], "device=share50") as opened:
        opened.profile(IDLE)
        os.kill(opened._worker.pid, signal.SIGKILL)
        with pytest.raises(MeasureError, match=r"crashed during 'pace'.*SIGKILL"):
            opened.profile(LoadConfig(percent=50))


@pytest.mark.usefixtures("nothing_left")
def test_a_load_generator_that_dies_is_told(models: dict[str, Path]) -> None:
    with bench(models["tiny"], "device=share100") as opened:
        assert isinstance(opened._load, BuiltIn)
        os.kill(opened._load._programs[0].pid, signal.SIGKILL)
        with pytest.raises(MeasureError, match="generator: crashed"):
            opened.profile(LoadConfig(percent=50))


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("which", [0, 1], ids=["suspender", "filler"])
def test_a_helper_that_dies_is_named_at_once(models: dict[str, Path], which: int) -> None:
    limits = (*lasting(60), "measure.time_limit_seconds=100")
    with bench(models["tiny"], "device=share50", *limits, generator=None) as opened:
        helper = opened._worker.helpers[which]
        Timer(0.5, helper.kill).start()
        start = time.monotonic()
        with pytest.raises(MeasureError, match=rf"{helper.module}: crashed during 'time' .killed by SIGKILL"):
            opened.profile(IDLE)
        assert time.monotonic() - start < 50
    assert not opened._worker.alive


@pytest.mark.usefixtures("nothing_left")
def test_a_suspender_that_is_stopped_is_named(models: dict[str, Path]) -> None:
    with bench(models["tiny"], "device=share50", "measure.time_limit_seconds=3", generator=None) as opened:
        os.kill(opened._worker.pid, signal.SIGSTOP)
        os.kill(opened._worker.helpers[0].pid, signal.SIGSTOP)
        with pytest.raises(MeasureError, match=r"suspender: was stopped by a signal, so pepper.measure.worker could"):
            opened.profile(IDLE)


@pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="a load on some of a device's cores needs two")
def test_a_share_of_several_cores_takes_any_load_after_any_other() -> None:
    """The generators that a throttled device stops still hear of the next load."""
    spec = resolve(composed("device=share50", f"device.cores={host.allowed_cores()[:2]}").device)
    wanted = [LoadConfig(percent=60), LoadConfig(percent=60, cores=1), IDLE, LoadConfig(percent=30), IDLE]
    with CoresDevice(spec) as device:
        generators = BuiltIn(device)
        used = []
        for each in wanted:
            generators.set(each)
            before = generators.usage()
            time.sleep(0.3)
            used.append(load.percent_between(before, generators.usage(), spec.share, len(spec.cores)))
        generators.close()
    assert [each > 5 for each in used] == [True, True, False, True, False], used


@needs_stress_ng
@pytest.mark.usefixtures("nothing_left")
def test_a_stressor_that_is_gone_is_told(models: dict[str, Path]) -> None:
    with bench(models["tiny"], "device=share50", *lasting(3), generator="stress-ng") as opened:

        def end_stressors() -> None:
            assert isinstance(opened._load, StressNg)
            for stressor in opened._load._stressors._confined:
                stressor.kill()

        Timer(0.7, end_stressors).start()
        with pytest.raises(MeasureError, match=r"load.generator=stress-ng: a stressor has ended .process \d+ "):
            opened.profile(LoadConfig(percent=50, generator="stress-ng"))


def require_free(core: int) -> None:
    """Skip where other work holds the core: no generator could use what was asked for."""
    with Process("pepper.devices.calibrator", [core]) as process:
        got = process.request("share", timeout_s=30, seconds=1)[0]["value"]
    if got < 0.95:
        pytest.skip(f"other work holds core {core}: a busy loop gets {got:.0%} of it")


def assert_alone(device: str, generator: str, percents: list[float], seconds: float) -> None:
    """A generator uses what was asked for where nothing else runs, within 5 points."""
    spec = resolve(composed(f"device={device}").device)
    with ExitStack() as stack:
        used = stack.enter_context(CoresDevice(spec))
        running = loads.start_load(generator, used)
        stack.callback(running.close)

        def look() -> float:
            before = running.usage()
            time.sleep(seconds)
            return load.percent_between(before, running.usage(), spec.share, len(spec.cores))

        found = {}
        for percent in percents:
            running.set(LoadConfig(percent=percent, generator=generator))
            found[percent] = undisturbed(look, pytest.approx(percent, abs=5))
    expected = {percent: pytest.approx(percent, abs=5) for percent in percents}
    if found != expected:
        require_free(spec.cores[0])
    assert found == expected


@pytest.mark.parametrize("device", ["share100", "share50"])
def test_the_generator_uses_what_was_asked_for(device: str) -> None:
    assert_alone(device, "pepper", [0, 25, 50, 75], seconds=0.4)


@needs_stress_ng
@pytest.mark.usefixtures("nothing_left")
def test_stress_ng_uses_what_was_asked_for() -> None:
    assert_alone("share100", "stress-ng", [50], seconds=1)


@needs_stress_ng
@pytest.mark.usefixtures("nothing_left")
def test_a_model_beside_stress_ng(models: dict[str, Path]) -> None:
    with bench(models["tiny"], "device=share50", generator="stress-ng") as opened:
        for percent in (50, 0, 25):
            profile = opened.profile(LoadConfig(percent=percent, generator="stress-ng"))
            assert (profile.metrics["load_alone_percent"] > 0) == (percent > 0)


def test_stress_ng_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    spec = resolve(composed("device=share100").device)
    loads.check_load(LoadConfig(percent=0, generator="stress-ng"), spec)
    with pytest.raises(ConfigError, match=r"not installed; install stress-ng or use load.generator=pepper"):
        loads.check_load(LoadConfig(percent=50, generator="stress-ng"), spec)


def test_a_load_on_some_cores() -> None:
    assert load.loaded_cores(LoadConfig(percent=50), 4) == 4
    assert load.loaded_cores(LoadConfig(percent=50, cores=3), 4) == 3
    assert load.loaded_cores(IDLE, 4) == 0
    with pytest.raises(ConfigError, match=r"load.cores=5: the device has 4 cores"):
        load.loaded_cores(LoadConfig(percent=50, cores=5), 4)
