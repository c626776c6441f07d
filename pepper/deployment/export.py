"""The folder that an export is: parts, plan, a file a program, and what starts the programs."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from pepper.config import ExportConfig
from pepper.config.exporting import ExportKind
from pepper.deployment.compose import compose_file, compose_files
from pepper.deployment.k3s import k3s_files
from pepper.deployment.standing import StandingPipeline
from pepper.deployment.systemd import systemd_files
from pepper.documents import read_json
from pepper.execution.queues import Keys
from pepper.execution.standing_files import environment_of
from pepper.execution.standing_stage import PARTS
from pepper.placement.plan import Plan

LISTING = "export.json"
KEYS = "keys.env"
PLAN = "plan.json"
_FORMAT = 1
_MOST_NAME = 40

Writer = Callable[[StandingPipeline, ExportConfig], Mapping[str, str]]
WRITERS: Mapping[ExportKind, Writer] = {
    ExportKind.compose: compose_files,
    ExportKind.k3s: k3s_files,
    ExportKind.systemd: systemd_files,
}

_START = {
    ExportKind.compose: """\
Copy this folder to each host that a Compose file is named after, and start it there:

    docker compose --file {compose} up --detach

The image is `{image}`.
""",
    ExportKind.k3s: """\
Copy this folder to `{at}/{name}` of each node that a manifest names ({hosts}), and apply it:

    kubectl apply --kustomize . --namespace default

The image is `{image}`; each node must be able to get it.
""",
    ExportKind.systemd: """\
Copy this folder to `{at}/{name}` of each host in `systemd/` ({hosts}), and there, as root:

    cp systemd/HOST/* /etc/systemd/system/
    systemctl daemon-reload
    systemctl enable --now pepper-{name}.target

pepper is expected at `{python}`.
""",
}

_README = """\
# {name}: a standing pipeline

Stages on their hosts, and a gateway that takes requests over HTTP (Open Inference Protocol, version 2) at port {port}.

{start}
`keys.env` lets programs into the pipeline: keep it from others. Every export makes new ones, so all hosts need the same
copy. Requests go to `/v2/models/{name}/infer`; `/v2/health/ready` says whether they come through; `/metrics` shows what
is measured beside what the plan predicts.
"""


def pipeline_name(model: str) -> str:
    """Return a name for a model's pipeline that hosts, units and addresses can have."""
    plain = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"model-{plain}"
    return plain[:_MOST_NAME].strip("-")


def is_export(folder: Path) -> bool:
    """Whether a folder holds an export of this or an earlier pepper, and nothing else."""
    try:
        listed = read_json(folder / LISTING)["files"]
        there = {str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir()}
        return there <= {*listed, LISTING}
    except (OSError, KeyError, TypeError, ValueError):
        return False


def write_export(pipeline: StandingPipeline, plan: Plan, config: ExportConfig, folder: Path) -> list[str]:
    """Write all but the parts, which lie in the folder already; returns the names of all files.

    Raises:
        OSError: The folder cannot be written.
    """
    for name, content in WRITERS[config.kind](pipeline, config).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    for workload in pipeline.workloads:
        (folder / workload.file).write_text(workload.told.model_dump_json(indent=2) + "\n")
    keys = folder / KEYS
    keys.touch(0o600)
    keys.write_text("".join(f"{name}={value}\n" for name, value in environment_of(Keys.make()).items()))
    plan.save(folder / PLAN)
    named = {**vars(config), "name": pipeline.name, "port": pipeline.port, "hosts": ", ".join(pipeline.hosts)}
    compose = compose_file(pipeline, "HOST")
    start = _START[config.kind].format(**named, compose=compose)
    (folder / "README.md").write_text(_README.format(**named, start=start))
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir())
    (folder / LISTING).write_text(json.dumps({"format": _FORMAT, "kind": config.kind, "files": files}, indent=2) + "\n")
    return files


__all__ = ["KEYS", "PARTS", "PLAN", "is_export", "pipeline_name", "write_export"]
