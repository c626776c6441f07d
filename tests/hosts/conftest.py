"""Machines that join a head."""

from collections.abc import Iterator

import pytest
from machines import NAMES, Machines


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A head that runs, with all hosts joined."""
    pytest.importorskip("distributed")
    found = Machines(tmp_path_factory.mktemp("head"))
    try:
        found.lay()
        found.head()
        found.join(*NAMES)
        yield found
    finally:
        found.clear()
