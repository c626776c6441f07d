"""``task=place place.variants=[...]``: parts in other precisions, chosen, made, run and held to a limit."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import Desk, MakeDesk

from pepper.config.placing import Precision
from pepper.devices import host
from pepper.graph.manifest import read_manifest
from pepper.hosts.local import LocalHost
from pepper.placement.plan import Plan
from tests.tasks import champion
from tests.tasks.test_place_branches import TWINS, towers

SPEEDUP = 4.0
SHAPE = (1, 3, 64, 64)


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose devices multiply 8-bit matrices four times as fast as others, and half-precision ones not at all."""
    with (
        champion.furnished(make_desk(tmp_path_factory.mktemp("precisions") / "desk"), errors=(0.0,)) as made,
        pytest.MonkeyPatch.context() as patch,
    ):

        def calibrate(self: LocalHost, spec: Any, *, renew: bool = False) -> Any:
            return replace(champion.calibrated(spec), int8_gops=SPEEDUP * champion.calibrated(spec).gflops)

        patch.setattr(LocalHost, "calibrate", calibrate)
        yield made


def place(desk: Desk, *overrides: str) -> Any:
    return desk("task=place", "model=net", "fleet=pair", "link=same_host", *overrides)


def test_parts_in_8_bits_are_chosen_made_and_run(desk: Desk, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = place(
        desk,
        "place.variants=[fp32,int8]",
        "place.pinned.camera=2",
        "place.confidence=0",
        "place.split=true",
        "place.execute=true",
        "execute.trials.seconds=0.1",
        "execute.trials.min_requests=5",
        f"place.out={out}",
    )
    assert done.status == 0, done.out + done.err
    assert "precision" in done.out
    assert "measured on 4 random samples (place.max_error=0.1); of other inputs it is not known" in done.out
    assert "place.max_error accepts 0.1" in done.out
    plan = Plan.load(out / "plan.json")
    assert Precision.int8 in plan.precisions
    assert plan.accuracy is not None
    assert 0 < plan.accuracy.error <= plan.accuracy.max_error == 0.1
    manifest = read_manifest(out / "parts")
    assert tuple(part.precision for part in manifest.parts) == plan.precisions
    weights = onnx.load(str(out / "parts" / manifest.parts[plan.precisions.index(Precision.int8)].file))
    assert any(node.op_type == "QuantizeLinear" for node in weights.graph.node)
    again = desk("task=split", "model=net", f"split.plan={out}/plan.json", f"split.out={tmp_path}/again")
    assert again.status == 0, again.err
    assert [part.precision for part in read_manifest(tmp_path / "again").parts] == list(plan.precisions)
    plain = desk("task=split", "model=net", f"split.at=[{plan.parts[-1].start}]", f"split.out={tmp_path}/plain")
    assert plain.status == 0, plain.err
    done = desk("task=execute", f"execute.plan={out}/plan.json", f"execute.parts={tmp_path}/plain")
    assert done.status == 2
    assert "holds parts in fp32" in done.err or "holds parts cut at" in done.err
    done = desk("task=execute", f"execute.plan={out}/plan.json", "execute.moves.allowed=true")
    assert done.status == 2
    assert "some of this plan's run in int8" in done.err


def test_the_limit_on_the_error_is_kept(desk: Desk, tmp_path: Path) -> None:
    quick, kept = (
        (
            place(desk, f"place.variants={variants}", f"place.max_error={limit}", f"place.out={tmp_path}/{variants}"),
            Plan.load(tmp_path / variants / "plan.json"),
        )
        for variants, limit in (("[int8]", 0.1), ("[fp32,int8]", 1e-9))
    )
    assert quick[0].status == kept[0].status == 0, quick[0].err + kept[0].err
    assert quick[1].latency_ms < kept[1].latency_ms
    assert quick[1].parts[0].memory_bytes < kept[1].parts[0].memory_bytes
    assert set(quick[1].precisions) == {Precision.int8}
    assert set(kept[1].precisions) == {Precision.fp32}
    assert kept[1].accuracy is None
    assert "the quickest plan breaks it" in kept[0].out
    assert kept[1].gap > 0, "the bound is that of all plans"
    done = place(desk, "place.variants=[int8]", "place.max_error=1e-9")
    assert done.status == 2
    assert "raise it, or allow fp32 in place.variants, too" in done.err


@pytest.mark.skipif(len(host.allowed_cores()) < 2, reason="two devices need two cores")
def test_branches_run_in_8_bits_side_by_side(desk: Desk, tmp_path: Path) -> None:
    onnx.save(towers(), desk.folder / "towers.onnx")
    (desk.options / "fleet" / "twins.yaml").write_text(TWINS)
    done = desk(
        *("task=place", "model=onnx", f"model.path={desk.folder}/towers.onnx", "fleet=twins", "link=same_host"),
        *("place.graph=dag", "place.variants=[fp32,int8]", "place.confidence=0", "place.time_limit_seconds=5"),
        *("place.execute=true", "execute.trials.seconds=0.1", "execute.trials.min_requests=5"),
        f"place.out={tmp_path}/out",
    )
    assert done.status == 0, done.out + done.err
    plan = Plan.load(tmp_path / "out" / "plan.json")
    assert plan.graph == "dag"
    assert set(plan.devices) == {"left", "right"}
    assert Precision.int8 in plan.precisions
    assert plan.accuracy is not None
    assert "largest difference to the whole model: 0.0" in done.out


def test_a_precision_that_no_device_has_is_named(desk: Desk) -> None:
    done = place(desk, "place.variants=[fp32,fp16]")
    assert done.status == 0, done.err
    assert "warning: fp16: not on camera, server" in done.out
    done = place(desk, "place.variants=[fp16]")
    assert done.status == 2
    assert "place.variants=[fp16]: not on camera, server" in done.err


def test_own_samples_are_what_it_is_measured_on(desk: Desk, tmp_path: Path) -> None:
    file, out = tmp_path / "mine.npz", tmp_path / "out"
    np.savez(file, input=np.random.default_rng(0).random((3, *SHAPE), np.float32))
    done = place(desk, "place.variants=[int8]", f"place.calibration={file}", f"place.out={out}")
    assert done.status == 0, done.err
    assert f"measured on 3 samples of {file}" in done.out
    np.savez(file, input=np.zeros((3, *SHAPE), np.float32))
    done = desk("task=split", "model=net", f"split.plan={out}/plan.json", f"split.out={tmp_path}/parts")
    assert done.status == 2
    assert "which is gone or has changed; place the model again" in done.err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("place.variants=[int4]", "place.variants"),
        ("place.variants=[]", "place.variants=[]: leaves none; give some of [fp32,fp16,int8]"),
        ("place.max_error=0", "place.max_error"),
        ("place.models=[net,other]", "place.variants=[int8]: several models are placed in their own precisions"),
        ("place.calibration=nowhere.npz", "place.calibration=nowhere.npz: cannot be read (no such file)"),
    ],
)
def test_what_cannot_be_is_refused(desk: Desk, override: str, said: str) -> None:
    done = place(desk, *([] if "variants" in override else ["place.variants=[int8]"]), override)
    assert done.status == 2
    assert said in done.err
    assert done.err.count("\n") == 1
