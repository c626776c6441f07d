import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let started processes find ``programs.py``."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    assert sys.executable
