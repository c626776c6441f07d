"""A Compose file a host: its programs in containers that share the host's network."""

from collections.abc import Mapping
from typing import Any

from pepper.config import ExportConfig
from pepper.deployment.documents import as_yaml
from pepper.deployment.standing import StandingPipeline, Workload

_HEALTH = (
    "import sys, urllib.request as r; sys.exit(r.urlopen('http://127.0.0.1:{port}{path}', timeout=5).status != 200)"
)


def compose_files(pipeline: StandingPipeline, config: ExportConfig) -> Mapping[str, str]:
    """Return the files' content by their path: ``compose.yaml``, or ``compose.HOST.yaml`` where there are several."""
    return {
        "compose.yaml" if len(pipeline.hosts) == 1 else f"compose.{host}.yaml": as_yaml(
            f"{pipeline.name} on {host}: docker compose up --detach",
            [
                {
                    "name": f"pepper-{pipeline.name}",
                    "services": {workload.name: _service(workload, config.image) for workload in pipeline.on(host)},
                }
            ],
        )
        for host in pipeline.hosts
    }


def _service(workload: Workload, image: str) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": image,
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
            "test": ["CMD", "python", "-c", _HEALTH.format(port=workload.health_port, path=workload.health_path)],
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
