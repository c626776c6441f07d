import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ROOT

from pepper import additions

Install = Callable[[str, str, str], None]


def documented(heading: str, kind: str) -> str:
    """What stands in the guide, in a section's block of this kind."""
    section = (ROOT / "docs" / "extending.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(rf'^```{kind} title="[^"]*"\n(.*?)^```$', section, re.MULTILINE | re.DOTALL)
    return str(blocks[-1])


def documented_entry(heading: str) -> tuple[str, str]:
    """The group and the entry that the guide tells to declare in a section."""
    found = re.fullmatch(r'\[project\.entry-points\."(.*)"\]\n(.*) = "(.*)"\n', documented(heading, "toml"))
    assert found
    return found[1], f"{found[2]} = {found[3]}"


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
