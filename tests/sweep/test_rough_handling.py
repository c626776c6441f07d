"""A few of the benchmark's faults: nothing is lost, doubled or left behind."""

import subprocess
import sys

import pytest
from harness import ROOT


@pytest.mark.slow
def test_a_sweep_that_is_killed_and_one_that_is_ended() -> None:
    """In a process of its own: trials are copies of it, and it adopts what they leave behind."""
    command = ("benchmarks.rough_handling", "--faults", "2", "--seed", "15", "--only", "kill -9", "SIGTERM")
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": whole") == 2
