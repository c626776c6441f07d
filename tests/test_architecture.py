"""Imports run one way, and third parties stay in the room that owns them."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "pepper"

# What each room may import of pepper itself (its own modules apart).
FOUNDATION = {
    "errors",
    "strict",
    "units",
    "additions",
    "config",
    "fleet",
    "caches",
    "documents",
    "interrupts",
    "outputs",
    "scratch",
    "names",
    "packages",
}
BELOW_PLANNING = FOUNDATION | {
    "graph",
    "devices",
    "hosts",
    "measure",
    "tracking",
    "sweep",
    "latency",
    "placement",
    "execution",
    "console",
}
MAY_IMPORT = {
    "errors": set(),
    "units": set(),
    "strict": set(),
    "fleet": {"units", "config"},
    "additions": {"errors"},
    "config": {"errors", "additions"},
    "caches": {"errors", "documents"},
    "interrupts": set(),
    "names": set(),
    "packages": set(),
    "documents": set(),
    "outputs": {"errors"},
    "scratch": {"errors"},
    "graph": FOUNDATION,
    "devices": FOUNDATION,
    "hosts": FOUNDATION | {"devices"},
    "measure": FOUNDATION | {"hosts", "devices", "graph"},
    "tracking": FOUNDATION | {"measure"},
    "sweep": FOUNDATION | {"measure", "hosts", "devices", "graph"},
    "latency": FOUNDATION | {"graph"},
    "placement": FOUNDATION,
    "execution": FOUNDATION | {"measure", "hosts", "devices", "graph"},
    "gateway": FOUNDATION | {"devices", "execution"},
    "deployment": FOUNDATION | {"devices", "execution", "gateway", "graph", "placement"},
    "console": FOUNDATION,
    "planning": BELOW_PLANNING,
    "report": FOUNDATION | {"console", "execution", "graph", "latency", "measure", "placement", "planning"},
    "tasks": BELOW_PLANNING | {"planning", "report", "deployment"},
    "api": FOUNDATION | {"console", "graph", "placement", "planning", "report", "sweep", "tasks"},
    "service": FOUNDATION
    | {"console", "graph", "hosts", "latency", "placement", "planning", "report", "sweep", "tasks"},
    "run": FOUNDATION | {"console", "tasks", "service"},
}

# Third parties with a home: the rooms (or modules) that may import them.
HOMES = {
    "mlflow": ("tracking",),
    "hydra": ("run", "config"),
    "optuna": ("latency.tuning",),
    "xgboost": ("latency",),
    "onnxruntime": ("devices.providers", "measure.worker", "graph.observer", "graph.running", "graph.precisions"),
    "zmq": ("execution",),
    "onnx": ("graph",),
    "matplotlib": ("report",),
    "plotly": ("report",),
    "jinja2": ("report",),
    "dask": ("hosts.engine",),
    "distributed": ("hosts.engine",),
    "cryptography": ("hosts.certificates",),
    "fastapi": ("service",),
    "starlette": ("service", "gateway.app"),
    "uvicorn": ("service", "gateway.__main__"),
    "prometheus_client": ("service", "gateway"),
    "psutil": ("devices", "hosts", "tracking.abandoned", "graph.observed"),
}

# Third parties that cost seconds: only ever imported inside a function.
LAZY = {
    "mlflow",
    "xgboost",
    "optuna",
    "matplotlib",
    "pandas",
    "pyarrow",
    "plotly",
    "dask",
    "distributed",
    "cryptography",
}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports hide who imports whom"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top_level_imports(tree: ast.Module) -> set[str]:
    """Imports that run when the module is imported (not those inside functions or TYPE_CHECKING)."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.Try | ast.With):
            found |= imports(node)
    return found


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_run_one_way(path: Path) -> None:
    name = dotted(path)
    room = name.split(".")[0]
    tree = ast.parse(path.read_text())
    for imported in imports(tree):
        parts = imported.split(".")
        if parts[0] == "pepper" and len(parts) > 1 and parts[1] in MAY_IMPORT and parts[1] != room:
            assert parts[1] in MAY_IMPORT[room], f"pepper.{name} must not import {imported}"
        homes = HOMES.get(parts[0])
        if homes:
            assert any(name == home or name.startswith(home + ".") for home in homes), (
                f"pepper.{name} must not import {imported}: its home is {' or '.join(homes)}"
            )


def test_no_entry_is_dead() -> None:
    """What may be imported and is not would let a later import through unseen."""
    reached: dict[str, set[str]] = {}  # by room, the rooms that it imports or names, as to run them
    parties: dict[str, set[str]] = {}  # by third party, the modules that import it
    for path in modules():
        name, tree = dotted(path), ast.parse(path.read_text())
        strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is str}
        for parts in (each.split(".") for each in imports(tree) | strings):
            if parts[0] == "pepper" and len(parts) > 1:
                reached.setdefault(name.split(".")[0], set()).add(parts[1])
        for imported in imports(tree):
            parties.setdefault(imported.split(".")[0], set()).add(name)
    for room, allowed in MAY_IMPORT.items():
        free = set() if room in FOUNDATION else FOUNDATION
        assert allowed - free <= reached.get(room, set()), f"{room} does not import {allowed - free - reached[room]}"
    for party, homes in HOMES.items():
        for home in homes:
            assert any(name == home or name.startswith(f"{home}.") for name in parties.get(party, ())), (party, home)
    assert parties.keys() >= LAZY
    overrides = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    untyped = {module.removesuffix(".*") for override in overrides for module in override["module"]}
    assert untyped <= parties.keys()


# What reads or steers the machine that a process runs on: only hosts and devices know of it.
OF_ONE_MACHINE = ("host", "own_limits", "cores", "process", "throttle", "suspender")
OWN_PROCESS = {"execution.tcp_queue"}
"""Modules that look at the process that they are part of, wherever that runs."""


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_only_hosts_and_devices_know_a_machine(path: Path) -> None:
    """No process number, core or file of the kernel above them: what runs on a device may run elsewhere."""
    name = dotted(path)
    tree = ast.parse(path.read_text())
    if name.split(".")[0] not in (
        "measure",
        "sweep",
        "planning",
        "execution",
        "report",
        "tasks",
        "latency",
        "api",
        "service",
    ):
        return
    for imported in imports(tree):
        assert not any(f"{imported}.".startswith(f"pepper.devices.{module}.") for module in OF_ONE_MACHINE), imported
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr != "pid", f"pepper.{name}, line {node.lineno}: a process number"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and name not in OWN_PROCESS:
            assert not node.value.startswith(("/proc", "/sys/")), f"pepper.{name}, line {node.lineno}: {node.value}"


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_heavy_imports_are_lazy(path: Path) -> None:
    tops = {name.split(".")[0] for name in top_level_imports(ast.parse(path.read_text()))}
    assert not tops & LAZY, f"pepper.{dotted(path)} imports {tops & LAZY} at its top; move it into the function"


def test_no_two_classes_share_a_name() -> None:
    """One term, one meaning."""
    homes: dict[str, list[str]] = {}
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(dotted(path))
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


MOST_LINES = {"tasks": 220}
"""Of a file, by room."""
MOST_TASK_LINES = 3490


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_files_are_small(path: Path) -> None:
    count = len(path.read_text().splitlines())
    assert count <= MOST_LINES.get(dotted(path).split(".")[0], 420)


def test_tasks_are_wiring() -> None:
    assert sum(len(path.read_text().splitlines()) for path in (ROOT / "tasks").glob("*.py")) <= MOST_TASK_LINES
