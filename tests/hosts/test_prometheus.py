"""Loads as a real Prometheus server knows them, from a real node_exporter."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness import composed, free_port, wait_until

from pepper.config import PrometheusConfig
from pepper.config.composing import Composition, compose_tree
from pepper.errors import ConfigError
from pepper.hosts.local import here
from pepper.hosts.prometheus import busy_percent
from pepper.planning.fleets import assemble

SECONDS = 3
QUERY = f'100 * (1 - sum by (instance, cpu) (rate(node_cpu_seconds_total{{mode=~"idle|iowait|steal"}}[{SECONDS}s])))'
PROGRAMS = ("prometheus", "prometheus-node-exporter")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusConfig]:
    """A server that watches this machine, several times a second, with both programs as Debian packages them."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder, port, exporter = tmp_path_factory.mktemp("prometheus"), free_port(), free_port()
    job = {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}
    times = {"scrape_interval": "300ms", "scrape_timeout": "300ms"}
    (folder / "config.yml").write_text(json.dumps({"global": times, "scrape_configs": [job]}))
    commands = (
        ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{exporter}"],
        [
            "prometheus",
            f"--config.file={folder / 'config.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
    )
    config = PrometheusConfig(f"http://127.0.0.1:{port}", QUERY)
    with ExitStack() as stack:
        for command in commands:
            program = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
            )
            stack.callback(program.kill)
        wait_until(lambda: knows(config))
        yield config


def knows(config: PrometheusConfig) -> bool:
    try:
        busy_percent(config, here(), here().resolve(composed("device=local").device))
    except ConfigError:
        return False
    return True


@pytest.fixture
def busy_core() -> Iterator[int]:
    """A core that something uses for as long as a rate looks back."""
    core = here().cores()[-1]
    code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as program:
        yield core
        program.kill()


def test_a_devices_load_is_that_of_its_own_cores(server: PrometheusConfig, busy_core: int) -> None:
    spec = here().resolve(composed("device=local", f"device.cores=[{busy_core}]").device)
    assert wait_until(lambda: busy_percent(server, here(), spec) > 80)
    assert here().busy_percent(spec) > 80


def test_a_fleet_takes_what_is_found(server: PrometheusConfig, busy_core: int) -> None:
    given = (
        f"prometheus.url={server.url}",
        f"prometheus.cpu='{QUERY}'",
        "fleet.devices.server.device=local",
        "fleet.devices.server.load=found",
    )

    def found() -> float:
        load = assemble(Composition(composed(*given), given, compose_tree)).devices["server"].load
        assert load is not None
        return load.percent

    assert wait_until(lambda: found() > 80)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"instances": {"here": "10.9.9.9:9100"}}, r"no instance is the host here.*one of 127\.0\.0\.1:\d+"),
        ({"cpu": "sum("}, "refuses prometheus.cpu"),
        ({"cpu": "up"}, "no series by instance and cpu"),
        ({"url": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_what_cannot_be_told_is_said_in_a_line(server: PrometheusConfig, changes: dict[str, object], said: str) -> None:
    config = PrometheusConfig(**{**vars(server), **changes})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=said):
        busy_percent(config, here(), here().resolve(composed("device=local").device))
