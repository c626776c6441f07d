"""From a sweep's axes to its cells: each option is composed once, cells are their product."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pepper.config import DeviceConfig, PepperConfig, typed
from pepper.config.composing import Composition, explain
from pepper.config.overrides import assign, keys_of
from pepper.devices.device import DeviceSpec
from pepper.errors import ConfigError, HostLostError, ModelError, nearest
from pepper.graph.model import ModelFile, find_model
from pepper.hosts import reach
from pepper.hosts.remote import unresolved
from pepper.measure.loads import check_load
from pepper.names import Measured, display_names
from pepper.sweep.cells import Cell

GROUPS = ("model", "device", "load", "measure")


def plan(
    composition: Composition,
    track: Callable[[Sequence[PepperConfig]], Iterable[PepperConfig]] = iter,
) -> list[Cell]:
    """Return the cells of the configured sweep; without one, the single cell of the configuration.

    A group or key that stands on the command line wins over the sweep's axis of that name. Where points differ only in
    what makes no difference (the number of a variant, for a model that is none), they are one cell. Cells on a host
    that is lost meanwhile carry the error.

    Args:
        composition: The configuration, and what its options are composed from.
        track: Passes the models on, whose files may have to be written, and may show how far that is.

    Raises:
        ConfigError: An axis names no group or key, or an option or value does not fit.
        DeviceError: A host has not joined, or the one of the single cell is lost.
        ModelError: The single model cannot be used; in a sweep its cells carry the error instead.
    """
    config = composition.config
    reach.use(config.hosts)
    if config.sweep is None:
        return [single_cell(config)]
    given = {key for override in composition.overrides for key in keys_of(override)}
    axes = {name: values for name, values in config.sweep.axes.items() if name not in given}
    for name in axes:
        if name.split(".")[0] not in GROUPS:
            raise ConfigError(f"sweep.axes.{name}: not an axis{nearest(name, GROUPS)} (groups: {', '.join(GROUPS)})")
    choices = [_choices(group, axes, composition) for group in GROUPS]
    models: dict[int, ModelFile | ModelError] = {}
    for choice in track(choices[0]):
        try:
            models[id(choice)] = find_model(choice.model)
        except ModelError as error:
            models[id(choice)] = error
    devices = {id(choice): _device(choice.device) for choice in choices[1]}  # each once: hosts are asked
    cells = []
    for model, device, load, measure in itertools.product(*choices):
        point = PepperConfig(
            task=config.task,
            model=model.model,
            device=device.device,
            load=load.load,
            measure=measure.measure,
            tracking=config.tracking,
            hosts=config.hosts,
        )
        found = models[id(model)]
        if isinstance(found, ModelError):
            cells.append(_cell(point, *devices[id(device)], None, str(found)))
        else:
            cells.append(_cell(point, *devices[id(device)], found))
    # What cannot be read has no identity of its own: each such point fails by itself.
    kept = list({cell.identity if cell.model else number: cell for number, cell in enumerate(cells)}.values())
    names = display_names([Measured.of(cell.params()) for cell in kept])
    return [replace(cell, label=name) for cell, name in zip(kept, names, strict=True)]


def single_cell(config: PepperConfig) -> Cell:
    """Return the one cell that a configuration names, whatever its sweep.

    Raises:
        ConfigError: The device or the load does not fit this machine.
        ModelError: The model cannot be used.
    """
    reach.use(config.hosts)
    model = find_model(config.model)
    return _cell(config, reach.host_at(config.device.host).resolve(config.device), None, model)


def _device(config: DeviceConfig) -> tuple[DeviceSpec, str | None]:
    """Return a device as its host has it; or what is known of it without that host, and that this is lost."""
    try:
        return reach.host_at(config.host).resolve(config), None
    except HostLostError as error:
        return unresolved(config), str(error)


def _cell(
    config: PepperConfig, device: DeviceSpec, lost: str | None, model: ModelFile | None, error: str | None = None
) -> Cell:
    if lost is None:
        check_load(config.load, device)
    return Cell(config.model, model, device, config.load, config.measure, error or lost)


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Return values in their order, each once: what stands in an axis a thousand times takes no longer."""
    return list({repr(value): value for value in values}.values())


def _choices(group: str, axes: dict[str, list[Any]], composition: Composition) -> list[PepperConfig]:
    """Return the configuration once for each value of the group: its options times its keys' values."""
    keys = [name for name in axes if name.startswith(f"{group}.")]
    if group not in axes and not keys:
        return [composition.config]
    choices = []
    for option in _distinct(axes.get(group, [None])):
        chosen_option = [f"{group}={option}"] if option is not None else []
        composed = composition.compose([*composition.overrides, *chosen_option])
        for values in itertools.product(*(_distinct(axes[key]) for key in keys)):
            chosen = composed.copy()
            for key, value in zip(keys, values, strict=True):
                try:
                    assign(chosen, key, value)
                except OmegaConfBaseException as error:
                    parent, _, name = key.rpartition(".")
                    known = [str(known) for known in OmegaConf.select(chosen, parent) or ()]
                    reason = explain(error) if name in known else f"no such key{nearest(name, known)}"
                    raise ConfigError(f"sweep.axes.{key}: {value!r}: {reason}") from error
            choices.append(typed(chosen))
    return choices
