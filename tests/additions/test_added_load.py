"""A generator of load that is not pepper's own."""

from harness import Desk

from tests.additions.conftest import Install, documented, documented_entry

HEADING = "A load"


def test_models_are_measured_beside_it(desk: Desk, install: Install) -> None:
    install(*documented_entry(HEADING), documented(HEADING, "python"))
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
