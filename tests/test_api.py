"""``import pepper``: light until it is used, then the same as the tasks, as data frames."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import QUICK, ROOT, Desk

import pepper
from pepper.errors import ConfigError, MeasureError, ModelError, TrackingError

QUICKLY = ("device=share100", *QUICK)


def tracking(desk: Desk) -> tuple[str, ...]:
    store = f"{desk.folder}/mlruns"
    return f"tracking.uri={desk.uri}", f"tracking.artifacts={store}/artifacts", f"tracking.folder={store}"


def test_importing_it_imports_nothing_else() -> None:
    program = (
        "import sys, pepper;"
        "print({name.split('.')[0] for name in sys.modules} - {'__main__', *sys.stdlib_module_names})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run([sys.executable, "-S", "-c", program], env=environment, capture_output=True, text=True)
    assert shown.stdout.strip() == "{'pepper'}", shown.stderr
    assert "load" in dir(pepper)


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pepper.nothing


def test_cuts_and_parts_as_frames(models: dict[str, Path]) -> None:
    model = pepper.load(models["small"])
    cuts = model.cuts()
    assert [cut.tensors for cut in cuts] == [["h"], ["r"]]
    assert list(cuts.to_frame()["bytes"]) == [96, 96]
    parts = model.parts(2)
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert sum(part.operators for part in parts) == 3
    assert parts[0].inputs == ["input"]
    assert "<table" in parts._repr_html_()


def test_odd_names_are_no_html(models: dict[str, Path], tmp_path: Path) -> None:
    row = pepper.load(models["tiny"]).parts(1)[0]
    odd = type(row)(1, 1.0, 1.0, ["<script>alert(1)</script>"], [4])
    assert "<script>" not in odd._repr_html_()


def test_models_by_option_address_and_size(models: dict[str, Path]) -> None:
    assert pepper.load("squeezenet").config.name == "squeezenet"
    assert len(pepper.load("squeezenet").cuts("bridges")) < len(pepper.load("squeezenet").cuts())
    assert pepper.load("variant://3").graph.operators
    dynamic = pepper.load(models["dynamic"], dims={"N": 4})
    assert dynamic.cuts()[0].shapes == [[4, 16]]
    with pytest.raises(ConfigError, match="did you mean 'squeezenet'"):
        pepper.load("squeezent")
    with pytest.raises(ModelError, match="no such file"):
        pepper.load("nowhere.onnx").cuts()


def test_profile(desk: Desk, models: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = pepper.load(models["tiny"], name="mine")
    profile = model.profile(*QUICKLY, *tracking(desk), load="cpu25")
    assert (profile.model, profile.device, profile.load) == ("mine", "share100", "cpu25")
    assert profile.low_ms <= profile.p50_ms <= profile.high_ms
    assert profile.metrics["samples"] >= 5
    (run,) = desk.runs()
    assert profile.run_id == run.info.run_id
    assert profile.to_frame()["p50_ms"][0] == profile.p50_ms
    assert capsys.readouterr() == ("", ""), "a notebook is told by the result"
    with pytest.raises(MeasureError, match="Frobnicate"):
        pepper.load(models["unknown"]).profile(*QUICKLY, *tracking(desk))


def test_mistakes(desk: Desk, models: dict[str, Path]) -> None:
    model = pepper.load(models["tiny"])
    with pytest.raises(ConfigError, match="did you mean 'share50'"):
        model.profile(device="share5")
    with pytest.raises(ConfigError, match=r"device\.thread.*did you mean 'threads'"):
        model.profile("device.thread=1")
    with pytest.raises(ConfigError, match=r"pepper\.load another one"):
        model.profile(model="resnet50")
    for text in ("++model.batch=2", "~sweep", "task=train"):
        with pytest.raises(ConfigError, match=re.escape(text)):
            model.profile(text)
    with pytest.raises(TrackingError, match="has no version 7"):
        model.predict("latency.version=7", *tracking(desk))
