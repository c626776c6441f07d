"""Measurements from elsewhere, through the command line: imported, exported, and left out of what they cannot teach."""

from pathlib import Path

import onnx
import pytest
from harness import Desk, MakeDesk, mlp

HEADER = "model,device,threads,latency,unit,samples,source,device_gflops,device_memory_gbps\n"


def rows(folder: Path, *lines: str) -> Path:
    file = folder / "rows.csv"
    file.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return file


def test_measurements_from_elsewhere_are_logged_once_and_go_out_again(desk: Desk, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(mlp(), model)
    file = rows(tmp_path, f"{model},phone,4,2.5,ms,30,benchmark_model,20,8", f"{model},board,1,9000,us,,,,")
    first = desk("task=import", f"import.csv={file}")
    assert first.status == 0, first.err
    assert "logged 2 measurements of 2 devices" in first.out
    assert "logged 0 measurements of 2 devices" in desk("task=import", f"import.csv={file}").out
    phone, board = sorted(desk.runs(), key=lambda run: run.data.metrics["latency_p50_ms"])
    assert (phone.data.params["imported_from"], phone.data.params["source"]) == ("rows.csv:2", "benchmark_model")
    assert (phone.data.metrics["samples"], phone.data.tags["pepper.trust"]) == (30, "stated, not verified")
    assert (board.data.metrics["latency_p50_ms"], board.data.params["device"]) == (9, "board")

    runs = f"compare.baseline={phone.info.run_id}", f"compare.candidate={board.info.run_id}"
    assert "was measured elsewhere, so there are no samples of it" in desk("task=compare", *runs).error

    out = tmp_path / "out.csv"
    assert "wrote 2 measurements" in desk("task=export_data", f"export_data.csv={out}").out
    model.unlink()
    lines = out.read_text().replace(",phone,", ",tablet,").splitlines(keepends=True)
    out.write_text("".join(lines))
    again = desk("task=import", f"import.csv={out}")
    assert again.status == 0, again.err  # the rows say what the model is like
    assert {run.data.params["device"] for run in desk.runs()} == {"phone", "board", "tablet"}


def test_a_part_goes_out_and_comes_back_as_a_part_of_its_model(desk: Desk, make_desk: MakeDesk, tmp_path: Path) -> None:
    measured = desk("model=conv", "model.part=0", "device=local")
    assert measured.status == 0, measured.err
    out = tmp_path / "out.csv"
    assert desk("task=export_data", f"export_data.csv={out}").status == 0
    assert "/" not in out.read_text().splitlines()[1].split(",")[0], "no path of a cache"
    other = make_desk(tmp_path / "other")
    taken = other("task=import", f"import.csv={out}")
    assert taken.status == 0, taken.err
    (there,), (here,) = other.runs(), desk.runs()
    for name in ("model", "model_sha256", "family", "family_sha256"):
        assert there.data.params[name] == here.data.params[name], name
    assert there.data.params["family_sha256"] != there.data.params["model_sha256"]


def test_bad_lines_are_listed_and_good_ones_kept_only_if_asked(desk: Desk, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(mlp(), model)
    file = rows(tmp_path, f"{model},phone,4,2.5,ms,,,,", f"{model},phone,4,-1,ms,,,,", "gone.onnx,phone,4,1,ms,,,,")
    refused = desk("task=import", f"import.csv={file}")
    assert refused.status == 2
    said = refused.err.strip().splitlines()
    assert len(said) == 3
    assert "line 3: latency -1: must be above 0" in said[0]
    assert "line 4: model.path=gone.onnx: no such file" in said[1]
    assert "2 of 3 lines are bad, nothing was taken" in said[2]
    assert not desk.runs()
    kept = desk("task=import", f"import.csv={file}", "import.keep_good=true")
    assert kept.status == 1
    assert "logged 1 measurements" in kept.out
    assert len(desk.runs()) == 1


def test_a_device_of_unknown_speed_does_not_train(desk: Desk, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(mlp(), model)
    desk("task=import", f"import.csv={rows(tmp_path, f'{model},board,1,9,ms,,,,')}")
    assert "on a device of unknown speed" in desk("task=train").error


@pytest.mark.slow
def test_a_latency_model_learns_from_imported_rows_alone(desk: Desk, tmp_path: Path) -> None:
    header = "model,device,threads,load,latency,unit,device_gflops,device_memory_gbps,device_cores\n"
    lines = []
    for width in (64, 96, 128, 160, 192, 224):
        model = tmp_path / f"m{width}.onnx"
        onnx.save(mlp(width), model)
        for device, gflops in (("board", 10), ("server", 100)):
            for load, factor in (("idle", 1), ("cpu50", 2)):
                latency_us = (20 + 4 * width * width / gflops / 1e3) * factor
                lines.append(f"{model},{device},1,{load},{latency_us:g},us,{gflops},{gflops / 5},1\n")
    file = tmp_path / "rows.csv"
    file.write_text(header + "".join(lines))
    assert desk("task=import", f"import.csv={file}").status == 0
    trained = desk("task=train", "tuning.trials=1", "tuning.folds=2")
    assert trained.status == 0, trained.err
    assert "24 measurements of 6 models on 2 devices under 2 loads" in trained.out
    assert "version 1 is the champion" in desk("task=promote").out
    said = desk("task=predict", "model=onnx", f"model.path={tmp_path / 'm128.onnx'}", "device=share100")
    assert "by pepper-latency version 1" in said.out, said.err
