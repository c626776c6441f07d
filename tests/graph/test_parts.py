import shutil
from pathlib import Path

import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepper.config import ModelConfig
from pepper.errors import ModelError
from pepper.graph.load import load_graph
from pepper.graph.manifest import MANIFEST
from pepper.graph.model import find_model
from pepper.graph.parts import choose_parts, grid_parts

RESNET = "pkg://onnx/backend/test/data/light/light_resnet50.onnx"


@given(st.integers(1, 60), st.integers(1, 30), st.integers(0, 5))
def test_parts_differ_lie_between_cuts_and_keep_their_numbers(steps: int, count: int, seed: int) -> None:
    positions = list(range(0, 3 * steps + 1, 3))
    parts = choose_parts(positions, count, seed)
    assert len(set(parts)) == len(parts) <= min(count, steps * (steps + 1) // 2)
    assert all(start in positions and end in positions and start < end for start, end in parts)
    assert choose_parts(positions, max(1, count // 2), seed) == parts[: max(1, count // 2)]


def test_parts_fill_the_space() -> None:
    parts = np.array(choose_parts(list(range(101)), 40))
    lengths, starts = parts[:, 1] - parts[:, 0], parts[:, 0]
    assert 10 < np.sum(lengths <= 10) < 30  # log scale: half of them
    assert np.sum(starts < 25) > 5
    assert np.sum(starts >= 50) > 5
    assert choose_parts(list(range(101)), 5, seed=0) != choose_parts(list(range(101)), 5, seed=1)


def test_a_part_is_a_model_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = [find_model(ModelConfig(path=RESNET, name="resnet50", part=number)) for number in range(4)]
    for model in found:
        start, end = map(int, model.name.removeprefix("resnet50[").rstrip("]").split(":"))
        assert len(load_graph(model.file, shapes=model.shapes).operators) == end - start
    assert len({model.content_hash for model in found}) == 4
    assert find_model(ModelConfig(path=RESNET, name="resnet50", part=0)) == found[0]


def test_a_part_is_kept_for_what_it_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = models.save(models.chain(batch="n"), tmp_path / "m.onnx")
    one, many = (find_model(ModelConfig(path=str(file), name="m", part=0, batch=batch)) for batch in (1, 64))
    assert [next(iter(model.shapes.values()))[0] for model in (one, many)] == [1, 64]
    assert one.content_hash != many.content_hash
    models.save(models.chain(length=5, batch="n"), file)
    assert find_model(ModelConfig(path=str(file), name="m", part=0, batch=1)).file != one.file


@pytest.mark.parametrize("damage", ["swapped", "half", "gone", "manifest", "weights"])
def test_a_part_that_is_not_as_it_was_written_is_made_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = models.save(models.chain(), tmp_path / "m.onnx", external=True)
    config = ModelConfig(path=str(file), name="m", part=0)
    found = find_model(config)
    if damage == "swapped":
        other = find_model(ModelConfig(path=str(file), name="m", part=1))
        shutil.copy(other.file, found.file)
    elif damage == "half":
        found.file.write_bytes(found.file.read_bytes()[:100])
    elif damage == "gone":
        found.file.unlink()
    elif damage == "manifest":
        (found.file.parent / MANIFEST).unlink()
    else:
        weights = found.file.with_name(f"{found.file.name}.data")
        weights.write_bytes(bytes(len(weights.read_bytes())))
    assert find_model(config) == found


def test_a_number_beyond_the_last_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = models.save(models.chain(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"model.part=999: .* has only \d+ different parts"):
        find_model(ModelConfig(path=str(file), part=999))


def test_a_grid_has_every_run_of_its_elements() -> None:
    assert grid_parts([0, 3, 7, 9]) == [(0, 9), (0, 7), (3, 9), (0, 3), (3, 7), (7, 9)]


def test_parts_of_a_grid_share_their_borders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = [find_model(ModelConfig(path=RESNET, name="r", part=number, grid=3)).name for number in range(6)]
    borders = [tuple(map(int, name.removeprefix("r[").rstrip("]").split(":"))) for name in found]
    assert borders == grid_parts(sorted({position for part in borders for position in part}))
    with pytest.raises(ModelError, match=r"model.part=6: .* has only 6 different parts"):
        find_model(ModelConfig(path=RESNET, name="r", part=6, grid=3))
