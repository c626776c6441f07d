"""A Compose file a host: its programs in containers that share the host's network."""

from collections.abc import Mapping
from typing import Any

from pepper.config import ExportConfig
from pepper.deployment.documents import as_yaml
from pepper.deployment.standing import GATEWAY, StandingPipeline, Workload

_HEALTH = "import sys, urllib.request as r; sys.exit(r.urlopen('http://{host}:{port}{path}', timeout=5).status != 200)"


def compose_files(pipeline: StandingPipeline, config: ExportConfig) -> Mapping[str, str]:
    """Return the files' content by their path: ``compose.yaml``, or ``compose.HOST.yaml`` where there are several."""
    return {
        compose_file(pipeline, host): as_yaml(
            f"{pipeline.name} on {host}: docker compose --file {compose_file(pipeline, host)} up --detach",
            [
                {
                    "name": f"pepper-{pipeline.name}",
                    "services": {workload.name: _service(workload, config) for workload in pipeline.on(host)},
                }
            ],
        )
        for host in pipeline.hosts
    }


def compose_file(pipeline: StandingPipeline, host: str) -> str:
    """Return the name of a host's file."""
    return "compose.yaml" if len(pipeline.hosts) == 1 else f"compose.{host}.yaml"


def _service(workload: Workload, config: ExportConfig) -> dict[str, Any]:
    asked = config.listen if workload.name == GATEWAY and config.listen != "0.0.0.0" else "127.0.0.1"
    health = _HEALTH.format(host=asked, port=workload.health_port, path=workload.health_path)
    service: dict[str, Any] = {
        "image": config.image,
        "command": ["python", "-m", workload.module, workload.file],
        "working_dir": "/pipeline",
        "volumes": [{"type": "bind", "source": ".", "target": "/pipeline", "read_only": True}],
        "env_file": ["keys.env"],
        "network_mode": "host",
        "restart": "always",
        "init": True,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "healthcheck": {
            "test": ["CMD", "python", "-c", health],
            "interval": "30s",
            "timeout": "10s",
            "start_period": "30s",
        },
    }
    device = workload.device
    if device is not None:
        service["cpuset"] = ",".join(map(str, device.cores))
        if device.share < 1:
            service["cpus"] = workload.cpus
        if device.memory_bytes is not None:
            service["mem_limit"] = str(device.memory_bytes)
    return service
