"""What the documents say besides commands: the reference is up to date, links lead somewhere, each task has a page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from documents import FILES
from harness import ROOT


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_and_named_files_exist(file: Path) -> None:
    text = file.read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (file.parent / target).exists(), target
    for name in re.findall(r"`((?:pepper|tests|benchmarks|conf|docs)/[\w/.]+\.\w+)`", text):
        assert (ROOT / name).is_file(), name
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for target in re.findall(r"^    make (\w+)", text, re.MULTILINE):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text(), target


def test_every_task_has_a_page_and_the_index_names_it() -> None:
    tasks = {file.stem for file in (ROOT / "conf" / "task").glob("*.yaml")}
    pages = {file.stem for file in (ROOT / "docs" / "tasks").glob("*.md")}
    assert pages == tasks
    index = (ROOT / "docs" / "README.md").read_text()
    assert all(f"tasks/{name}.md" in index for name in tasks)


def test_the_citation_is_well_formed() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "references"} <= set(cited)
    assert cited["references"][0]["doi"] == "10.1145/3770501.3770528"
