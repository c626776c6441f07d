"""Axes become cells, cells have identities, and the order is random but repeatable."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, composed
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from pepper import config
from pepper.config.composing import Composition
from pepper.devices.cores import resolve
from pepper.errors import ConfigError
from pepper.graph.inputs import input_spec
from pepper.graph.model import ModelFile
from pepper.sweep.axes import plan
from pepper.sweep.cells import Cell
from pepper.sweep.runner import blocks


def cells_of(axes: dict[str, list[Any]], *overrides: str, counted: list[Sequence[str]] | None = None) -> list[Cell]:
    """Plan a sweep over these axes."""

    def compose_one(changed: Sequence[str]) -> Any:
        if counted is not None:
            counted.append(changed)
        return compose("run", overrides=list(changed))

    config.register()
    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        cfg = config.typed(compose("run", overrides=["+sweep=loads", *overrides]))
        assert cfg.sweep is not None
        cfg.sweep.axes = axes
        return plan(Composition(cfg, overrides, compose_one))


def facts(cells: list[Cell]) -> list[tuple[Any, ...]]:
    return [(c.model_config.name, c.device.name, c.device.threads, c.load.name) for c in cells]


def test_without_a_sweep_there_is_one_cell() -> None:
    one = composed("model=alexnet", "load=cpu25")
    cell = plan(Composition(one, (), lambda changed: pytest.fail("nothing to compose")))
    assert facts(cell)[0][0] == "alexnet"
    assert len(cell) == 1


def test_cells_are_the_product_of_the_axes() -> None:
    cells = cells_of({"model": ["squeezenet", "alexnet"], "device": ["share50", "share25"], "load": ["idle", "cpu50"]})
    assert len(facts(cells)) == len(set(facts(cells))) == 8
    assert len({cell.identity for cell in cells}) == 8


def test_each_option_is_composed_once() -> None:
    counted: list[Sequence[str]] = []
    loads = ["idle", "cpu25", "cpu50", "cpu75", "cpu90"]
    cells = cells_of({"model": ["squeezenet", "alexnet"], "load": loads, "device.threads": [1]}, counted=counted)
    assert len(cells) == 10
    assert len(counted) <= 2 + 5 + 1


def test_an_option_that_stands_in_an_axis_again_and_again_is_composed_once() -> None:
    counted: list[Sequence[str]] = []
    axes = {"model": ["squeezenet"], "load": ["idle", *["cpu50"] * 1000], "device.threads": [1] * 1000}
    assert len(cells_of(axes, counted=counted)) == 2
    assert len(counted) <= 1 + 2 + 1


def test_a_key_is_an_axis_too() -> None:
    cells = cells_of({"load.percent": [10, 20], "device.share": [0.5, 1.0]}, "load=cpu50", "device=share50")
    assert [(c.load.percent, c.device.share) for c in cells] == [(10, 0.5), (20, 0.5), (10, 1.0), (20, 1.0)]


def test_points_that_do_not_differ_are_one_cell(models: dict[str, Path]) -> None:
    axes = {"model": ["squeezenet", "variants"], "model.variant": [0, 1, 2], "load.percent": [0, 0.0]}
    assert sorted(c.model_config.name or "" for c in cells_of(axes)) == [
        "squeezenet",
        "variant0",
        "variant1",
        "variant2",
    ]


def test_options_and_keys_of_one_group_combine() -> None:
    cells = cells_of({"device": ["share50", "share25"], "device.period_ms": [4, 8]})
    assert [(c.device.name, c.device.period_ms) for c in cells] == [
        ("share50", 4),
        ("share50", 8),
        ("share25", 4),
        ("share25", 8),
    ]


def test_a_models_own_dimension_is_an_axis(models: dict[str, Path]) -> None:
    cells = cells_of({"model.dims.N": [1, 4]}, "model=onnx", f"model.path={models['dynamic']}")
    assert [c.model.shapes for c in cells if c.model] == [{"input": [1, 16]}, {"input": [4, 16]}]


@pytest.mark.parametrize("pin", ["model=alexnet", "load.percent=30"])
def test_the_command_line_pins_an_axis(pin: str) -> None:
    axes = {"model": ["squeezenet", "googlenet"], "load.percent": [10, 20]}
    cells = cells_of(axes, "load=cpu50", pin)
    assert len(cells) == 2
    key, value = pin.split("=")
    pinned = {c.model_config.name if key == "model" else f"{c.load.percent:g}" for c in cells}
    assert pinned == {value}


def test_a_key_on_the_command_line_holds_for_every_option() -> None:
    cells = cells_of({"device": ["share50", "share25"]}, "device.period_ms=7", "measure.seed=3")
    assert [c.device.name for c in cells] == ["share50", "share25"]
    assert {c.device.period_ms for c in cells} == {7.0}
    assert {c.measure.seed for c in cells} == {3}


@pytest.mark.parametrize(
    ("axes", "named"),
    [
        ({"modle": ["squeezenet"]}, ["sweep.axes.modle", "did you mean 'model'"]),
        ({"tracking": ["local"]}, ["sweep.axes.tracking", "groups: model, device, load, measure"]),
        ({"device.thread": [1]}, ["sweep.axes.device.thread", "did you mean 'threads'"]),
        ({"device.threads": ["many"]}, ["sweep.axes.device.threads", "many"]),
        ({"device.threads": [4096]}, ["device.threads=4096", "use at most"]),
        ({"load.percent": [50, 200]}, ["load.percent=200", "at most 100"]),
        ({"load.cores": [4096]}, ["load.cores=4096", "lower it"]),
    ],
)
def test_a_bad_axis_is_named(axes: dict[str, list[Any]], named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        cells_of(axes, "load=cpu50")
    for text in named:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_read_is_a_cell_that_fails(models: dict[str, Path]) -> None:
    cells = cells_of({"model": ["onnx"], "model.path": [str(models["tiny"]), "missing.onnx"]})
    assert [cell.error is None for cell in cells] == [True, False]
    assert "missing.onnx" in str(cells[1].error)
    assert cells[1].params()["model_sha256"] is None


def any_cell() -> Cell:
    cfg = composed("device=share50", "load=cpu50", *QUICK)
    model = ModelFile("some", Path("some.onnx"), "0" * 64, {"input": [1, 16]})
    return Cell(cfg.model, model, resolve(cfg.device), cfg.load, cfg.measure)


ANY_CELL = any_cell()


@pytest.fixture
def cell() -> Cell:
    return ANY_CELL


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, 99)
    return "other" if value is None or isinstance(value, str) else pytest.fail(f"{value!r}")


def others(cell: Cell) -> dict[str, Cell]:
    """Cells that differ in one fact each, by the fact's name."""
    found = {
        "model.content_hash": replace(cell, model=replace(cell.model, content_hash="1" * 64)),
        "model.shapes": replace(cell, model=replace(cell.model, shapes={"input": [2, 16]})),
        "model.inputs": replace(cell, model=replace(cell.model, inputs=(input_spec("n", "int64", [], 3),))),
    }
    for group in ("device", "load", "measure"):
        part = getattr(cell, group)
        for name, value in vars(part).items():
            if name in ("session", "limits"):
                for key, inner in vars(value).items():
                    other = type(value).__new__(type(value))
                    vars(other).update({**vars(value), key: changed(inner)})
                    found[f"{group}.{name}.{key}"] = replace(cell, **{group: replace(part, **{name: other})})
            else:
                other = type(part).__new__(type(part))  # past the checks: any other value will do
                vars(other).update({**vars(part), name: changed(value)})
                found[f"{group}.{name}"] = replace(cell, **{group: other})
    return found


NAMES = {"device.name", "load.name"}
WITHOUT_EFFECT = {"measure.time_limit_seconds"}


def test_identity_changes_with_each_fact(cell: Cell) -> None:
    for fact, other in others(cell).items():
        if fact not in NAMES | WITHOUT_EFFECT:
            assert other.identity != cell.identity, fact


def test_identity_does_not_change_with_names(cell: Cell) -> None:
    found = others(cell)
    for fact in NAMES | WITHOUT_EFFECT:
        assert found[fact].identity == cell.identity, fact
    renamed = replace(cell.model_config, name="other", path="elsewhere.onnx")
    assert replace(cell, model_config=renamed).identity == cell.identity


def test_every_pair_of_different_cells_has_different_identities(cell: Cell) -> None:
    identities = [other.identity for fact, other in others(cell).items() if fact not in NAMES | WITHOUT_EFFECT]
    assert len(set(identities)) == len(identities)


def test_silent_loads_are_one_load(cell: Cell) -> None:
    silent = [replace(cell, load=replace(cell.load, percent=0, name=n, period_ms=p)) for n, p in (("a", 2), ("b", 9))]
    assert silent[0].identity == silent[1].identity != cell.identity


def test_one_worker_serves_all_loads_and_nothing_else(cell: Cell) -> None:
    for fact, other in others(cell).items():
        shared = fact.startswith("load.") and fact != "load.generator"
        if not fact.startswith("model."):
            assert (other.bench_key == cell.bench_key) == shared, fact


@given(seed=st.integers(0, 2**32), pairs=st.integers(1, 6), loads=st.integers(1, 6))
def test_blocks_are_a_seeded_permutation(seed: int, pairs: int, loads: int) -> None:
    cells = [
        replace(ANY_CELL, device=replace(ANY_CELL.device, period_ms=p), load=replace(ANY_CELL.load, percent=q))
        for p in range(pairs)
        for q in range(loads)
    ]
    order = blocks(cells, seed)
    assert order == blocks(cells, seed)
    assert len(order) == pairs
    for block in order:
        assert len({c.bench_key for c in block}) == 1
        assert sorted(c.load.percent for c in block) == list(range(loads))


def test_another_seed_is_another_order() -> None:
    cells = cells_of({"model": ["squeezenet", "alexnet"], "load": ["idle", "cpu25", "cpu50", "cpu75", "cpu90"]})
    orders = {tuple(c.identity for block in blocks(cells, seed) for c in block) for seed in range(5)}
    assert len(orders) == 5
