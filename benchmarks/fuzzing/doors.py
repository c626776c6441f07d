"""The doors through which pepper takes what others wrote, each with originals that pepper itself makes.

A door is entered as the task does that reads such a thing: by its own functions, in this process. It may take what it
is given, or refuse it by a `PepperError`; between processes, by a `GarbledError`.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.common import compose, composed
from benchmarks.fuzzing.commands import enter_options, enter_words, make_options, make_words, option_words
from benchmarks.fuzzing.handed_in import (
    enter_bundles,
    enter_measurements,
    enter_tokens,
    make_bundles,
    make_measurements,
    make_tokens,
)
from benchmarks.fuzzing.messages import enter_message, make_messages
from pepper import caches
from pepper.config import DeviceConfig, LoadConfig, ModelConfig, PepperConfig
from pepper.config.composing import Composition
from pepper.devices import calibration, host
from pepper.devices.cores import likeness, resolve
from pepper.devices.spells import Spell
from pepper.errors import PepperError
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph import parts
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics, CostWarning
from pepper.graph.cuts import find_cuts
from pepper.graph.load import load_graph
from pepper.graph.model import find_model
from pepper.graph.split import split as write_parts
from pepper.latency import collect, description, tuning
from pepper.latency.intervals import Interval
from pepper.latency.model import Hyperparameters, LatencyModel
from pepper.measure.profile import Profile
from pepper.placement.plan import Plan, PlannedModel, PlannedPart, PlanRules
from pepper.planning.measuring import read_inputs
from pepper.planning.planned import Planned
from pepper.planning.splitting import planned_cuts, written_layout
from pepper.report import plans as plan_pages
from pepper.tasks.cuts import list_cuts
from pepper.tasks.split import split
from pepper.tracking.entries import UnusableError
from pepper.tracking.outbox import Outbox
from pepper.tracking.profiles import record_profile, write_artifacts
from pepper.tracking.record import Child, Dataset, NewVersion, Record
from tests.graph import models
from tests.latency.measured import measured

MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "chain": models.chain,
    "unet": models.unet,
    "transformer": models.transformer,
    "control_flow": models.control_flow,
    "scan": models.scan,
    "quantized": models.quantized,
    "detector": models.detector,
    "local_functions": models.local_functions,
    "microsoft": models.microsoft,
    "odd_weights": models.odd_weights,
}


@dataclass(frozen=True)
class Door:
    """One way in.

    Attributes:
        name: What comes in.
        make: Writes originals into a folder, a folder each.
        enter: Takes what lies in a folder.
        command: The command line that takes it too, where there is one.
        weight: Its share of the inputs, against the others'.
        names_files: Whether it may name files anywhere, as a plan names its model.
    """

    name: str
    make: Callable[[Path], None]
    enter: Callable[[Path], object]
    command: Callable[[Path], list[str]] | None = None
    weight: int = 1
    names_files: bool = False


@cache
def settings() -> PepperConfig:
    """Return the configuration of the tasks that are called."""
    config = composed("task=split", "model=onnx", "model.path=none", "output=quiet", "split.parts=2")
    return replace(config, tracking=replace(config.tracking, folder="mlruns"))


def _of(folder: Path, name: str = "model.onnx") -> PepperConfig:
    file = folder / name
    return replace(settings(), model=replace(settings().model, path=str(file), name="model"))


def _composition(config: PepperConfig) -> Composition:
    return Composition(config, (), compose)


# Models.


def _make_models(folder: Path) -> None:
    for name, make in MODELS.items():
        (folder / name).mkdir()
        onnx.save(make(), folder / name / "model.onnx")
    (folder / "external").mkdir()
    models.save(models.chain(), folder / "external" / "model.onnx", external=True)


def _enter_model(folder: Path) -> None:
    config = _of(folder)
    list_cuts(_composition(config))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CostWarning)
        model = find_model(config.model)
        graph = load_graph(model.file, shapes=model.shapes)
        if graph.operators:
            Characteristics(graph).table([0], [len(graph.operators)])
    split(_composition(replace(config, split=replace(config.split, out=str(folder.parent / "parts")))))


def _make_inputs(folder: Path) -> None:
    (folder / "chain").mkdir()
    onnx.save(models.chain(), folder / "chain" / "model.onnx")
    np.savez(folder / "chain" / "inputs.npz", x=np.ones((1, 3, 8, 8), np.float32))


def _enter_inputs(folder: Path) -> None:
    config = _of(folder)
    file = folder / "inputs.npz"
    find_model(replace(config.model, inputs_file=str(file)))
    read_inputs(file)


# Plans and parts.


def plan_of(file: Path) -> Plan:
    """Place a model in two parts on two shares of a core."""
    model = find_model(ModelConfig(path=str(file)))
    graph = load_graph(file, shapes=model.shapes)
    (cut,) = balanced_cuts(graph, find_cuts(graph), 2, [1.0] * len(graph.operators))
    crossing = tuple(graph.tensors[t].name for t in cut.tensors)
    ends = [0, cut.position, len(graph.operators)]
    names = [
        tuple(graph.tensors[t].name for t in graph.inputs),
        crossing,
        tuple(graph.tensors[t].name for t in graph.outputs),
    ]
    core = host.allowed_cores()[-1]
    devices = {
        name: FleetDevice(
            DeviceConfig(name=name, kind="emulated", cores=[core], threads=1, share=0.4),
            LoadConfig(percent=0, name="idle"),
        )
        for name in ("camera", "server")
    }
    shapes = {name: tuple(shape) for name, shape in model.shapes.items()}
    return Plan(
        model=PlannedModel("model", str(file), model.content_hash, shapes),
        fleet=Fleet(devices, everywhere(devices, Link(100.0, 1.0)), "camera", "camera"),
        objective="latency",
        parts=tuple(
            PlannedPart(ends[k], ends[k + 1], device, 1.0, 0.2, 1e6, 2.0 * k, 1e3 * k, names[k], names[k + 1])
            for k, device in enumerate(("camera", "server"))
        ),
        return_ms=1.0,
        latency_ms=5.0,
        period_ms=2.0,
        sent_bytes=1e3,
        bound_ms=5.0,
        gap=0.0,
        solver="by hand",
        provenance={"latency_model": "pepper-latency", "latency_model_version": 3},
        rules=PlanRules({"camera": (0, 2)}, (), 3),
    )


def _make_plans(folder: Path) -> None:
    file = folder.parent / "planned.onnx"
    models.save(models.chain(), file)
    (folder / "plan").mkdir()
    plan_of(file).save(folder / "plan" / "plan.json")


def _enter_plan(folder: Path) -> None:
    plan = Plan.load(folder / "plan.json")
    plan_pages.section(plan_pages.PlanReport("plan", plan))
    planned_cuts(Planned(settings(), plan, "plan").graph, plan, "plan")


def _split_command(folder: Path) -> list[str]:
    model = f"model.path={json.loads((folder.parent / 'planned.json').read_text())}"
    return ["task=split", "model=onnx", model, f"split.plan={folder}/plan.json", f"split.out={folder.parent}/parts"]


def _make_manifests(folder: Path) -> None:
    file = folder.parent / "planned.onnx"
    graph = load_graph(file)
    cuts = balanced_cuts(graph, find_cuts(graph), 2, [1.0] * len(graph.operators))
    write_parts(graph, cuts, folder / "parts")
    (folder / "parts" / "plan.json").write_text(json.dumps(plan_of(file).to_json()))


def _enter_manifest(folder: Path) -> None:
    plan = Plan.load(folder / "plan.json")
    layout = written_layout(plan, folder, "plan")
    for part in layout.parts:
        assert part.file.resolve().is_relative_to(folder.resolve()), f"{part.file} is outside"


# What waits for a store.


_FIGURES = ("latency_p50_ms", "latency_p50_low_ms", "latency_p50_high_ms", "throughput_per_s", "samples")


def _make_records(folder: Path) -> None:
    for number, samples in enumerate(({"start_ns": np.arange(9), "latency_ns": np.arange(9) + 5}, {})):
        profile = Profile(
            status="FINISHED" if samples else "FAILED",
            started_s=1e9,
            ended_s=1e9 + 1,
            verdict="VALID" if samples else "",
            reasons=[] if samples else ["worker: crashed"],
            metrics=dict.fromkeys(_FIGURES, 1.5),
            samples=samples,
            environment={"host": {"cores": 2}, "worker": {"affinity": [0]}, "after": {"governor": ["x"]}},
        )
        record = record_profile("model / local / idle", "cell", {"model": "m", "batch": 1}, profile)
        fill = partial(write_artifacts, profile, "task: x\n")
        Outbox(folder / f"{number}").add(record, None, "pepper", fill)
    artifacts = folder.parent / "artifacts"
    artifacts.mkdir(exist_ok=True)
    (artifacts / "plan.json").write_text("{}")
    record = Record(
        kind="training",
        name="pepper-latency on 9 rows",
        params={"rounds": 3},
        metrics={"mape": 0.1},
        tags={"pepper.placement_run": "0" * 32},
        children=(Child("trial", "trial 0", params={"rounds": 3}),),
        dataset=Dataset("profiles", "abc", "rows.parquet", ("macs",), 9),
        version=NewVersion("pepper-latency", {"rows": "9"}, "note"),
        artifacts=artifacts,
    )
    Outbox(folder / "2").add(record, "sqlite:///mlflow.db", "pepper")


def _enter_records(folder: Path) -> None:
    refused, outbox = [], Outbox(folder)
    for entry in outbox.entries():
        try:
            outbox.read(entry)
        except UnusableError as error:
            outbox.set_aside(entry, str(error))
            refused.append(str(error))
    outbox.clean()
    if refused:
        raise PepperError("; ".join(refused))


def _import_command(folder: Path) -> list[str]:
    return ["task=import", f"tracking.folder={folder}", f"tracking.uri=sqlite:///{folder.parent}/mlflow.db"]


# Latency models and what is kept beside them.


def _make_registered(folder: Path) -> None:
    rows = measured(3, 3)
    for name, base in (("roofline", "roofline"), ("constant", "constant")):
        chosen = Hyperparameters(rounds=5, bags=1, base=base)
        model = LatencyModel.fit(rows.features, rows.p50_ms, rows.p95_ms, chosen)
        replace(model, interval=Interval(0.9, 1.1)).save(folder / name)


def _enter_registered(folder: Path) -> None:
    features = measured(2, 2).features
    model = LatencyModel.load(folder)
    found = model.predict(features)
    model.mean_ms(features)
    model.out_of_range(features)
    assert np.isfinite(found.p50_ms).all(), "predicts what is no number"


def _make_calibrations(folder: Path) -> None:
    (folder / "local").mkdir()
    spec = resolve(settings().device)
    kept = calibration.CalibrationRecord(
        calibration.Calibration(90.0, 170.0, 12.5, 1.0, 2, None, 32768, 2**20, 2**25, ["avx2"], "a processor", "none"),
        [Spell(1.0, 1.0, 90.0, 170.0, 10.0, 12.5)],
        [],
    )
    (folder / "local" / f"{likeness(spec)}-v{calibration.VERSION}.json").write_text(json.dumps(asdict(kept)))


def _enter_calibration(folder: Path) -> None:
    measure = calibration.measure
    measured = calibration.Calibration(1, 1, 1, 1, 1, None, 1, 1, 1, [], "", "")
    calibration.measure = lambda spec: calibration.CalibrationRecord(
        measured, [Spell(1.0, 1.0, 1.0, 1.0, 1.0, 1.0)], []
    )
    try:
        found = calibration.calibrate(resolve(settings().device), folder)
    finally:
        calibration.measure = measure
    assert 0 < found.gflops < 1e9, "believes a calibration of nonsense"
    assert 0 < found.memory_gbps < 1e9, "believes a calibration of nonsense"
    assert 0 < found.share < 10, "believes a calibration of nonsense"


def _make_tables(folder: Path) -> None:
    rows = measured(2, 2)
    (folder / "dataset").mkdir()
    collect.write(rows, folder / "dataset" / "dataset.parquet")
    (folder / "table").mkdir()
    caches.write_table(collect.to_frame(rows), folder / "table" / "kept.parquet")


def _enter_tables(folder: Path) -> None:
    if (folder / "dataset.parquet").is_file():
        collect.read(folder / "dataset.parquet")
    caches.read_table(folder / "kept.parquet", ["p50_ms"])
    description.decode(_text(folder / "kept.parquet"))


def _text(file: Path) -> str:
    return file.read_bytes()[:10_000].decode("latin-1") if file.is_file() and file.stat().st_size < 10**7 else ""


def _make_kept_parts(folder: Path) -> None:
    (folder / "parts").mkdir()
    _cut(folder.parent / "planned.onnx", folder / "parts")


def _cut(model: Path, folder: Path) -> parts.PartFile:
    found = find_model(ModelConfig(path=str(model)))
    return parts.cut_part(model, found.shapes, found.content_hash, 1, 0, folder=folder)


def _enter_kept_part(folder: Path) -> None:
    found = _cut(Path(json.loads((folder.parent / "planned.json").read_text())), folder)
    load_graph(found.file)


def _make_studies(folder: Path) -> None:
    (folder / "study").mkdir()
    tuning.tune(measured(3, 2), _tuning(), folder / "study" / "tuning.db")
    (folder / "study" / "tuning.lock").unlink(missing_ok=True)


def _tuning() -> Any:
    return replace(settings().tuning, trials=1, folds=2)


def _enter_study(folder: Path) -> None:
    tuning.tune(measured(3, 2), _tuning(), folder / "tuning.db")


DOORS = (
    Door("models", _make_models, _enter_model, lambda f: ["task=cuts", "model=onnx", f"model.path={f}/model.onnx"], 10),
    Door("input values", _make_inputs, _enter_inputs, None, 2),
    Door("plans", _make_plans, _enter_plan, _split_command, 6, names_files=True),
    Door("manifests", _make_manifests, _enter_manifest, None, 3),
    Door("records", _make_records, _enter_records, _import_command, 5),
    Door("configurations", make_options, enter_options, option_words, 4, names_files=True),
    Door("command lines", make_words, enter_words, None, 3, names_files=True),
    Door("registry files", _make_registered, _enter_registered, None, 4),
    Door("calibrations", _make_calibrations, _enter_calibration, None, 2),
    Door("tables", _make_tables, _enter_tables, None, 3),
    Door("kept parts", _make_kept_parts, _enter_kept_part, None, 2),
    Door("tuning studies", _make_studies, _enter_study, None, 1),
    Door("messages", make_messages, enter_message, None, 4),
    Door("measurements", make_measurements, enter_measurements, None, 3, names_files=True),
    Door("bundles", make_bundles, enter_bundles, None, 2),
    Door("tokens", make_tokens, enter_tokens, None, 2),
)


def make_originals(folder: Path) -> None:
    """Make the originals of all doors."""
    folder.mkdir(parents=True)
    for door in DOORS:
        (folder / door.name).mkdir()
        door.make(folder / door.name)
    (folder / "planned.json").write_text(json.dumps(str(folder / "planned.onnx")))
