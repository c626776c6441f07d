"""A block: one model on one device under several loads, measured by one worker; what is sent to a host."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from pepper.config import LoadConfig, MeasureConfig
from pepper.devices.device import DeviceSpec
from pepper.errors import DeviceError, MeasureError
from pepper.graph.model import ModelFile, changed
from pepper.interrupts import check
from pepper.measure.launcher import Bench, failed, killed
from pepper.measure.profile import Profile

Done = Callable[[int, Profile], None]
"""Takes the profile under each load, by the load's place, as soon as it has ended."""


@dataclass(frozen=True)
class Block:
    """What one worker serves.

    Attributes:
        model: The model.
        device: The device.
        measure: When timing starts and stops.
        loads: Of one generator, in the order of measurement.
    """

    model: ModelFile
    device: DeviceSpec
    measure: MeasureConfig
    loads: tuple[LoadConfig, ...]


def measure_block(block: Block, done: Done) -> None:
    """Measure a block on this host, with a new worker where one dies, and hand over its profiles, failed ones too.

    Raises:
        KeyboardInterrupt: After what was running was handed over as KILLED.
    """
    waiting = list(range(len(block.loads)))
    while waiting:
        check()
        waiting = _with_one_worker(block, waiting, done)


def _with_one_worker(block: Block, waiting: list[int], done: Done) -> list[int]:
    """Measure under these loads; return those that need a new worker, since this one died."""
    started_s, current = time.time(), 0
    if unusable := changed(block.model):
        for place in waiting:
            done(place, failed(MeasureError(unusable), started_s))
        return []
    loads = [block.loads[place] for place in waiting]
    generator = loads[0].generator if any(not load.is_silent for load in loads) else None
    try:
        with Bench(block.model, block.device, block.measure, generator) as bench:
            for current, place in enumerate(waiting):
                started_s = time.time()
                try:
                    profile = bench.profile(block.loads[place])
                except (MeasureError, DeviceError) as error:
                    done(place, failed(error, started_s))
                    return waiting[current + 1 :]
                done(place, profile)
                current += 1
    except (MeasureError, DeviceError) as error:  # the worker never opened the model: no load will change that
        for place in waiting:
            done(place, failed(error, started_s))
    except KeyboardInterrupt:
        if current < len(waiting):
            done(waiting[current], killed(started_s))
        raise
    return []
