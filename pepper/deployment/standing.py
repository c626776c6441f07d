"""A plan as a standing pipeline: a program a stage on its host, and a gateway; who listens where."""

import hashlib
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pepper.config import ExportConfig, SessionConfig
from pepper.config.exporting import ExportKind
from pepper.config.placing import PlanGraph
from pepper.devices.device import DeviceSpec
from pepper.errors import ConfigError
from pepper.execution.layout import Layout, numpy_name
from pepper.execution.standing_files import GatewayFile, OutletFile, PredictedStage, StageFile, TensorFile
from pepper.gateway.inference import DATATYPES
from pepper.graph.manifest import Manifest, Part
from pepper.graph.source import TensorSpec
from pepper.placement.plan import Plan

GATEWAY = "gateway"
_ANY = "0.0.0.0"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Workload:
    """A program of a standing pipeline.

    Attributes:
        name: ``stage-1``, ``stage-2``, ..., ``gateway``; its file is called so, too.
        host: Where it runs.
        module: What Python runs.
        told: What its file says.
        ports: Where others of the pipeline reach it.
        health_port: Where it says whether it works.
        health_path: The path that it is asked for that.
        device: Its device; None of the gateway.
        memory_bytes: Memory that it is predicted to take; None is not known.
    """

    name: str
    host: str
    module: str
    told: StageFile | GatewayFile
    ports: tuple[int, ...]
    health_port: int
    health_path: str
    device: DeviceSpec | None = None
    memory_bytes: float | None = None

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.json"

    @property
    def cpus(self) -> float | None:
        """How many cores' time it gets; None is not bounded."""
        return None if self.device is None else round(self.device.share * max(1, len(self.device.cores)), 3)


@dataclass(frozen=True)
class StandingPipeline:
    """All programs of one.

    Attributes:
        name: What it is called.
        workloads: The stages in order, then the gateway.
        port: Where the gateway takes requests.
    """

    name: str
    workloads: tuple[Workload, ...]
    port: int

    @property
    def hosts(self) -> list[str]:
        """The hosts, in the order in which requests reach them."""
        return list(dict.fromkeys(workload.host for workload in self.workloads))

    def on(self, host: str) -> list[Workload]:
        """Return what runs on a host."""
        return [workload for workload in self.workloads if workload.host == host]


def standing_pipeline(
    name: str,
    plan: Plan,
    manifest: Manifest,
    folder: Path,
    specs: Mapping[str, DeviceSpec],
    session: SessionConfig,
    config: ExportConfig,
) -> StandingPipeline:
    """Return what a plan's pipeline is made of.

    Args:
        name: What it is called.
        plan: The plan.
        manifest: Its parts.
        folder: Where these are.
        specs: Its fleet's devices.
        session: How onnxruntime opens a part.
        config: Where all is.

    Raises:
        ConfigError: A tensor is of a type that requests cannot bring, or there are too few ports.
    """
    layout = Layout.of(manifest, folder, plan.devices, plan.graph == PlanGraph.dag)
    here = config.here or socket.gethostname()
    hosts = [specs[device].host or here for device in layout.devices]
    source = plan.fleet.source
    homes = [(specs[source].host if source else None) or here, *hosts]
    ways, last = layout.ways, len(layout.parts)
    if config.port + len(ways) + last > 65535:
        raise ConfigError(f"export.port={config.port}: {len(ways) + last} ports behind it are needed; give a lower one")
    ports = {way: config.port + 1 + number for number, way in enumerate(ways)}
    is_alone, in_pods = len(set(homes)) == 1, config.kind == ExportKind.k3s

    def reached(number: int) -> str:
        if in_pods:
            return f"{name}-{_called(number, last)}"
        home = homes[0] if number > last else homes[number]
        return _LOOPBACK if is_alone else str(config.addresses.get(home, home))

    listening = _LOOPBACK if is_alone and not in_pods else _ANY
    queue = 2 * config.in_flight
    into = [[ports[way] for way in ways if way.receiver == number] for number in range(last + 2)]
    out_of = [
        [
            OutletFile(address=f"{reached(way.receiver)}:{ports[way]}", carry=list(way.carry))
            for way in ways
            if way.sender == number
        ]
        for number in range(last + 1)
    ]
    stages = []
    for number, (part, host) in enumerate(zip(layout.parts, hosts, strict=True), 1):
        spec = specs[part.device]
        health = config.port + len(ways) + number
        told = StageFile(
            format=1,
            number=number,
            name=f"stage {number} on {part.device}",
            files=_hashes(folder, manifest.parts[number - 1]),
            provider=spec.choice.to_json(),
            threads=spec.threads,
            session={key: getattr(value, "value", value) for key, value in vars(session).items()},
            receive=[f"{listening}:{port}" for port in into[number]],
            send=out_of[number],
            queue=queue,
            health=f"{_ANY if in_pods else _LOOPBACK}:{health}",
        )
        memory_bytes = plan.parts[number - 1].memory_bytes
        stages.append(
            Workload(
                _called(number, last),
                host,
                "pepper.execution.standing_stage",
                told,
                tuple(into[number]),
                health,
                "/",
                spec,
                memory_bytes,
            )
        )
    gateway = GatewayFile(
        format=1,
        model=name,
        inputs=[request_tensor("input", spec) for spec in layout.inputs],
        outputs=[request_tensor("output", spec) for spec in manifest.outputs],
        send=out_of[0],
        receive=[f"{listening}:{port}" for port in into[last + 1]],
        queue=queue,
        in_flight=config.in_flight,
        time_limit_s=config.time_limit_seconds,
        listen=f"{_ANY if in_pods else config.listen}:{config.port}",
        latency_s=plan.latency_ms / 1000,
        stages=[
            PredictedStage(number=number, device=part.device, time_s=part.time_ms / 1000)
            for number, part in enumerate(plan.parts, 1)
        ],
    )
    entry = Workload(
        GATEWAY,
        homes[0],
        "pepper.gateway",
        gateway,
        (config.port, *into[last + 1]),
        config.port,
        "/v2/health/live",
    )
    return StandingPipeline(name, (*stages, entry), config.port)


def _called(number: int, last: int) -> str:
    return GATEWAY if number in (0, last + 1) else f"stage-{number}"


def request_tensor(kind: str, spec: TensorSpec) -> TensorFile:
    """Return a tensor as requests bring it, or answers.

    Args:
        kind: ``input`` or ``output``.
        spec: What it is.

    Raises:
        ConfigError: It is of a type that no request can bring.
    """
    dtype = numpy_name(spec.dtype)
    if dtype not in DATATYPES:
        raise ConfigError(
            f"export.plan: the model's {kind} {spec.name!r} is of type {spec.dtype}, which no request can bring; export"
            f" a model with tensors of {', '.join(DATATYPES)}"
        )
    shape = None if spec.shape is None else [size if isinstance(size, int) else None for size in spec.shape]
    return TensorFile(name=spec.name, dtype=dtype, shape=shape)


def _hashes(folder: Path, part: Part) -> dict[str, str]:
    """Return the SHA-256 of a part's files by name, its own first."""
    found = {}
    for file in filter(None, (part.file, part.weights_file)):
        with (folder / file).open("rb") as stream:
            found[file] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
