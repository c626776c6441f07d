import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pepper import additions

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package of one module, ``newcomer``, which adds something to a group of entry points."""

    def forget() -> None:
        additions._found.cache_clear()
        additions.load.cache_clear()
        sys.modules.pop("newcomer", None)

    def made(group: str, entry: str, text: str) -> None:
        site = tmp_path / "site"
        info = site / "newcomer-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "newcomer.py").write_text(text)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.setenv("PYTHONPATH", str(site))
        forget()

    yield made
    forget()
