"""Measurements that pepper did not take itself, as rows of a CSV file: read and checked whole, described, written."""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pepper.config import ModelConfig
from pepper.documents import read_bytes
from pepper.errors import LatencyError, ModelError, nearest
from pepper.graph.model import find_model
from pepper.latency import description
from pepper.latency.features import SETTING
from pepper.names import PARAMS

REQUIRED = ("model", "device", "latency", "unit")
FACTS = tuple(name for name in SETTING if name.startswith("device_"))
PART = ("part_of", "part_of_sha256")
OPTIONAL = (
    *("threads", "provider", "load", "samples", "source", "input_shapes"),
    *("name", "sha256", *PART, "characteristics", *FACTS),
)
COLUMNS = (*REQUIRED, *OPTIONAL)
UNITS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}
"""Milliseconds in each unit of a latency."""
OF_MODEL = (*PARAMS, "input_shapes", description.PARAM)
"""Parameters of a run that say what it measured, and what that is like."""
PROVENANCE = "imported_from"
"""The run's parameter that says in which file and line a measurement from elsewhere stood."""

_MOST_BYTES = 2**28
_LOAD = re.compile(r"cpu(\d{1,3}(?:\.\d+)?)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Line:
    """A measurement as its line says it.

    Attributes:
        number: The line of the file.
        model: The model's path, as `model.path` takes it, or its SHA-256 (hex).
        device: The device's name.
        latency_ms: Median, or what the tool that measured gives for one.
        threads: Threads of the runtime.
        provider: What computed: an execution provider of onnxruntime, or another runtime's name.
        load_percent: What a neighbour would use of each of the device's cores, if it were alone there.
        samples: How many inferences it is the median of; None where that is not known.
        source: What measured it.
        shapes: Shapes by input name.
        name: What the model is called, where its path does not say it.
        sha256: Hash of the model, where it must be this one.
        part_of: What the model is called that this is a part of; empty where it is whole.
        part_of_sha256: The hash of that one.
        characteristics: Its description, as `description.encode` writes it.
        facts: What is known of the device, by name of `FACTS`.
    """

    number: int
    model: str
    device: str
    latency_ms: float
    threads: int = 1
    provider: str = "CPUExecutionProvider"
    load_percent: float = 0.0
    samples: int | None = None
    source: str = ""
    shapes: Mapping[str, list[int]] = field(default_factory=dict)
    name: str = ""
    sha256: str = ""
    part_of: str = ""
    part_of_sha256: str = ""
    characteristics: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def load(self) -> str:
        """The load's name."""
        return f"cpu{self.load_percent:g}" if self.load_percent else "idle"

    def metrics(self) -> dict[str, float]:
        """The figures that a run of it has."""
        samples = {} if self.samples is None else {"samples": float(self.samples)}
        return {"latency_p50_ms": self.latency_ms, **samples}


@dataclass(frozen=True)
class Described:
    """A model that a measurement is of: parameters of a run by name, its characteristics among them."""

    params: Mapping[str, str]


def read(file: Path) -> tuple[list[Line], list[str]]:
    """Read measurements.

    Returns:
        The good lines, and what is wrong with each of the others, ``line 7: ...``.

    Raises:
        LatencyError: The file cannot be read, or its columns are not those of `COLUMNS`.
    """
    try:
        content = read_bytes(file, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise LatencyError(f"{file}: cannot be read ({reason}); give a CSV file") from error
    reader = csv.reader(io.StringIO(content, newline=""))
    header = [name.strip() for name in next(reader, [])]
    _check_header(header, file)
    good: list[Line] = []
    bad: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            try:
                good.append(_line(reader.line_num, header, cells))
            except LatencyError as error:
                bad.append(f"line {reader.line_num}: {error}")
    except csv.Error as error:
        bad.append(f"line {reader.line_num}: {error}; the rest of the file is not read")
    return good, bad


def describe(
    lines: Sequence[Line],
    known: Mapping[str, Mapping[str, str]],
    track: Callable[[Sequence[Any]], Iterable[Any]] = iter,
) -> tuple[list[tuple[Line, Described]], list[str]]:
    """Find and describe the model of each line.

    Args:
        lines: The lines.
        known: The parameters of a run of each model that was measured here, by its SHA-256: such a model need not be
            at hand.
        track: Told of the models that are read.

    Returns:
        Lines with their models, and what is wrong with the others, ``line 7: ...``.
    """
    found: dict[tuple[str, ...], Described | ModelError] = {}
    models = {_model_key(line): line for line in lines}
    for key, line in track(list(models.items())):
        try:
            found[key] = _described(line, known)
        except ModelError as error:
            found[key] = error
    good: list[tuple[Line, Described]] = []
    bad: list[str] = []
    for line in lines:
        model = found[_model_key(line)]
        if isinstance(model, Described):
            good.append((line, model))
        else:
            bad.append(f"line {line.number}: {model}")
    return good, bad


def params_of(line: Line, described: Described, file: Path) -> dict[str, str | float | None]:
    """Return the parameters that a run of such a measurement has."""
    return {
        **described.params,
        "device": line.device,
        "load": line.load,
        "load_percent": line.load_percent,
        "load_cores": line.threads if line.load_percent else 0,
        "threads": line.threads,
        "provider": line.provider,
        "device_cores": line.threads,
        **line.facts,
        "source": line.source or None,
        PROVENANCE: f"{file.name}:{line.number}",
    }


def identity(line: Line, described: Described) -> str:
    """Return what tells a measurement from others: its SHA-256 (hex); one that is read twice has it twice."""
    facts = asdict(line)
    for name in ("number", "model", "name", *PART, "characteristics"):
        del facts[name]
    facts |= {"from_elsewhere": True, "sha256": described.params["model_sha256"]}
    facts["shapes"] = described.params.get("input_shapes")
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def row_of(params: Mapping[str, str], latency_ms: float, samples: float | None) -> dict[str, object]:
    """Return a measurement as `write` takes it, from its run's parameters."""
    percent = float(params.get("load_percent") or 0)
    facts = {name: params[name] for name in FACTS if params.get(name, "None") != "None"}
    whole, sha256 = params.get("family_sha256"), params.get("model_sha256")
    is_part = bool(whole) and whole != sha256
    return {
        # A part's path leads to a cache of this machine's.
        "model": sha256 if is_part else params.get("model_path"),
        "device": params.get("device"),
        "latency": f"{latency_ms:.9g}",
        "unit": "ms",
        "threads": params.get("threads"),
        "provider": params.get("provider"),
        "load": f"cpu{percent:g}" if percent else "idle",
        "samples": None if samples is None else f"{samples:.0f}",
        "source": params.get("source", "pepper"),
        "input_shapes": params.get("input_shapes"),
        "name": params.get("model"),
        "sha256": sha256,
        **({"part_of": params.get("family"), "part_of_sha256": whole} if is_part else {}),
        "characteristics": params.get(description.PARAM),
        **facts,
    }


def write(rows: Iterable[Mapping[str, object]], file: Path) -> int:
    """Write measurements that `read` takes, and return how many there were.

    Args:
        rows: Values by name of `COLUMNS`; None and what is missing is left empty.
        file: Where.

    Raises:
        LatencyError: The file cannot be written.
    """
    count = 0
    try:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
            writer.writeheader()
            for row in rows:
                writer.writerow(row)
                count += 1
    except OSError as error:
        raise LatencyError(f"{file}: cannot be written ({error.strerror}); give another file") from error
    return count


def _check_header(header: Sequence[str], file: Path) -> None:
    if unknown := [name for name in header if name not in COLUMNS]:
        hint = (
            nearest(unknown[0], COLUMNS) or f"; columns are {', '.join(COLUMNS[:10])} and others, see the documentation"
        )
        raise LatencyError(f"{file}: unknown column {unknown[0]!r}{hint}")
    if missing := [name for name in REQUIRED if name not in header]:
        raise LatencyError(f"{file}: has no column {', '.join(missing)}; its first line names the columns")
    if len(set(header)) < len(header):
        raise LatencyError(f"{file}: two columns have one name; name each once")


def _line(number: int, header: Sequence[str], cells: Sequence[str]) -> Line:
    if len(cells) != len(header):
        raise LatencyError(f"{len(cells)} values for {len(header)} columns")
    values = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
    if empty := [name for name in REQUIRED if name not in values]:
        raise LatencyError(f"no {' and no '.join(empty)}")
    if values["unit"] not in UNITS:
        raise LatencyError(f"unit {values['unit']!r}: must be one of {', '.join(UNITS)}")
    if not all(values.get(name, "").isprintable() for name in ("model", "device", "name", "part_of")):
        raise LatencyError("a name holds more than printable characters")
    if values.get("part_of") and not values.get("part_of_sha256"):
        raise LatencyError(f"part_of {values['part_of'][:20]!r}: needs the hash of that model in part_of_sha256")
    return Line(
        number=number,
        model=values["model"],
        device=values["device"],
        latency_ms=_number(values, "latency", above=True) * UNITS[values["unit"]],
        threads=_count(values, "threads") or 1,
        provider=values.get("provider", Line.provider),
        load_percent=_load(values.get("load", "idle")),
        samples=_count(values, "samples"),
        source=values.get("source", ""),
        shapes=_shapes(values.get("input_shapes", "{}")),
        name=values.get("name", ""),
        sha256=_hash(values, "sha256"),
        part_of=values.get("part_of", ""),
        part_of_sha256=_hash(values, "part_of_sha256"),
        characteristics=values.get("characteristics", ""),
        facts={name: _number(values, name, above=name != "device_l3_bytes") for name in FACTS if name in values},
    )


def _number(values: Mapping[str, str], name: str, *, above: bool) -> float:
    try:
        number = float(values[name])
    except ValueError:
        raise LatencyError(f"{name} {values[name]!r}: must be a number") from None
    if not math.isfinite(number) or number < 0 or (above and number == 0):
        raise LatencyError(f"{name} {values[name]}: must be {'above' if above else 'at least'} 0")
    return number


def _hash(values: Mapping[str, str], name: str) -> str:
    sha256 = values.get(name, "").lower()
    if sha256 and not _SHA256.fullmatch(sha256):
        raise LatencyError(f"{name} {sha256[:20]!r}: must be 64 hexadecimal digits")
    return sha256


def _count(values: Mapping[str, str], name: str) -> int | None:
    if name not in values:
        return None
    if not re.fullmatch(r"\d{1,9}", values[name]) or int(values[name]) == 0:
        raise LatencyError(f"{name} {values[name]!r}: must be a whole number of at least 1")
    return int(values[name])


def _load(text: str) -> float:
    if text == "idle":
        return 0.0
    match = _LOAD.fullmatch(text)
    if match is None or not 0 < float(match[1]) <= 100:
        raise LatencyError(f"load {text!r}: must be idle, or cpu and a percentage such as cpu50")
    return float(match[1])


def _shapes(text: str) -> dict[str, list[int]]:
    try:
        shapes = json.loads(text)
        right = isinstance(shapes, dict) and all(
            isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
            for shape in shapes.values()
        )
    except (ValueError, RecursionError):
        right = False
    if not right:
        raise LatencyError(f'input_shapes {text[:60]!r}: must be JSON such as {{"input": [1, 3, 224, 224]}}')
    return dict(shapes)


def _model_key(line: Line) -> tuple[str, ...]:
    shapes = json.dumps(line.shapes, sort_keys=True)
    return line.model, shapes, line.name, line.sha256, line.part_of, line.part_of_sha256, line.characteristics


def _described(line: Line, known: Mapping[str, Mapping[str, str]]) -> Described:
    """Describe a line's model by its file, or else as it was described before, here or in the line."""
    by_hash = _SHA256.fullmatch(line.model.lower())
    sha256 = line.sha256 or (line.model.lower() if by_hash else "")
    if not by_hash:
        try:
            return _by_file(line, sha256)
        except ModelError:
            if sha256 not in known and not (sha256 and line.characteristics):
                raise
    shapes = {"input_shapes": json.dumps(line.shapes)} if line.shapes else {}
    if sha256 in known and (not shapes or known[sha256].get("input_shapes") == shapes["input_shapes"]):
        return Described(known[sha256])
    if line.characteristics:
        if description.decode(line.characteristics) is None:
            raise ModelError("characteristics: damaged, or of another version; give the model's path")
        name = line.name or (line.model[:12] if by_hash else Path(line.model).stem)
        told = {"model": name, "model_path": line.model, "model_sha256": sha256, **shapes}
        return Described({**told, **_whole(line, name, line.model, sha256), description.PARAM: line.characteristics})
    raise ModelError(f"model {line.model[:16]}...: no model of this hash was measured here; give its path")


def _by_file(line: Line, sha256: str) -> Described:
    model = find_model(ModelConfig(path=line.model, shapes={key: list(shape) for key, shape in line.shapes.items()}))
    if sha256 and model.content_hash != sha256:
        raise ModelError(f"{line.model}: is another model (sha256 {model.content_hash[:12]}, the line's {sha256[:12]})")
    address = line.model if "://" in line.model else str(model.file)
    name = line.name or model.name
    return Described(
        {
            "model": name,
            "model_path": address,
            "model_sha256": model.content_hash,
            **_whole(line, name, address, model.content_hash),
            "input_shapes": json.dumps(model.shapes),
            description.PARAM: description.encode(description.describe_model(model)),
        }
    )


def _whole(line: Line, name: str, path: str, sha256: str) -> dict[str, str]:
    """Return what says of which model a line's is a part: of itself, if nothing else is said."""
    if line.part_of_sha256:
        return {"family": line.part_of or name, "family_path": "", "family_sha256": line.part_of_sha256}
    return {"family": name, "family_path": path, "family_sha256": sha256}
