"""Writes docs/configuration.md from the schemas and the option files, and docs/plan.schema.json from the plan."""

import argparse
import inspect
import json
import re
import sys
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from pepper import config
from pepper.config import PepperConfig
from pepper.placement.plan import json_schema
from pepper.run import GROUPS

FOLDER = Path(__file__).parent
INTRO = """\
# Configuration

*Written by `python docs/generate.py` from the schemas in `pepper/config/` and the option files in `conf/`.*

Every key can be set on the command line: `python -m pepper.run GROUP=OPTION KEY=VALUE`. An option is a file that sets
the keys of its group; `--config-dir DIR` adds your own (`DIR/model/mine.yaml` is `model=mine`). A mistyped key, a wrong
type and a value out of range are refused before anything runs. `python -m pepper.run --cfg job` prints what is set.
"""


def main() -> int:
    """Write the references, or tell whether they are up to date; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if one is out of date")
    check = parser.parse_args().check
    written = {"configuration.md": reference(), "plan.schema.json": json.dumps(json_schema(), indent=2) + "\n"}
    status = 0
    for name, text in written.items():
        file = FOLDER / name
        if not check:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            print(f"{file} is out of date: python docs/generate.py", file=sys.stderr)
            status = 1
    return status


def reference() -> str:
    """Return the whole reference (Markdown)."""
    schemas = get_type_hints(PepperConfig)
    primary = yaml.safe_load((config.conf_dir() / "run.yaml").read_text())
    chosen = {key: value for entry in primary["defaults"] if isinstance(entry, dict) for key, value in entry.items()}
    sections = [INTRO, _section("top level", PepperConfig, primary, own_only=True)]
    for name in sorted(schemas, key=lambda key: (GROUPS.index(key) if key in GROUPS else len(GROUPS), key)):
        schema = next((each for each in (schemas[name], *get_args(schemas[name])) if is_dataclass(each)), None)
        if schema is None:
            continue
        folder = config.conf_dir() / name
        default = chosen.get(name)
        values = _values(folder / f"{default}.yaml") if default else primary.get(name, {})
        sections.append(_section(name, schema, values, _options(folder, default)))
    return "\n".join(sections)


def _section(name: str, schema: type, values: dict[str, Any], options: str = "", own_only: bool = False) -> str:
    doc = inspect.getdoc(schema) or ""
    summary, _, _ = doc.partition("\n")
    rows = _rows("" if own_only else f"{name}.", schema, values, own_only)
    lines = [f"## {name}", "", _worded(summary), ""]
    if options:
        lines += [options, ""]
    return "\n".join([*lines, "| key | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _rows(prefix: str, schema: type, values: dict[str, Any], own_only: bool = False) -> list[str]:
    """One row a key; nested schemas are listed below their parent."""
    meanings, hints, rows = _attributes(schema), get_type_hints(schema), []
    for field in fields(schema):
        hint = hints[field.name]
        nested = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
        if nested is not None:
            if not own_only and hint is nested:
                rows += _rows(f"{prefix}{field.name}.", nested, values.get(field.name, {}))
                continue
            if own_only:
                continue
        value = values.get(field.name, field.default)
        if value is field.default_factory or repr(value).startswith("<dataclasses._MISSING"):
            value = field.default_factory()
        meaning = meanings.get(field.name, "").replace("|", "\\|")
        rows.append(f"| `{prefix}{field.name}` | {_type(hint)} | {_shown(value)} | {meaning} |")
        if get_origin(hint) is dict and nested is not None:
            rows += _rows(f"{prefix}{field.name}.NAME.", nested, {})
    return rows


def _attributes(schema: type) -> dict[str, str]:
    """Read a docstring's ``Attributes`` section."""
    _, _, section = (inspect.getdoc(schema) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if start := re.match(r" {4}(\w+): (.*)", line):
            name = start[1]
            found[name] = start[2]
        elif line.startswith(" " * 8):
            found[name] += f" {line.strip()}"
    return {name: _worded(text) for name, text in found.items()}


def _worded(text: str) -> str:
    """Say in the words of YAML and Markdown what a docstring says in those of Python."""
    return re.sub(r"\bNone\b", "null", text.replace("``", "`"))


def _type(hint: Any) -> str:
    hint = str if isinstance(hint, type) and issubclass(hint, Enum) else hint
    text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return re.sub(r"[\w.]+\.(?=\w)", "", text).replace(" | None", " or null").replace("|", "or")


def _shown(value: Any) -> str:
    if value == "???":
        return "*you give it*"
    value = value.value if isinstance(value, Enum) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _values(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text()) or {}


def _options(folder: Path, default: str | None) -> str:
    """List a group's options with the first line of each file."""
    files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    lines = []
    for file in files:
        summary = file.read_text().splitlines()[0].strip("# ")
        usual = " (default)" if file.stem == default else ""
        prefix = "+" if folder.name == "sweep" else ""
        lines.append(f"- `{prefix}{folder.name}={file.stem}`{usual}: {summary}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
