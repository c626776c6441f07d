"""What the documents tell people to type, and the files that they show."""

import re
from pathlib import Path

from harness import ROOT

FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PEPPER = "python -m pepper.run"

_PROGRAM = re.compile(
    r"(?:\w+=(?:\$\(|\S+ ))?(?:\.venv/bin/)?(?:python|make|git|source|mlflow|pip|jq|taskset)\b|\.\.\. "
)
"""How a line begins that people type into a shell; three dots stand for the command before."""


SERVE = (
    "MLFLOW_TRACKING_URI=sqlite:///mlruns/mlflow.db mlflow models serve --env-manager local"
    " --model-uri models:/pepper-latency@champion --port 5001"
)
"""What docs/tasks/promote.md gives to serve a champion."""


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def commands(file: Path) -> list[str]:
    """The commands of a document in their order: in blocks, in tables and sentences, in comments of examples.

    What follows a command, its comment or what reads its output, is left out.
    """
    found: list[str] = []
    block = ""
    for line in file.read_text().splitlines():
        if line.startswith("```"):
            block = "" if block else line.removeprefix("```") or "text"
        elif block == "bash":
            found.append(line)
        elif block.startswith("python"):
            found += re.findall(rf"# ({re.escape(PEPPER)}.*)", line)
        elif not block:
            spans = [line.strip()] if line.startswith("    ") else re.findall(r"`([^`]+)`", line)
            found += [span for span in spans if _PROGRAM.match(span)]
    return _whole([re.sub(r"\s+#.*", "", command) for command in found if command])


def _whole(found: list[str]) -> list[str]:
    """Write out the commands that go on from the one before."""
    whole: list[str] = []
    before = ""
    for command in found:
        if command.startswith("... "):
            command = f"{before} {command.removeprefix('... ')}"
        elif command.startswith(PEPPER):
            before = command
        whole.append(command)
    return whole


def titled(file: Path) -> dict[str, str]:
    """The files that a document shows, by the names that it gives them."""
    text = file.read_text()
    found: dict[str, str] = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', text, re.DOTALL))
    for name, body in re.findall(r"`(my/[\w/]+\.yaml)`.*\n\n((?: {4}.*\n)+)", text):
        found.setdefault(name, re.sub(r"^ {4}", "", body, flags=re.MULTILINE))
    return found


def write_files(folder: Path) -> None:
    """Write every file that the documents show."""
    for file in FILES:
        for name, body in titled(file).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(body)
