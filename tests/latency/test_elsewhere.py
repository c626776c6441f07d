import math
from pathlib import Path

import onnx
import pytest
from harness import mlp
from hypothesis import given
from hypothesis import strategies as st

from pepper.errors import LatencyError
from pepper.latency import elsewhere
from pepper.latency.elsewhere import UNITS, Line, describe, read

HEADER = "model,device,threads,provider,load,latency,unit,samples,device_gflops\n"


def table(folder: Path, text: str) -> Path:
    file = folder / "rows.csv"
    file.write_text(text)
    return file


def test_a_measurement_is_read_with_its_unit_and_its_device(tmp_path: Path) -> None:
    file = table(tmp_path, HEADER + "m.onnx,phone,4,TFLite,cpu50,1500,us,20,12.5\nm.onnx,phone,,,,2,s,,\n")
    (one, other), bad = read(file)
    assert not bad
    assert one == Line(2, "m.onnx", "phone", 1.5, 4, "TFLite", 50.0, 20, facts={"device_gflops": 12.5})
    assert (other.latency_ms, other.threads, other.load, other.samples) == (2000, 1, "idle", None)


@given(
    latency=st.floats(1e-3, 1e6),
    unit=st.sampled_from(sorted(UNITS)),
    device=st.text(st.characters(categories=("L", "N", "P"), max_codepoint=1000), min_size=1),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, latency: float, unit: str, device: str
) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows = [{"model": "a.onnx", "device": device, "latency": latency, "unit": unit, "load": "cpu25"}]
    assert elsewhere.write(rows, file) == 1
    (line,), bad = read(file)
    assert not bad
    assert line.device == device.strip()
    assert math.isclose(line.latency_ms, latency * UNITS[unit])


def test_every_bad_line_is_said(tmp_path: Path) -> None:
    bad_lines = {
        "m.onnx,phone,1,,idle,-3,ms,,": "line 3: latency -3: must be above 0",
        "m.onnx,phone,1,,idle,3,hours,,": "line 4: unit 'hours': must be one of ns, us, ms, s",
        "m.onnx,phone,0,,idle,3,ms,,": "line 5: threads '0': must be a whole number of at least 1",
        "m.onnx,phone,1,,busy,3,ms,,": "line 6: load 'busy': must be idle, or cpu and a percentage such as cpu50",
        "m.onnx,phone,1,,idle,nan,ms,,": "line 7: latency nan: must be above 0",
        "m.onnx,,1,,idle,3,ms,,": "line 8: no device",
        "m.onnx,phone,1": "line 9: 3 values for 9 columns",
        "m.onnx,phone,1,,idle,3,ms,2.5,": "line 10: samples '2.5': must be a whole number of at least 1",
        "m.onnx,phone,1,,idle,3,ms,,fast": "line 11: device_gflops 'fast': must be a number",
    }
    file = table(tmp_path, HEADER + "m.onnx,phone,1,,idle,3,ms,,\n" + "\n".join(bad_lines))
    good, bad = read(file)
    assert [line.number for line in good] == [2]
    assert bad == list(bad_lines.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,device,latency,units\n", "unknown column 'units'; did you mean 'unit'"),
        ("model,device,latency\n", "has no column unit"),
        ("model,device,device,latency,unit\n", "two columns have one name"),
        ("", "has no column model, device, latency, unit"),
    ],
)
def test_a_file_of_other_columns_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(LatencyError, match=said):
        read(table(tmp_path, text))


def test_models_are_known_by_path_by_hash_and_by_their_description(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(mlp(), path)
    [(line, model)], bad = describe([Line(2, str(path), "phone", 1.0)], {})
    assert not bad
    sha256 = model.params["model_sha256"]
    known = {sha256: model.params}
    told = model.params["characteristics"]
    gone = Line(3, "/gone/m.onnx", "phone", 1.0, sha256=sha256, characteristics=told)
    lines = [Line(3, sha256, "phone", 1.0), gone, Line(5, "f" * 64, "phone", 1.0), Line(6, "/gone.onnx", "phone", 1.0)]
    found, bad = describe([*lines, Line(7, str(path), "phone", 1.0, sha256="0" * 64)], known)
    assert [each.number for each, _ in found] == [3, 3]
    assert all(each.params["characteristics"] == told for _, each in found)
    assert [said.split(":")[0] for said in bad] == ["line 5", "line 6", "line 7"]
    assert "no model of this hash was measured here" in bad[0]
    assert "is another model" in bad[2]
    (again,), bad = describe([gone], {})
    assert not bad
    assert again[1].params["characteristics"] == told
    assert elsewhere.identity(line, model) == elsewhere.identity(Line(9, str(path), "phone", 1.0), model)
