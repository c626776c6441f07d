"""A cell: one point of a sweep, and its identity."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pepper.config import LoadConfig, MeasureConfig, ModelConfig
from pepper.config.measuring import Binding
from pepper.devices.device import DeviceSpec
from pepper.graph.model import ModelFile
from pepper.packages import onnxruntime_version

IDENTITY_VERSION = 2  # raise it when the meaning of a measurement changes: finished cells are then measured again


@dataclass(frozen=True)
class Cell:
    """A model on a device under a load, measured in one way.

    Attributes:
        model_config: The model as the configuration names it.
        model: The model's file; None where it cannot be read.
        device: The device.
        load: The load.
        measure: When timing starts and stops.
        error: Why the cell cannot be measured at all, for its model or its device; None if it can.
        label: What the model is called beside the sweep's others; None is its own name.
    """

    model_config: ModelConfig
    model: ModelFile | None
    device: DeviceSpec
    load: LoadConfig
    measure: MeasureConfig
    error: str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """How a person finds the cell among runs."""
        return f"{self.label or self.model_name} / {self.device.name} / {self.load.name} / {self.device.threads}t"

    @cached_property
    def identity(self) -> str:
        """SHA-256 (hex) of all that decides what is measured; names of options are left out."""
        load = asdict(self.load)
        del load["name"]
        if not self.load.accelerator_percent:  # as it was before there was such a load
            del load["accelerator_percent"]
        measure = asdict(self.measure)
        del measure["time_limit_seconds"]
        if self.measure.binding == Binding.host:  # as it was before there was a choice
            del measure["binding"]
        facts = {
            "identity_version": IDENTITY_VERSION,
            "onnxruntime": self.device.onnxruntime or onnxruntime_version(),
            "model": self.model.content_hash if self.model else self.model_config.path,
            "shapes": self.model.shapes if self.model else None,
            "device": self.device.facts(),
            "load": {"percent": 0.0} if self.load.is_silent else load,
            "measure": measure,
        }
        if self.model and (inputs := self.model.described_inputs()):
            facts["inputs"] = inputs
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def bench_key(self) -> str:
        """Equal for the cells that one worker can serve: all but the load agrees."""
        facts = [asdict(self.model_config), asdict(self.device), asdict(self.measure), self.load.generator]
        return json.dumps(facts, sort_keys=True)

    @property
    def model_name(self) -> str:
        """What is measured, by its own name: the model, or a part of it."""
        return str(self.model.name if self.model else self.model_config.name)

    def params(self) -> dict[str, Any]:
        """Return the facts of the cell, the ones that matter first."""
        device, load, session = self.device, self.load, self.measure.session
        return {
            "model": self.model_name,
            "family": self.model_config.name,
            **self._files(),
            "device": device.name,
            "host": device.host,
            "load": load.name,
            "load_percent": load.percent,
            "load_cores": load.cores or (len(device.cores) if load.percent else 0),
            "load_generator": load.generator,
            "load_period_ms": load.period_ms,
            "load_accelerator_percent": load.accelerator_percent or None,
            "threads": device.threads,
            "share": device.share,
            "cores": ",".join(map(str, device.cores)),
            "provider": device.provider,
            "provider_options": json.dumps(dict(device.options)) if device.options else None,
            "accelerator": dict(device.found).get("hardware"),
            "accelerator_driver": dict(device.found).get("driver"),
            "fallback": device.fallback if device.found else None,
            "memory_limit_bytes": device.memory_bytes,
            "throttle": device.throttle,
            "throttle_period_ms": device.period_ms,
            "optimization": session.optimization,
            "spinning": session.spinning,
            "parallel": session.parallel,
            "binding": None if self.measure.binding == Binding.host else str(self.measure.binding),
            "seed": self.measure.seed,
            "batch": next(iter(self.model.shapes.values()), [1])[0] if self.model else None,
            "input_shapes": json.dumps(self.model.shapes) if self.model else None,
            "inputs": json.dumps(self.model.described_inputs()) if self.model else None,
        }

    def _files(self) -> dict[str, str | None]:
        """Where what is measured, and what it is a part of, can be found again from any folder, and their hashes."""
        given = self.model_config.path
        if self.model is None:
            return {"model_path": given, "model_sha256": None}
        whole = self.model.part_of or self.model
        address = given if "://" in given else str(whole.file)
        return {
            "model_path": address if whole is self.model else str(self.model.file),
            "model_sha256": self.model.content_hash,
            "family_path": address,
            "family_sha256": whole.content_hash,
        }
