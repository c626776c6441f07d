"""pepper's own load: a generator for each core (see :mod:`pepper.measure.generator`)."""

import time

from pepper.config import LoadConfig
from pepper.devices.device import Device, Program
from pepper.measure.load import Load, Usage, loaded_cores

TIMEOUT_S = 30.0


class BuiltIn(Load):
    """One program a core of the device, silent until a load is set."""

    def __init__(self, device: Device) -> None:
        self._share = device.spec.share
        self._hands_out = device.hands_out
        self._programs: list[Program] = []
        for core in range(len(device.spec.cores)):
            program = device.start("pepper.measure.generator", core)
            program.request("usage", timeout_s=TIMEOUT_S)  # it is up
            program.confine(0.0 if self._hands_out else None)
            self._programs.append(program)

    def set(self, load: LoadConfig) -> None:
        """Run this load on the first cores that it asks for, and silence the others."""
        count = loaded_cores(load, len(self._programs))
        # A device that hands out its time stops its programs on all its cores or on none.
        handed_out = self._hands_out and count in (0, len(self._programs))
        wanted = [load.percent / 100 if index < count else 0.0 for index in range(len(self._programs))]
        for program, wants in zip(self._programs, wanted, strict=True):
            fraction = float(wants > 0) if handed_out else wants * self._share
            program.request("set", timeout_s=TIMEOUT_S, fraction=fraction, period_ms=load.period_ms)
        if self._hands_out:  # when all are told: who is stopped and wants nothing would answer no more
            for program, wants in zip(self._programs, wanted, strict=True):
                program.confine(wants if handed_out else None)

    def usage(self) -> Usage:
        """Return what the generators have used so far."""
        answers = [program.request("usage", timeout_s=TIMEOUT_S)[0] for program in self._programs]
        return Usage(sum(answer["cpu_s"] for answer in answers), time.perf_counter())

    def close(self) -> None:
        """End the generators."""
        for program in self._programs:
            program.end()
