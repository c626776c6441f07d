"""``task=split`` from the command line: what it says, writes, proves, logs and refuses."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import ends_what_was_abandoned
from onnx import helper

from pepper.fleet import Fleet, FleetDevice
from pepper.graph.manifest import read_manifest
from pepper.placement.plan import Plan, PlannedPart
from tests.graph import models


def test_a_real_model_in_four_parts(desk: Any, tmp_path: Path) -> None:
    done = desk("task=split", "model=squeezenet", "split.parts=4", f"split.out={tmp_path}/parts")
    assert done.status == 0, done.err
    assert "proved" in done.out
    assert not done.err
    manifest = read_manifest(tmp_path / "parts")
    assert len(manifest.parts) == 4
    assert all((tmp_path / "parts" / part.file).is_file() for part in manifest.parts)
    assert not desk.runs("split")


def test_at_named_tensors_and_positions(desk: Any, tmp_path: Path) -> None:
    file = models.save(models.chain(), tmp_path / "c.onnx")
    done = desk(
        "task=split", "model=onnx", f"model.path={file}", "split.at=[relu_2_0,6]", f"split.out={tmp_path}/parts"
    )
    assert done.status == 0, done.err
    assert read_manifest(tmp_path / "parts").cuts == (("relu_2_0",), ("relu_5_0",))


def test_at_every_cut_that_keeps_its_distance(desk: Any, tmp_path: Path) -> None:
    base = ["task=split", "model=squeezenet", "cuts=bridges", "cuts.bridge_dist=6", f"split.out={tmp_path}/parts"]
    assert "give split.parts=" in desk(*base, "split.parts=60").error
    assert "drop one of them" in desk(*base, "split.parts=2", "split.every=true").error
    done = desk(*base, "split.every=true")
    assert done.status == 0, done.err
    manifest = read_manifest(tmp_path / "parts")
    assert len(manifest.parts) > 3
    assert all(part.operators >= 6 for part in manifest.parts[1:-1])


def plan_of(*ends: int, borders: tuple[str, ...]) -> Plan:
    """A plan of parts between these positions and tensors, all on one device."""
    inputs = [("x",), *((border,) for border in borders)]
    parts = tuple(
        PlannedPart(start, stop, "cpu", 1.0, 0.0, 0.0, 0.0, 0.0, names)
        for (start, stop), names in zip(pairwise([0, *ends]), inputs, strict=True)
    )
    figures = {"return_ms": 0.0, "latency_ms": 1.0, "period_ms": 1.0, "sent_bytes": 0.0, "bound_ms": 1.0, "gap": 0.0}
    return Plan(None, Fleet({"cpu": FleetDevice()}), "latency", parts, solver="test", **figures)


def test_the_parts_of_a_plan(desk: Any, tmp_path: Path) -> None:
    file = models.save(models.chain(), tmp_path / "c.onnx")
    base = ["task=split", "model=onnx", f"model.path={file}", f"split.plan={tmp_path}/plan.json"]
    plan_of(3, 6, 8, borders=("relu_2_0", "relu_5_0")).save(tmp_path / "plan.json")
    done = desk(*base, f"split.out={tmp_path}/parts")
    assert done.status == 0, done.err
    assert read_manifest(tmp_path / "parts").cuts == (("relu_2_0",), ("relu_5_0",))
    plan_of(3, 8, borders=("conv_7",)).save(tmp_path / "plan.json")
    refused = desk(*base, f"split.out={tmp_path}/other")
    assert refused.status == 2
    assert "give the model that was placed" in refused.error
    assert not (tmp_path / "other").exists()


def test_frontiers_split_what_has_no_cuts(desk: Any, tmp_path: Path) -> None:
    b = models.Builder()
    b.op("Add", b.op("Tanh", b.op("Tanh", "x")), b.op("Tanh", "x"))
    output = b.op("Add", b.op("Mul", b.nodes[-1].output[0], "x"), "x")
    file = models.save(b.model([models.value("x", [2, 2])], [models.value(output, None)]), tmp_path / "m.onnx")
    base = ("task=split", "model=onnx", f"model.path={file}", f"split.out={tmp_path}/parts")
    refused = desk(*base)
    assert refused.status == 2
    assert "cuts=frontiers" in refused.error
    assert not (tmp_path / "parts").exists()
    assert desk(*base, "cuts=frontiers", "split.parts=3").status == 0


def test_a_split_is_logged_with_its_parts_when_asked(desk: Any, tmp_path: Path) -> None:
    file = models.save(models.chain(), tmp_path / "c.onnx")
    with ends_what_was_abandoned(desk.uri, "pepper/profiles"):
        done = desk("task=split", "model=onnx", f"model.path={file}", f"split.out={tmp_path}/parts", "split.log=true")
    assert done.status == 0, done.err
    (run,) = desk.runs("split")
    assert run.data.params["parts"] == "2"
    assert run.data.metrics["difference"] <= 1e-4
    kept = Path(run.info.artifact_uri.removeprefix("file://")) / "parts"
    assert sorted(path.name for path in kept.iterdir()) == ["manifest.json", "part_1.onnx", "part_2.onnx"]


def proof_of(folder: Path) -> str:
    return read_manifest(folder).proof


def test_a_difference_beyond_tolerance_is_an_error(desk: Any, tmp_path: Path) -> None:
    file = models.save(models.chain(), tmp_path / "c.onnx")
    base = ("task=split", "model=onnx", f"model.path={file}", f"split.out={tmp_path}/parts")
    done = desk(*base, "split.at=[conv_3_0]", "split.tolerance=0")
    assert done.status in (0, 1)
    if done.status:  # on other kernels the two may agree in every bit
        assert "first boundary that diverges" in done.error
        assert "first boundary that diverges" in proof_of(tmp_path / "parts")


def test_a_model_that_draws_random_numbers_proves_nothing(desk: Any, tmp_path: Path) -> None:
    """It gives another output each time."""
    b = models.Builder()
    noise = b.op("Add", b.op("Tanh", "x"), b.op("RandomNormal", shape=[2, 2]))
    output = b.op("Tanh", b.op("Tanh", noise))
    file = models.save(b.model([models.value("x", [2, 2])], [models.value(output, None)]), tmp_path / "m.onnx")
    done = desk("task=split", "model=onnx", f"model.path={file}", f"split.out={tmp_path}/parts")
    assert done.status == 1
    assert "not proved: parts and whole differ" in done.error
    assert proof_of(tmp_path / "parts").startswith("not proved: ")


def test_parts_that_cannot_be_run_are_not_left_looking_proved(desk: Any, tmp_path: Path) -> None:
    b = models.Builder()
    x = b.op("Relu", b.op("Neg", b.op("Gather", b.weight(4, 4), b.op("Add", "ids", b.constant(9, np.int64)))))
    file = models.save(
        b.model([models.value("ids", [8], onnx.TensorProto.INT64)], [models.value(x, [8, 4])]), tmp_path / "m.onnx"
    )
    done = desk("task=split", "model=onnx", f"model.path={file}", f"split.out={tmp_path}/parts", "output=json")
    assert done.status == 1
    assert "error: not proved: " in done.err
    assert "onnxruntime cannot run it" in done.err
    assert proof_of(tmp_path / "parts").startswith("not proved: ")
    assert json.loads(done.out)["proof"] == proof_of(tmp_path / "parts")


def test_what_crosses_may_be_read_before_the_border_too(desk: Any, tmp_path: Path) -> None:
    """There the part goes on with what it has computed, and only the next one is given noise."""
    b = models.Builder()
    low = b.op("Sub", b.op("Neg", b.op("Abs", "x")), b.constant(1, np.float32))
    beside = b.op("Tanh", low)
    output = b.op("Relu", b.op("Min", low, b.op("Mul", low, b.op("Abs", beside))))
    model = b.model([models.value("x", [1, 4])], [models.value(output, [1, 4])])
    given = ("task=split", "model=onnx", f"model.path={models.save(model, tmp_path / 'm.onnx')}")
    done = desk(*given, f"split.out={tmp_path}/parts", "split.at=[4]", "cuts=frontiers")
    assert done.status == 0, done.err
    assert "is the same whatever the input and proves nothing by itself" in done.out


def test_outputs_that_are_no_numbers_or_constant_prove_nothing(desk: Any, tmp_path: Path) -> None:
    b = models.Builder()
    low = b.op("Sub", b.op("Neg", b.op("Abs", "x")), b.constant(1, np.float32))
    outputs = {"log": b.op("Relu", b.op("Log", low)), "relu": b.op("Relu", low), "plain": b.op("Tanh", low)}
    base = ["task=split", "model=onnx", f"split.out={tmp_path}/parts", "split.at=[sub_2_0]"]
    said = {}
    for name, wanted in {"log": ["log"], "relu": ["relu"], "all": [*outputs]}.items():
        model = b.model([models.value("x", [1, 4])], [models.value(outputs[key], [1, 4]) for key in wanted])
        done = desk(*base, f"model.path={models.save(model, tmp_path / 'm.onnx')}")
        said[name] = (done.status, done.out + done.err)
    assert said["log"][0] == 1
    assert said["relu"][0] == 0, "noise on the border is told apart"
    assert f"not proved: output {outputs['log']!r} holds no finite number" in said["log"][1]
    assert f"output {outputs['relu']!r} is the same whatever the input and proves nothing by itself" in said["relu"][1]
    assert said["all"][0] == 0
    assert f"output {outputs['relu']!r} is the same whatever the input and proves nothing" in said["all"][1]
    assert f"output {outputs['log']!r} holds no finite number and proves nothing" in said["all"][1]


def _bad(name: str, folder: Path) -> Path:
    file = folder / "m.onnx"
    model = models.chain()
    if name == "text":
        file.write_text("hello")
        return file
    if name == "truncated":
        content = models.LIGHT_MODELS[0].read_bytes()
        file.write_bytes(content[: len(content) // 2])
        return file
    if name == "cyclic":
        model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    if name == "domain":
        model.graph.node[2].domain = "com.acme"
        model.opset_import.append(helper.make_opsetid("com.acme", 1))
    if name in ("missing", "escaping"):
        models.save(model, file, external=True)
        weights = folder / "m.onnx.data"
        weights.rename(folder.parent / weights.name)
        model = onnx.load(str(file), load_external_data=False)
        if name == "escaping":
            for tensor in model.graph.initializer:
                tensor.external_data[0].value = f"../{weights.name}"
    return models.save(model, file)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text", "not"),
        ("truncated", "truncated"),
        ("cyclic", "cycle"),
        ("missing", "missing"),
        ("escaping", "outside the model's folder"),
        ("domain", "unknown domain"),
    ],
)
def test_bad_models_are_refused_in_a_line(name: str, message: str, desk: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = _bad(name, folder)
    done = desk("task=split", "model=onnx", f"model.path={file}", f"split.out={tmp_path}/parts")
    assert done.status == 2
    assert message in done.error
    assert not list(tmp_path.glob("*parts*"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split.at=[relu_3_0]"], "did you mean"),
        (["split.at=[99]"], "positions 1 to 11"),
        (["split.parts=99"], "enough for"),
        (["split.parts=0"], "split.parts=0"),
        (["split.parts=2", "split.at=[relu_2_0]"], "drop one of them"),
        (["cuts.kind=bridge"], "did you mean 'bridges'"),
        (["split.out=null"], "split.out"),
        (["split.out=/proc/parts"], "split.out=/proc/parts: cannot be written ("),
    ],
)
def test_bad_wishes_are_refused_in_a_line(overrides: list[str], message: str, desk: Any, tmp_path: Path) -> None:
    file = models.save(models.chain(), tmp_path / "c.onnx")
    out = [] if "split.out" in overrides[0] else [f"split.out={tmp_path}/parts"]
    done = desk("task=split", "model=onnx", f"model.path={file}", *out, *overrides)
    assert done.status == 2
    assert message in done.error
    assert not list(tmp_path.glob("*parts*"))


def advised(said: str) -> list[str]:
    """The settings that a refusal advises."""
    return re.findall(r"\w[\w.]*=[\w.]+", said.rpartition("; ")[2])


def narrow(kind: str) -> onnx.ModelProto:
    """Models that cannot be split as they are asked to be by default."""
    b = models.Builder()
    if kind == "no operators":
        return b.model([models.value("x", [2])], [models.value(b.op("Identity", b.weight(2)), [2])])
    if kind == "one operator":
        return b.model([models.value("x", [2])], [models.value(b.op("Relu", "x"), None)])
    if kind == "a sequence":
        y = b.op("ConcatFromSequence", b.op("SequenceConstruct", "x", "x"), axis=0)
        return b.model([models.value("x", [2])], [models.value(y, None)])
    pieces = [f"piece{n}" for n in range(6)]  # more than cuts=frontiers allows by default
    b.op("Split", "x", b.constant([1] * 6, np.int64), outputs=pieces)
    return b.model([models.value("x", [6])], [models.value(b.op("Concat", *pieces, axis=0), None)])


@pytest.mark.parametrize("kind", ["no operators", "one operator", "a sequence", "wide"])
def test_advice_for_models_that_fall_into_few_parts_works(kind: str, desk: Any, tmp_path: Path) -> None:
    file = models.save(narrow(kind), tmp_path / "m.onnx")
    command = ("task=split", "model=onnx", f"model.path={file}", f"split.out={tmp_path}/parts")
    for given in ([], ["cuts=frontiers"]):
        refused = desk(*command, *given)
        assert refused.status == 2
        settings = advised(refused.error)
        assert settings[0].startswith("cuts=frontiers" if kind == "wide" else "split.parts=1"), refused.error
        done = desk(*command, *settings)
        assert done.status == 0, done.err
    listed = desk("task=cuts", "model=onnx", f"model.path={file}")
    assert listed.status == 0, listed.err
    if kind == "wide":
        assert "cuts.max_tensors=6" in listed.out
