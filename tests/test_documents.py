"""What the documents tell people to type: every command composes, the quick ones run, links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from harness import ROOT, Desk

from pepper import run
from pepper.config import PepperConfig

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = "python -m pepper.run"
QUICK_TASKS = ("cuts", "split")


def commands(file: Path) -> list[str]:
    """The commands in a file's blocks and inline code, without comments and what they are piped into."""
    found = []
    for line in file.read_text().splitlines():
        spans = re.findall(r"`([^`]+)`", line) if not line.startswith("    ") else [line]
        for span in spans or [line]:
            if match := re.search(rf"{re.escape(COMMAND)}(?: [^|#]*)?", span):
                text = match[0].split("#")[0].strip()
                found.append(text.rstrip(")") if "$(" in span else text)
    return [text for text in found if "GROUP=OPTION" not in text and "..." not in text]


def titled(file: Path) -> dict[str, str]:
    """The files that a document shows, by the names that it gives them."""
    text = file.read_text()
    found: dict[str, str] = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text, re.DOTALL))
    for name, body in re.findall(r"`(my/[\w/]+\.yaml)`.*\n\n((?: {4}.*\n)+)", text):
        found.setdefault(name, re.sub(r"^ {4}", "", body, flags=re.MULTILINE))
    return found


def write_files(folder: Path) -> None:
    """Write every file that the documents show; those of the same name are alike in all that composing needs."""
    for file in FILES:
        for name, body in titled(file).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(body)


ALL = sorted({command for file in FILES for command in commands(file)})


def arguments(command: str) -> list[str]:
    return shlex.split(command.removeprefix(COMMAND))


def test_there_are_commands_to_check() -> None:
    assert len(ALL) > 50
    assert f"{COMMAND} task=doctor" in ALL


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command_composes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[PepperConfig] = []
    monkeypatch.setattr(run, "_task", lambda config, overrides: composed.append(config) or 0)
    failing = []
    for command in ALL:
        before = len(composed)
        if run.main(arguments(command)) != 0 or (len(composed) == before and "--" not in command):
            failing.append(command)
    assert not failing
    named = {config.task.name for config in composed}
    assert named == {file.stem for file in (ROOT / "conf" / "task").glob("*.yaml")}, "each task has its commands"


@pytest.mark.slow
def test_commands_about_cuts_and_parts_run(desk: Desk, folder: Path) -> None:
    ours = [command for command in ALL if any(f"task={task} " in command for task in QUICK_TASKS)]
    quick = [command for command in ours if "model.path" not in command and "--config-dir" not in command]
    assert quick
    for command in quick:
        done = desk(*arguments(command))
        assert done.status == 0, f"{command}: {done.err}"


@pytest.mark.slow
def test_the_tutorial_begins_as_written(folder: Path) -> None:
    """Its first steps in order, in a shell; the later ones take minutes and are composed above."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    steps = [block for block in blocks if "make_watch" in block or "task=cuts" in block or "task=split" in block]
    assert len(steps) == 3
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    script = "set -e\n" + "".join(steps)
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "16 cuts" in done.stdout
    assert "proved: parts compute what the whole does" in done.stdout
    assert len(list((folder / "parts").glob("*.onnx"))) == 3


def test_the_python_examples_compile_and_the_first_runs(folder: Path) -> None:
    for file in folder.glob("*.py"):
        compile(file.read_text(), file.name, "exec")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "look.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cuts;" in done.stdout


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
