"""A device that is not at hand, through the command line: what to measure there, what ten latencies say, and asking."""

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from champion import convnet, register
from harness import Desk

from pepper.latency import elsewhere

SLOWER = 7.0


def latency_ms(depth: int, channels: int) -> float:
    """A phone that takes 7 ms for a GMAC of these networks, and 0.01 ms an operator."""
    total, before = 0.0, 3
    for layer in range(depth):
        side = 64 // 2 ** ((layer + 1) // 2)
        total += before * channels * 9 * side**2
        before = channels
    return SLOWER * total / 1e9 + 0.02 * depth


@pytest.fixture
def phone(desk: Desk, tmp_path: Path) -> Path:
    """A champion, and a file of ten latencies of models, without the champion's calibrated devices."""
    register(desk, [0.0])
    file = tmp_path / "phone.csv"
    rows = []
    for number, (depth, channels) in enumerate([(2, 8), (2, 32), (4, 16), (4, 64), (6, 8), (6, 32), (8, 16), (8, 64)]):
        model = tmp_path / f"net{number}.onnx"
        onnx.save(convnet(depth, channels), model)
        rows.append({"model": str(model), "device": "phone", "latency": latency_ms(depth, channels), "unit": "ms"})
    elsewhere.write(rows, file)
    onnx.save(convnet(6, 48), tmp_path / "asked.onnx")
    return file


def test_a_device_is_learned_from_a_file_and_asked_about(desk: Desk, phone: Path) -> None:
    learned = desk("task=adapt", f"adapt.csv={phone}")
    assert learned.status == 0, learned.err
    assert "phone: 8 latencies; each, left out, is" in learned.out
    asked = ("task=predict", "predict.device=phone", "model=onnx", f"model.path={phone.parent}/asked.onnx")
    said = json.loads(desk(*asked, "output=json").out)
    assert said["adapted_with"] == 8
    assert said["low_ms"] < said["p50_ms"] < said["high_ms"]
    assert said["p50_ms"] == pytest.approx(latency_ms(6, 48), rel=0.3)
    assert said["explanation"] is None
    assert "drop predict.device=phone" in desk(*asked, "predict.explain=true").error
    assert "only idle latencies are known" in desk(*asked, "load=cpu50").error
    assert "did you mean 'phone'" in desk(*asked[:1], "predict.device=phon", *asked[2:]).err


def test_what_to_measure_is_proposed_before(desk: Desk, phone: Path) -> None:
    desk("task=import", f"import.csv={phone}")
    wanted = phone.parent / "wanted.csv"
    said = desk("task=adapt", f"adapt.propose={wanted}", "adapt.measurements=4", "adapt.device=board")
    assert said.status == 0, said.err
    with wanted.open() as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["model"] for row in rows}) == 4
    assert all(row["device"] == "board" and not row["latency"] for row in rows)
    assert all(Path(row["model"]).is_file() for row in rows)
    for number, row in enumerate(rows, 1):
        row["latency"] = str(number)
    elsewhere.write(rows, wanted)
    assert "board: 4 latencies" in desk("task=adapt", f"adapt.csv={wanted}").out


def test_latencies_that_contradict_each_other_are_said(desk: Desk, phone: Path) -> None:
    with phone.open() as stream:
        rows = list(csv.DictReader(stream))
    for row, factor in zip(rows, np.exp(2 * np.random.default_rng(0).standard_normal(len(rows))), strict=True):
        row["latency"] = str(float(row["latency"]) * factor)
    elsewhere.write(rows, phone)
    assert "behaves like no device that was seen" in desk("task=adapt", f"adapt.csv={phone}").out


def test_several_devices_are_told_apart(desk: Desk, phone: Path) -> None:
    text = phone.read_text()
    phone.write_text(text + text.splitlines(keepends=True)[1].replace(",phone,", ",board,"))
    assert "has 2 devices; give adapt.device=... (board, phone)" in desk("task=adapt", f"adapt.csv={phone}").error
    assert "not in" in desk("task=adapt", f"adapt.csv={phone}", "adapt.device=tablet").error
    assert "1 idle latencies" in desk("task=adapt", f"adapt.csv={phone}", "adapt.device=board").err
