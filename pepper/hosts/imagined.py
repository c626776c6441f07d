"""The host of devices that do not exist yet: what they are like is said, and nothing is measured or run there."""

import math
from typing import Any

from pepper.config import DeviceConfig
from pepper.config.hosting import IMAGINED
from pepper.devices.calibration import Calibration
from pepper.devices.device import DeviceSpec, short_hash
from pepper.errors import ConfigError, DeviceError
from pepper.hosts.host import Host


class ImaginedHost(Host):
    """Gives devices of any facts; each is a machine of its own."""

    name = IMAGINED

    def facts(self) -> dict[str, Any]:
        """Return that nothing is known, and that memory is not short."""
        unknown: dict[str, Any] = {"cpu_model": "imagined", "instruction_sets": [], "caches": {}, "frequency_mhz": None}
        return {**unknown, "cores": 0, "memory_bytes": math.inf, "system": "imagined"}

    def state(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def addresses(self) -> set[str]:
        """Return nothing: it cannot be reached."""
        return set()

    def cores(self) -> list[int]:
        """Return nothing: a device says how many it has."""
        return []

    def installed(self, program: str) -> bool:
        """Return that loads can be thought of, whatever makes them."""
        return True

    def resolve(self, config: DeviceConfig) -> DeviceSpec:
        """Fill in a device's cores and threads from its facts.

        Raises:
            ConfigError: They do not say how fast it is.
        """
        facts = config.facts
        for name in ("gflops", "memory_gbps"):
            if name not in facts:
                raise ConfigError(
                    f"device.facts.{name}: has no value; say what the imagined device does, device.facts.{name}=NUMBER"
                )
        cores = int(facts.get("cores", config.threads or 1))
        threads = config.threads or cores
        if threads > cores:
            raise ConfigError(f"device.threads={threads}: more than the {cores} cores of device.facts; lower it")
        return DeviceSpec(
            name=config.name,
            machine=short_hash(facts),
            kind=config.kind,
            cores=tuple(range(cores)),
            threads=threads,
            provider=config.provider,
            share=config.share,
            throttle=config.throttle,
            period_ms=0.0,
            memory_bytes=config.memory_bytes,
            host=IMAGINED,
            onnxruntime="imagined",
            imagined=tuple(sorted(facts.items())),
        )

    def calibrate(self, spec: DeviceSpec, *, renew: bool = False) -> Calibration:
        """Return what is said of the device.

        Raises:
            DeviceError: It is to be seen whether that still holds: nothing can be measured there.
        """
        if renew:
            raise DeviceError(
                f"{spec.name}: is imagined (device.host={IMAGINED}), nothing can be measured there; use task=predict or"
                " task=place"
            )
        facts = dict(spec.imagined)
        single = facts.get("gflops_single", facts["gflops"] / spec.threads)
        runtime = {name.removeprefix(_RUNTIME): value for name, value in facts.items() if name.startswith(_RUNTIME)}
        return Calibration(
            gflops_single=single,
            gflops=facts["gflops"],
            memory_gbps=facts["memory_gbps"],
            share=spec.share,
            cores=len(spec.cores),
            frequency_mhz=None,
            l1_bytes=0,
            l2_bytes=int(facts.get("l2_bytes", _L2_BYTES)),
            l3_bytes=int(facts.get("l3_bytes", 0)),
            instruction_sets=[],
            cpu_model="imagined",
            throttle_method="none",
            cycle_ms=facts.get("cycle_ms"),
            slice_ms=facts.get("slice_ms"),
            int8_gops=facts.get("int8_gops"),
            runtime=runtime or None,
        )

    def busy_percent(self, spec: DeviceSpec, seconds: float = 1.0) -> float:
        """Refuse: nothing is found there.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"load=found: {spec.name} is imagined; give an option of load, such as idle or cpu50")


_RUNTIME = "runtime_"
_L2_BYTES = 2**20  # of most cores of today
