"""Units of systemd: one a program, and a target a host that stands for all of them there."""

from collections.abc import Mapping

from pepper.config import ExportConfig
from pepper.deployment.standing import GATEWAY, StandingPipeline, Workload

_RESTART_S = 1
_HUNG_S = 60
"""Least time after which a stage that says nothing is taken for hung: it says between two requests that it works."""

_UNIT = """\
# {description}; docs/tasks/export.md of pepper says more.
[Unit]
Description={description}
After=network-online.target
Wants=network-online.target
PartOf={target}
StartLimitIntervalSec=0

[Service]
Type={type}
TimeoutStartSec=infinity
ExecStart={python} -m {module} {folder}/{file}
EnvironmentFile={folder}/keys.env
{bounds}Restart=always
RestartSec={restart_s}
DynamicUser=yes
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
CapabilityBoundingSet=
LimitRTPRIO=1

[Install]
WantedBy={target}
"""

_TARGET = """\
[Unit]
Description=pepper: {name}
{wants}
[Install]
WantedBy=multi-user.target
"""


def systemd_files(pipeline: StandingPipeline, config: ExportConfig) -> Mapping[str, str]:
    """Return the files' content by their path: ``systemd/HOST/...``."""
    target = f"pepper-{pipeline.name}.target"
    found = {}
    for host in pipeline.hosts:
        programs = pipeline.on(host)
        for workload in programs:
            found[f"systemd/{host}/{_unit(pipeline, workload)}"] = _UNIT.format(
                description=f"pepper: {workload.name} of {pipeline.name}",
                target=target,
                type="exec" if workload.name == GATEWAY else "notify",
                python=config.python,
                module=workload.module,
                folder=f"{config.at}/{pipeline.name}",
                file=workload.file,
                bounds=_bounds(workload, config.time_limit_seconds),
                restart_s=_RESTART_S,
            )
        wants = "".join(f"Wants={_unit(pipeline, workload)}\n" for workload in programs)
        found[f"systemd/{host}/{target}"] = _TARGET.format(name=pipeline.name, wants=wants)
    return found


def _unit(pipeline: StandingPipeline, workload: Workload) -> str:
    return f"pepper-{pipeline.name}-{workload.name}.service"


def _bounds(workload: Workload, time_limit_s: float) -> str:
    """Return what a program may use: its device's cores, share and memory."""
    device = workload.device
    if device is None:
        return ""
    lines = [f"WatchdogSec={max(_HUNG_S, 2 * time_limit_s):.0f}", f"CPUAffinity={' '.join(map(str, device.cores))}"]
    if device.share < 1 and workload.cpus is not None:
        lines.append(f"CPUQuota={100 * workload.cpus:g}%")
    if device.memory_bytes is not None:
        lines.append(f"MemoryMax={device.memory_bytes}")
    return "".join(f"{line}\n" for line in lines)
