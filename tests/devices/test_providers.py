"""What every execution provider keeps; one more is one more entry of `PROVIDERS`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from pepper.devices.providers.cpu import CpuProvider
from pepper.devices.providers.options import session_options
from pepper.devices.providers.provider import Provider
from pepper.devices.providers.registry import BuiltInProvider, provider_named

PROVIDERS: dict[str, Callable[[], Provider]] = {
    "cpu": CpuProvider,
    "built in": lambda: BuiltInProvider("CPUExecutionProvider"),
}


@pytest.fixture(params=PROVIDERS)
def provider(request: pytest.FixtureRequest) -> Provider:
    return PROVIDERS[request.param]()


def options() -> ort.SessionOptions:
    return session_options(1, "all", spinning=False, parallel=False)


def test_a_model_is_opened_on_it(provider: Provider, models: dict[str, Path]) -> None:
    session = provider.open(str(models["tiny"]), options())
    assert session.get_providers()[0] == provider.name


def test_what_is_bound_runs_again_and_again_on_its_own_inputs(provider: Provider, models: dict[str, Path]) -> None:
    session = provider.open(str(models["tiny"]), options())
    rng = np.random.default_rng(0)
    given = [{"input": rng.random((1, 16), dtype=np.float32)} for _ in range(3)]
    runs = [provider.bind(session, inputs) for inputs in given]
    for _ in range(2):
        for inputs, run in zip(given, runs, strict=True):
            np.testing.assert_allclose(run()[0], session.run(None, inputs)[0], rtol=1e-5)


def test_a_model_that_it_cannot_run_is_refused(provider: Provider, models: dict[str, Path]) -> None:
    with pytest.raises(Exception, match="Frobnicate"):
        provider.open(str(models["unknown"]), options())


@pytest.mark.parametrize("kernel", ["gflops", "memory_gbps"])
def test_it_says_how_fast_it_is(provider: Provider, kernel: str) -> None:
    assert 0 < provider.probe(kernel, 0.01) < 1e6


def test_a_provider_is_found_by_its_name() -> None:
    assert type(provider_named("CPUExecutionProvider")) is CpuProvider
    assert provider_named("QNNExecutionProvider").name == "QNNExecutionProvider"


def test_one_that_this_onnxruntime_lacks_is_told(models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"this onnxruntime has .*CPUExecutionProvider.*, not NoSuchProvider"):
        provider_named("NoSuchProvider").open(str(models["tiny"]), options())
