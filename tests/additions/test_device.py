"""A kind of device that is not pepper's own."""

import json

from harness import Desk

from tests.additions.conftest import Install

MODEST = '''
import os

from pepper.devices.cores import CoresDevice


class Modest(CoresDevice):
    """Cores whose programs give way to all others."""

    throttle_method = "nice"

    def start(self, module, core=None):
        program = super().start(module, core)
        os.setpriority(os.PRIO_PROCESS, program.pid, 5)
        return program
'''

OPTION = """# One core, for what can wait.
name: modest
kind: modest
threads: 1
"""


def test_models_are_measured_on_it(desk: Desk, install: Install) -> None:
    install("pepper.devices", "modest = newcomer:Modest", MODEST)
    (desk.options / "device").mkdir()
    (desk.options / "device" / "modest.yaml").write_text(OPTION)
    done = desk("model=tiny", "device=modest", "load=cpu50")
    assert done.status == 0, done.err
    (run,) = desk.runs()
    assert run.data.params["device"] == "modest"
    from mlflow import MlflowClient

    environment = MlflowClient(desk.uri).download_artifacts(run.info.run_id, "environment.json")
    with open(environment) as stream:  # noqa: PTH123
        assert json.load(stream)["throttle_method"] == "nice"


def test_a_kind_that_nobody_adds_is_told(desk: Desk) -> None:
    done = desk("model=tiny", "device=local", "device.kind=modest", "load=idle")
    assert done.status == 2
    assert "device.kind=modest: must be one of local, emulated" in done.err
