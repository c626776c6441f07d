"""Manifests of Kubernetes, as K3s takes them: a kustomization with a Deployment and a Service a program.

A program is bound to its host by a node selector, and reads the export there, where a copy of it lies. Where all of a
device's cores are its own (`share` 1), it asks for whole cores with equal limits: a node whose kubelet has the static
CPU policy gives it exclusive ones.
"""

import math
from collections.abc import Mapping
from typing import Any

from pepper.config import ExportConfig
from pepper.deployment.documents import as_yaml
from pepper.deployment.standing import GATEWAY, StandingPipeline, Workload

_USER = 10001
_KEYS = "pepper-keys"
_RUNTIME_BYTES = 2**28  # of Python, numpy and onnxruntime beside a part
_GATEWAY_BYTES = 2**30
_MI = 2**20


def k3s_files(pipeline: StandingPipeline, config: ExportConfig) -> Mapping[str, str]:
    """Return the files' content by their path: ``kustomization.yaml`` and what it names."""
    found = {
        f"{workload.name}.yaml": as_yaml(
            f"{workload.name} of {pipeline.name} on node {workload.host}",
            [_deployment(pipeline, workload, config), _service(pipeline, workload)],
        )
        for workload in pipeline.workloads
    }
    found["network.yaml"] = as_yaml("Who may reach the stages", [_network_policy(pipeline)])
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(found),
        "secretGenerator": [{"name": _keys(pipeline), "envs": ["keys.env"]}],
    }
    found["kustomization.yaml"] = as_yaml(
        f"{pipeline.name}: kubectl apply --kustomize . --namespace NAMESPACE", [kustomization]
    )
    return found


def _keys(pipeline: StandingPipeline) -> str:
    return f"{_KEYS}-{pipeline.name}"


def _labels(pipeline: StandingPipeline, workload: Workload | None = None) -> dict[str, str]:
    found = {"app.kubernetes.io/name": "pepper", "app.kubernetes.io/instance": pipeline.name}
    return found if workload is None else {**found, "app.kubernetes.io/component": workload.name}


def _deployment(pipeline: StandingPipeline, workload: Workload, config: ExportConfig) -> dict[str, Any]:
    labels = _labels(pipeline, workload)
    metrics = {"prometheus.io/scrape": "true", "prometheus.io/port": str(pipeline.port)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{pipeline.name}-{workload.name}", "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, **({"annotations": metrics} if workload.name == GATEWAY else {})},
                "spec": _pod(pipeline, workload, config),
            },
        },
    }


def _pod(pipeline: StandingPipeline, workload: Workload, config: ExportConfig) -> dict[str, Any]:
    health = {"httpGet": {"path": workload.health_path, "port": workload.health_port}}
    ready = health
    if workload.name == GATEWAY:
        ready = {"httpGet": {"path": "/v2/health/ready", "port": workload.health_port}}
    return {
        "nodeSelector": {"kubernetes.io/hostname": workload.host},
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "pepper",
                "image": config.image,
                "command": ["python", "-m", workload.module, workload.file],
                "workingDir": "/pipeline",
                "envFrom": [{"secretRef": {"name": _keys(pipeline)}}],
                "ports": [{"containerPort": port} for port in dict.fromkeys((*workload.ports, workload.health_port))],
                "startupProbe": {**health, "periodSeconds": 2, "failureThreshold": 60},
                "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 3},
                "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5},
                "resources": _resources(workload),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "pipeline", "mountPath": "/pipeline", "readOnly": True}],
            }
        ],
        "volumes": [
            {"name": "pipeline", "hostPath": {"path": f"{config.at}/{pipeline.name}", "type": "Directory"}},
        ],
    }


def _resources(workload: Workload) -> dict[str, Any]:
    if workload.device is None:
        return {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": f"{_GATEWAY_BYTES // _MI}Mi"}}
    memory_bytes = workload.device.memory_bytes or 2 * (workload.memory_bytes or 0) + _RUNTIME_BYTES
    amount = {"cpu": f"{workload.cpus:g}", "memory": f"{math.ceil(memory_bytes / _MI)}Mi"}
    return {"requests": amount, "limits": dict(amount)}


def _service(pipeline: StandingPipeline, workload: Workload) -> dict[str, Any]:
    """Return how others find a program: a stage at its pod's own address, also while it is not ready."""
    of_stage = {"clusterIP": "None", "publishNotReadyAddresses": True}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{pipeline.name}-{workload.name}", "labels": _labels(pipeline, workload)},
        "spec": {
            **of_stage,
            "selector": _labels(pipeline, workload),
            "ports": [{"name": f"port-{port}", "port": port} for port in workload.ports],
        },
    }


def _network_policy(pipeline: StandingPipeline) -> dict[str, Any]:
    """Return the rule that stages are reached by this pipeline only, and the gateway by all in the namespace.

    The gateway's probes come from its own node, which no policy bars; a stage says no more than that it works.
    """
    everyone: dict[str, Any] = {"podSelector": {}}
    ours = {"podSelector": {"matchLabels": _labels(pipeline)}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": pipeline.name, "labels": _labels(pipeline)},
        "spec": {
            "podSelector": {"matchLabels": _labels(pipeline)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [ours]},
                {"from": [everyone], "ports": [{"port": pipeline.port}]},
                {
                    "ports": [{"port": each.health_port} for each in pipeline.workloads if each.name != GATEWAY]
                },  # probes
            ],
        },
    }
