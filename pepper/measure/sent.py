"""Blocks that are measured on a host that joined: sent as plain values, and what comes back of them.

A host fetches a model that it lacks once, by its hash, and keeps it; what is timed, loaded and judged is the host's.
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from pydantic import TypeAdapter

from pepper.config import LoadConfig, MeasureConfig
from pepper.devices.device import DeviceSpec
from pepper.devices.protocol import Arrays, described, shaped
from pepper.documents import plain_name
from pepper.errors import DeviceError, MeasureError, refusal
from pepper.graph.inputs import packed, unpacked
from pepper.graph.model import ModelFile, changed
from pepper.graph.needs import Needs, needs_of
from pepper.hosts import engine, held
from pepper.hosts.held import PIECE_BYTES
from pepper.hosts.operations import check_wanted
from pepper.hosts.remote import Joined, there
from pepper.interrupts import check
from pepper.measure.block import Block, measure_block
from pepper.measure.profile import Profile

_MOST_FETCHES = 3  # of a model, for one block: more, and something damages it
_PLAIN = tuple(each.name for each in fields(Profile) if each.name != "samples")
_SPEC, _MEASURE, _LOADS = TypeAdapter(DeviceSpec), TypeAdapter(MeasureConfig), TypeAdapter(tuple[LoadConfig, ...])


def measured_on(joined: Joined, block: Block, still: Callable[[], None] = check) -> list[Profile]:
    """Let the host of a block's device measure it; return a profile for each load.

    Args:
        joined: The hosts.
        block: What to measure.
        still: Called now and then while that is waited for; what it raises ends the wait, and the measuring.

    Raises:
        DeviceError: The host was away for too long, or has no room for the model.
        MeasureError: The model does not arrive as it is.
    """
    where = str(block.device.host)
    request, pieces = _packed(block)
    for _ in range(_MOST_FETCHES):
        found, arrays = joined.exchange(where, "measure", pieces, once=uuid.uuid4().hex, still=still, **request)
        if "lacking" not in found:
            return _profiles(found, arrays)
        ship(joined, found["lacking"], block.model, still)
    raise MeasureError(f"host {where}: {block.model.file} arrived damaged {_MOST_FETCHES} times; measure it again")


def ship(joined: Joined, host: str, model: ModelFile, still: Callable[[], None] = check) -> None:
    """Give a host the files of a model that it lacks, from where it has them, straight and over TLS.

    A connection that is cut is made again as long as some of a file arrives each time.

    Raises:
        DeviceError: The host was away for too long, its onnxruntime does not read such a model, or it has no room on
            its disk or in its memory.
        MeasureError: Nothing arrives, or the files are gone.
    """
    files = {str(file.relative_to(model.file.parent)): file for file in (model.file, *model.weight_files)}
    try:
        sizes = {name: file.stat().st_size for name, file in files.items()}
    except OSError as error:
        raise MeasureError(f"{error.filename}: {refusal(error)}; it was there when the sweep began") from error
    whole, before = sum(sizes.values()), -1
    while lacking := _lacking(joined, host, model, sizes):
        if before < 0:
            refuse_unreadable(joined, host, needs_of(model.file))
            _check_room(joined, host, whole)
        name, reached = lacking[0]
        total = whole - sum(sizes[each] - at for each, at in lacking)
        if total <= before:
            raise MeasureError(f"host {host}: {files[name]} does not arrive there; is its disk full, or a port closed?")
        before = total
        port = joined.ask(host, "receive", model=model.content_hash, name=name, size=sizes[name])
        with contextlib.suppress(OSError), joined.stream(host, port) as peer, files[name].open("rb") as stream:
            stream.seek(reached)
            while piece := stream.read(PIECE_BYTES):
                still()
                peer.sendall(piece)
            peer.recv(1)


def _check_room(joined: Joined, host: str, whole: int) -> None:
    state = joined.ask(host, "state")
    if whole > state["memory_available_bytes"]:
        left = state["memory_available_bytes"] / 2**20
        raise DeviceError(
            f"host {host}: {left:,.0f} MiB of memory are left, the model alone takes {whole / 2**20:,.0f}; measure a"
            " part of it, or on another host"
        )


def refuse_unreadable(joined: Joined, host: str, needs: Needs) -> None:
    """Make sure that a host's onnxruntime reads a model, before it is brought there.

    Raises:
        DeviceError: It does not, or the host was away for too long.
    """
    if said := joined.ask(host, "unreadable", **asdict(needs)):
        raise DeviceError(f"host {host}: {said}")


def brought(joined: Joined, host: str, model: ModelFile) -> str:
    """Give a host a model that it lacks; return where it is there.

    Raises:
        DeviceError: As of `ship`.
        MeasureError: As of `ship`, or it does not arrive as it is.
    """
    for _ in range(_MOST_FETCHES):
        found = joined.ask(host, "path", model=model.content_hash, file=model.file.name)
        if found is not None:
            return str(found)
        ship(joined, host, model)
    raise MeasureError(f"host {host}: {model.file} arrived damaged {_MOST_FETCHES} times; try again")


def path(model: str, file: str) -> str | None:
    """Return where a model is here, by its hash; None where it is not, or not as it was."""
    here = held.folder(model) / plain_name(file)
    if changed(ModelFile(file, here, model, {})) is None:
        return str(here)
    if here.exists():
        held.drop(model)
    return None


def _lacking(joined: Joined, host: str, model: ModelFile, sizes: dict[str, int]) -> list[tuple[str, int]]:
    """Return the files that a host has not whole, and how much of each it has."""
    reached = joined.ask(host, "held", model=model.content_hash, files=sizes)
    return [(name, at) for name, at in reached.items() if at < sizes[name]]


def measure(
    model: dict[str, Any],
    values: list[Any],
    device: dict[str, Any],
    measure: dict[str, Any],
    loads: list[Any],
    pieces: Sequence[bytes] = (),
) -> tuple[dict[str, Any], list[bytes]]:
    """Measure a block here, for a head; the operation behind `measured_on`.

    Returns:
        The profiles and this host's clock, with their samples; or under what name the model is lacked.
    """
    check_wanted()
    file = held.folder(model["content_hash"]) / plain_name(model["file"])
    inputs = tuple(unpacked(model["inputs"], from_pieces(values, pieces)))
    found = ModelFile(model["name"], file, model["content_hash"], model["shapes"], inputs)
    if changed(found):
        if file.exists():
            held.drop(found.content_hash)
        return {"lacking": engine.own_name()}, []
    block = Block(
        found,
        _SPEC.validate_python(device),
        _MEASURE.validate_python(measure),
        _LOADS.validate_python(loads),
    )
    profiles: dict[int, Profile] = {}

    def done(place: int, profile: Profile) -> None:
        profile.environment["measured_on"] = engine.own_name()
        profiles[place] = profile
        check_wanted()

    measure_block(block, done)
    texts, sent = [], []
    for place in range(len(block.loads)):
        profile = profiles[place]
        header, samples = in_pieces(profile.samples)
        texts.append({**{name: getattr(profile, name) for name in _PLAIN}, "samples": header})
        sent += samples
    return {"profiles": texts, "clock_s": time.time()}, sent


def _packed(block: Block) -> tuple[dict[str, Any], list[bytes]]:
    facts, given = packed(block.model.inputs)
    header, pieces = in_pieces(given)
    model = {
        "name": block.model.name,
        "file": block.model.file.name,
        "content_hash": block.model.content_hash,
        "shapes": block.model.shapes,
        "inputs": facts,
    }
    return {
        "model": model,
        "values": header,
        "device": asdict(there(block.device)),
        "measure": asdict(block.measure),
        "loads": [asdict(load) for load in block.loads],
    }, pieces


def _profiles(found: dict[str, Any], pieces: list[bytes]) -> list[Profile]:
    """Return what was measured, at the times of this machine's clock."""
    ahead_s, profiles = found["clock_s"] - time.time(), []
    for text in found["profiles"]:
        header = text.pop("samples")
        count = len(header)
        profile = Profile(**text, samples=from_pieces(header, pieces[:count]))
        pieces = pieces[count:]
        profiles.append(replace(profile, started_s=profile.started_s - ahead_s, ended_s=profile.ended_s - ahead_s))
    return profiles


def in_pieces(arrays: Arrays) -> tuple[list[Any], list[bytes]]:
    """Return what arrays are, JSON-able, and their bytes."""
    header = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    return header, [array.tobytes() for array in arrays.values()]


def from_pieces(header: list[Any], pieces: Sequence[bytes]) -> "dict[str, Any]":
    """Return the arrays again."""
    return {
        name: shaped(name, dtype, shape, piece)
        for (name, dtype, shape), piece in zip(described(header), pieces, strict=True)
    }
