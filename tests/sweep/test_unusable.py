"""Devices that cannot be set up, caches that cannot be written, keys that only the sweep gives."""

from pathlib import Path
from typing import Any

import pytest
from harness import Desk

from pepper.devices import throttle
from pepper.tasks import profile


def test_a_device_that_cannot_be_set_up_fails_its_own_cells(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no_cgroups").mkdir()
    monkeypatch.setattr(throttle.cpu_quota, "__defaults__", (tmp_path / "no_cgroups",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # not calibrated before
    desk.sweep(
        "methods",
        "# Two throttles.\nname: methods\naxes:\n  model: [tiny]\n  device: [share50]\n"
        "  device.throttle: [cgroup, suspend]\n  load: [idle, cpu50]\n",
    )
    done = desk("+sweep=methods")
    assert done.status == 1
    statuses = sorted((run.data.params["throttle"], run.info.status) for run in desk.runs())
    assert statuses == [("cgroup", "FAILED")] * 2 + [("suspend", "FINISHED")] * 2
    assert done.err.count("no writable cgroup cpu controller") >= 2
    alone = desk("model=tiny", "device=share50", "device.throttle=cgroup")
    assert alone.status == 2
    assert "set device.throttle=suspend" in alone.error


@pytest.mark.parametrize(
    "command", [["model=tiny", "device=share100"], ["task=cuts", "model=variants"], ["model=tiny", "model.part=0"]]
)
def test_a_cache_that_cannot_be_written_is_said_in_a_line(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = desk(*command)
    assert done.status == 2
    assert "cannot be written" in done.error
    assert "set XDG_CACHE_HOME" in done.error


def test_a_key_that_only_the_sweep_gives(desk: Desk, models: dict[str, Path]) -> None:
    files = [str(models[name]) for name in ("tiny", "small")]
    desk.sweep("files", f"# Files.\nname: files\naxes:\n  model.path: [{', '.join(files)}]\n  device: [share100]\n")
    done = desk("+sweep=files", "model=onnx")
    assert done.status == 0, done.err
    assert sorted(run.data.params["model"] for run in desk.runs()) == ["small", "tiny"]


def test_a_model_that_changes_during_a_sweep_fails_its_own_cells(
    desk: Desk, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.folder / "changing.onnx"
    file.write_bytes(models["tiny"].read_bytes())
    desk.sweep(
        "files",
        f"# Files.\nname: files\naxes:\n  model.path: [{file}, {models['small']}]\n  device: [share100]\n"
        "  load: [idle, cpu50]\n",
    )
    measure = profile.run

    def exported_meanwhile(*args: Any) -> None:
        file.write_bytes(models["small"].read_bytes())
        measure(*args)

    monkeypatch.setattr(profile, "run", exported_meanwhile)
    done = desk("+sweep=files", "model=onnx")
    assert done.status == 1
    assert f"{file}: was changed meanwhile" in done.err
    statuses = sorted((run.data.params["model"], run.info.status) for run in desk.runs())
    assert statuses == [("changing", "FAILED")] * 2 + [("small", "FINISHED")] * 2
