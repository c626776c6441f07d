"""Hosts whose wall clocks are set while they work: nobody is lost for that, and who is lost is found all the same."""

import signal
import time
from collections.abc import Iterator

import pytest
from harness import composed, wait_until
from machines import Machines

from pepper.config.hosting import HEAD
from pepper.hosts.reach import bundle_of
from pepper.hosts.remote import Joined

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")
BACK_S = -1800
"""Less than certificates allow for."""
LOST_S = 7
"""Who was silent for five seconds is lost, and that is looked at each second."""


@pytest.fixture
def joined(machines: Machines) -> Iterator[Joined]:
    if not machines.clocks:
        pytest.skip("there is no C compiler")
    with Joined(bundle_of(composed(f"hosts.folder={machines.folder}/fleet").hosts), 20) as found:
        wait_until(lambda: "other" in found.present())
        yield found
    for clock in machines.clocks.values():
        clock.set(0)


def test_nobody_is_lost_because_clocks_are_set(machines: Machines, joined: Joined) -> None:
    machines.clocks["other"].set(BACK_S)
    machines.clocks["edge"].set(-BACK_S)
    machines.clocks[HEAD].set(-BACK_S)
    ends = time.monotonic() + LOST_S
    while time.monotonic() < ends:
        assert {"edge", "other"} <= joined.present().keys()
        time.sleep(0.2)
    assert joined.present()["other"]["seen_s"] < LOST_S


def test_a_head_whose_clock_is_set_back_finds_out_who_is_lost(machines: Machines, joined: Joined) -> None:
    machines.clocks[HEAD].set(BACK_S)
    machines.signal("other", signal.SIGSTOP)
    try:
        wait_until(lambda: "other" not in joined.present(), 30)
    finally:
        machines.signal("other", signal.SIGCONT)
    wait_until(lambda: "other" in joined.present(), 30)
