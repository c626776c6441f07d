"""Fleets of the configuration: options composed once, links of every kind, loads measured now."""

from collections.abc import Sequence
from typing import Any

import pytest
from harness import composed
from hydra import initialize_config_dir

from pepper import config
from pepper.config import FleetConfig, FleetDeviceConfig
from pepper.config.composing import Composition, recompose
from pepper.devices import host
from pepper.errors import ConfigError
from pepper.execution.pool import specs
from pepper.fleet import Fleet
from pepper.planning.fleets import assemble


def fleet_of(fleet: FleetConfig | None, *overrides: str, counted: list[Sequence[str]] | None = None) -> Fleet:
    """Assemble a fleet, or the default one."""

    def compose_one(changed: Sequence[str]) -> Any:
        if counted is not None:
            counted.append(changed)
        return recompose(changed)

    cfg = composed(*overrides)
    if fleet is not None:
        cfg.fleet = fleet
    with initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return assemble(Composition(cfg, overrides, compose_one))


def latencies_ms(fleet: Fleet) -> dict[tuple[str, str], float]:
    return {ends: link.latency_ms for ends, link in fleet.between.items()}


def trio(**options: Any) -> FleetConfig:
    devices = {name: FleetDeviceConfig("share25", "cpu25") for name in ("a", "b", "c")}
    return FleetConfig("trio", devices, **options)


@pytest.mark.parametrize("cores", [[0, 1], [2, 3, 5]])
def test_the_default_fleet_takes_the_first_and_the_last_core(monkeypatch: pytest.MonkeyPatch, cores: list[int]) -> None:
    monkeypatch.setattr(host, "allowed_cores", lambda: cores)
    fleet = fleet_of(None)
    taken = {name: (spec.cores, spec.share) for name, spec in specs(fleet).items()}
    assert taken == {"server": ((cores[-1],), 1.0), "edge": ((cores[0],), 0.5), "camera": ((cores[0],), 0.25)}
    assert (fleet.source, fleet.sink) == ("camera", "camera")


def test_each_option_is_composed_once() -> None:
    counted: list[Sequence[str]] = []
    fleet = fleet_of(trio(links={"a->b": "lte", "b->c": "lte"}), counted=counted)
    assert list(fleet.load_percent.values()) == [25.0] * 3
    assert len(counted) == 3


def test_links_of_pairs_serve_both_ways_unless_both_are_given() -> None:
    numbers = {"bandwidth_mbit_s": 8.0, "latency_ms": 1.0}
    fleet = fleet_of(trio(links={"a->b": numbers, "b->c": "lte", "c -> b": "ethernet_1gbit"}), "link=wifi")
    latency_ms = latencies_ms(fleet)
    assert (latency_ms["a", "b"], latency_ms["b", "a"]) == (1.0, 1.0)
    assert (latency_ms["b", "c"], latency_ms["c", "b"]) == (35.0, 0.1)
    assert (latency_ms["a", "c"], latency_ms["c", "a"]) == (2.0, 2.0)
    assert fleet.between["a", "b"].ms_per_byte == pytest.approx(0.001)


def test_without_a_mesh_only_listed_pairs_are_connected() -> None:
    fleet = fleet_of(trio(links={"a->b": "wifi"}, mesh=False))
    assert set(fleet.between) == {("a", "b"), ("b", "a")}


def test_a_hub_adds_up_both_hops() -> None:
    slow = {"bandwidth_mbit_s": 8.0, "latency_ms": 1.0}
    fast = {"bandwidth_mbit_s": 80.0, "latency_ms": 0.5}
    links = fleet_of(trio(hub={"a": {"up": slow, "down": fast}, "b": fast, "c": fast})).between
    assert links["a", "b"].latency_ms == pytest.approx(1.5)
    assert links["b", "a"].latency_ms == pytest.approx(1.0)
    assert links["a", "b"].ms_per_byte == pytest.approx(0.0011)
    assert links["a", "b"].occupied_ms_per_byte == pytest.approx(0.001)


def test_a_device_differs_from_its_option_where_told_and_its_load_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "busy_percent", lambda cores, seconds: 12.345)
    monkeypatch.setattr(host, "allowed_cores", lambda: [0, 1])
    here = FleetDeviceConfig("local", "found", cores=[0], overrides={"threads": 1})
    small = FleetDeviceConfig("share50", cores=[1], count=3, overrides={"memory_bytes": 10**8, "share": 0.3})
    fleet = fleet_of(FleetConfig("two", {"here": here, "small": small}))
    load, found = fleet.devices["here"].load, specs(fleet)
    assert load is not None
    assert (load.name, load.percent, found["here"].threads) == ("found", 12.3, 1)
    assert (found["small"].share, found["small"].memory_bytes, fleet.devices["small"].count) == (0.3, 1e8, 3)


def test_this_machine_is_between_idle_and_busy() -> None:
    assert 0 <= host.busy_percent(host.allowed_cores(), seconds=0.05) <= 100


def test_the_command_line_changes_what_the_fleet_leaves_open_only() -> None:
    given = ("link=wifi", "link.latency_ms=3", "load.percent=60", "device.threads=1")
    plain, changed = (fleet_of(trio(links={"a->b": "lte"}), *overrides) for overrides in ((), given))
    assert changed.devices == plain.devices
    assert list(changed.load_percent.values()) == [25.0] * 3
    before, after = latencies_ms(plain), latencies_ms(changed)
    assert (before["a", "b"], before["a", "c"]) == (35.0, 2.0)
    assert (after["a", "b"], after["a", "c"]) == (35.0, 3.0)
    hub = {"a": "lte", "b": "wifi", "c": "wifi"}
    assert fleet_of(trio(hub=hub), *given).links == fleet_of(trio(hub=hub)).links


@pytest.mark.parametrize("cores", [[0], [0, 1]])
def test_a_fleet_that_does_not_fit_its_cores_is_refused(monkeypatch: pytest.MonkeyPatch, cores: list[int]) -> None:
    monkeypatch.setattr(host, "allowed_cores", lambda: cores)
    overrides = () if len(cores) == 1 else ("fleet.devices.edge.device=share100",)
    wanted = r"1\.75 times \(server 1, edge 0\.5" if len(cores) == 1 else r"1\.25 times \(edge 1"
    said = rf"fleet\.devices: .*core 0 is wanted {wanted}, camera 0\.25\); give a device"
    with pytest.raises(ConfigError, match=said):
        fleet_of(None, *overrides)


@pytest.mark.parametrize(("group", "option"), [("device", "share51"), ("load", "cpu70")])
def test_an_option_of_a_device_that_is_not_there_is_named_with_its_key(group: str, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"fleet\.devices\.edge: {group}={option}: no such option; did you mean"):
        fleet_of(None, f"fleet.devices.edge.{group}={option}")


@pytest.mark.parametrize(
    ("given", "said"),
    [("wify", ": link=wify: no such option; did you mean 'wifi'"), (3, "=3: no link; give an option of link")],
)
def test_a_link_that_is_not_there_is_named_with_its_key(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=f"fleet.links.a->b{said}"):
        fleet_of(trio(links={"a->b": given}))


def test_a_load_without_a_percent_is_refused() -> None:
    devices = {"a": FleetDeviceConfig("share25", "cpu")}
    with pytest.raises(ConfigError, match=r"fleet\.devices\.a: load=cpu: .* such as cpu50"):
        fleet_of(FleetConfig("one", devices), "load=cpu", "load.percent=60")
