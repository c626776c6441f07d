"""How inputs are damaged: by what their format means where it has one, and by bytes in any case."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import yaml

RAW = "\ue000raw%d\ue001"
"""Stands in a tree for a piece of text that no tree can hold."""

_NUMBERS = (0, -1, 1, 2, 3, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**63), 2**64, 10**30)
_WORDS = (
    "", " ", ".", "..", "../x", "../outside/secret", "/etc/hostname", "a/b", "a\0b", "\n", "[/x]", "[red]", "é",
    "\ud800",
    "${x}", "${oc.env:HOME}", "nan", "inf", "null", "1e999", "0x10", "-1", "w" * 300, "w" * 100_000, "{}", "%s", "'",
)  # fmt: skip
_PIECES = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "[" * 5000 + "]" * 5000, "1.0e-400", "-0.0", "true",
    '{"a":' * 300 + "1" + "}" * 300, "[" * 60 + "]" * 60, "null", '"\\u0000"', '{"a": 1, "a": 2}',
)  # fmt: skip


def damage(file: Path, rng: Random) -> str:
    """Damage a file in one of the ways that its format knows, and say how."""
    structured = {
        ".onnx": _model,
        ".json": _json,
        ".yaml": _yaml,
        ".npz": _npz,
    }.get(file.suffix)
    if rng.random() < 0.06:
        return _node(file, rng)
    if structured is not None and rng.random() < 0.75:
        times = rng.choice((1, 1, 1, 2, 4))
        return structured(file, rng, times)
    return _bytes(file, rng)


def _bytes(file: Path, rng: Random) -> str:
    content = bytearray(file.read_bytes()) or bytearray(b"\0")
    way = rng.choice(("truncate", "flip", "zero", "repeat", "random", "cut out", "number"))
    start = rng.randrange(len(content))
    length = min(len(content) - start, rng.choice((1, 4, 16, 256, 4096)))
    if way == "truncate":
        del content[start:]
    elif way == "flip":
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif way == "zero":
        content[start : start + length] = bytes(length)
    elif way == "repeat":
        content[start:start] = content[start : start + length] * rng.choice((1, 2, 50))
    elif way == "random":
        content[start : start + length] = rng.randbytes(length)
    elif way == "cut out":
        del content[start : start + length]
    else:
        number = rng.choice((0, 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1))
        content[start : start + 8] = number.to_bytes(8, rng.choice(("little", "big")))
    file.write_bytes(content)
    return f"{way} {len(content)} bytes"


def _node(file: Path, rng: Random) -> str:
    """Put something else than a file in its place."""
    way = rng.choice(("gone", "empty", "folder", "loop", "dangling", "device", "outside", "sparse", "unreadable"))
    file.unlink()
    if way == "empty":
        file.touch()
    elif way == "folder":
        file.mkdir()
    elif way == "loop":
        file.symlink_to(file.name)
    elif way == "dangling":
        file.symlink_to("nowhere")
    elif way == "device":
        file.symlink_to("/dev/zero")
    elif way == "outside":
        file.symlink_to("../outside/secret")
    elif way == "sparse":
        with file.open("wb") as stream:
            stream.truncate(5 * 2**30)
    elif way == "unreadable":
        file.write_bytes(b"x")
        file.chmod(0)
    return f"{file.name}: {way}"


# Trees: JSON and YAML.


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with each of its keys."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from _places(value)


def _harm_tree(tree: Any, rng: Random, raw: list[str]) -> str:
    places = list(_places(tree))
    if not places:
        return "nothing in it"
    home, key = rng.choice(places)
    way = rng.choice(("value", "value", "value", "delete", "rename", "double", "swap", "nudge"))
    if way == "delete":
        del home[key]
    elif way == "rename" and isinstance(home, dict):
        home[rng.choice(_WORDS)] = home.pop(key)
    elif way == "double" and isinstance(home, list):
        home[key:key] = [home[key]] * rng.choice((1, 2, 1000))
    elif way == "swap":
        other_home, other = rng.choice(places)
        home[key] = json.loads(json.dumps(other_home[other])) if _reachable(other_home, other) else None
    elif way == "nudge" and isinstance(home[key], int | float) and not isinstance(home[key], bool):
        home[key] = home[key] * rng.choice((-1, 0, 2, 1e6, 1e-9)) + rng.choice((0, 1, 0.5))
    else:
        home[key] = _value(rng, raw)
    return f"{way} of {str(key)[:40]}"


def _reachable(home: Any, key: Any) -> bool:
    try:
        return len(json.dumps(home[key])) < 100_000
    except (KeyError, IndexError, TypeError, ValueError):
        return False


def _value(rng: Random, raw: list[str]) -> Any:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(_NUMBERS)
    if kind == 1:
        return rng.choice(_WORDS)
    if kind == 2:
        raw.append(rng.choice(_PIECES))
        return RAW % (len(raw) - 1)
    if kind == 3:
        return rng.choice((None, True, False, 0.5, -1.5, 1e308, [], {}, [[]], {"": None}))
    return rng.choice(([None], [1, "a", None], {"a": {"b": [1]}}, [0] * 1000, ["../x"]))


def _json(file: Path, rng: Random, times: int) -> str:
    tree = json.loads(file.read_text())
    raw: list[str] = []
    said = [_harm_tree(tree, rng, raw) for _ in range(times)]
    text = json.dumps(tree)
    for number, piece in enumerate(raw):
        text = text.replace(json.dumps(RAW % number), piece)
    encoding = rng.choice(("utf-8",) * 9 + ("utf-16",))
    file.write_bytes(text.encode(encoding, "surrogatepass"))
    return ", ".join(said)


def _yaml(file: Path, rng: Random, times: int) -> str:
    text = file.read_text()
    head = text.splitlines()[0]
    if rng.random() < 0.3:
        way = rng.choice(("tabs", "binary", "aliases", "tag", "interpolation", "anchor", "deep", "colon"))
        extra = {
            "tabs": "\tname: x\n",
            "binary": "\x00\x01\x02: \x07\n",
            "aliases": "a0: &a0 [x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
            "tag": "name: !!python/object/apply:os.system ['touch ../outside/pwned']\n",
            "interpolation": rng.choice(
                ("name: ${name}\n", "name: ${oc.env:NOT_THERE}\n", "name: ${a.${b}}\n", "name: ${\n")
            ),
            "anchor": "name: &a\n  b: *a\n",
            "deep": "name: " + "[" * 3000 + "]" * 3000 + "\n",
            "colon": "name: a: b: c\n",
        }[way]
        file.write_text(text + extra if rng.random() < 0.5 else f"{head}\n{extra}")
        return way
    tree = yaml.safe_load(text)
    raw: list[str] = []
    said = [_harm_tree(tree, rng, raw) for _ in range(times)]
    text = yaml.safe_dump(tree, allow_unicode=True)
    for number, piece in enumerate(raw):
        text = text.replace(RAW % number, piece)
    file.write_bytes(f"{head}\n{text}".encode("utf-8", "surrogatepass"))
    return ", ".join(said)


# Archives of arrays.


def _npz(file: Path, rng: Random, times: int) -> str:
    with zipfile.ZipFile(file) as archive:
        members = {name: bytearray(archive.read(name)) for name in archive.namelist()}
    name = rng.choice(list(members))
    way = rng.choice(("name", "object", "shape", "type", "bytes", "drop", "deflate bomb", "nan"))
    compression = zipfile.ZIP_STORED
    if way == "name":
        members[rng.choice(("../x.npy", "/x.npy", "", "a\0b.npy", "x", "w" * 300 + ".npy"))] = members.pop(name)
    elif way == "object":
        buffer = io.BytesIO()
        np.save(buffer, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
        members[name] = bytearray(buffer.getvalue())
    elif way in ("shape", "type"):
        stored = bytes(members[name])
        new = rng.choice((b"(1099511627776,)", b"(-1,)", b"()", b"(2,3)", b"('a',)", b"(1,)*9**9"))
        kind = rng.choice((b"'<f4'", b"'|O'", b"'<U4294967296'", b"'<M8[ns]'", b"'x'", b"[('a','<f8')]"))
        header, _, rest = stored[10:].partition(b"\n")
        start = header.find(b"'shape'") if way == "shape" else header.find(b"'descr'")
        end = header.find(b")", start) + 1 if way == "shape" else header.find(b",", start)
        changed = header[: start + 9] + (new if way == "shape" else kind) + header[end:]
        changed = changed.rstrip() + b" " * max(0, len(header) - len(changed.rstrip())) + b"\n"
        members[name] = bytearray(stored[:8] + len(changed).to_bytes(2, "little") + changed + rest)
    elif way == "bytes":
        members[name][rng.randrange(len(members[name]))] ^= 255
    elif way == "drop":
        del members[name]
    elif way == "deflate bomb":
        compression = zipfile.ZIP_DEFLATED
        shape = b"{'descr': '|u1', 'fortran_order': False, 'shape': (209715200,), }".ljust(117) + b"\n"
        members[name] = bytearray(bytes(members[name][:8]) + b"v\0" + shape + bytes(200 * 2**20))
    else:
        members[name][-8:] = np.array([np.nan]).tobytes()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member or "x", bytes(content))
    return f"{way} of {name}"


# Models: any field of any message.


def _messages(message: Any, depth: int = 0) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from _messages(inner, depth + 1)


def _model(file: Path, rng: Random, times: int) -> str:
    model = onnx.load(str(file), load_external_data=False)
    said = []
    for _ in range(times):
        special = rng.random() < 0.3
        said.append(rng.choice(_SPECIAL)(model, rng) if special else _field(rng.choice(list(_messages(model))), rng))
    file.write_bytes(model.SerializeToString())
    return ", ".join(said)


def _field(message: Any, rng: Random) -> str:
    fields = list(message.DESCRIPTOR.fields)
    present = [field for field, _ in message.ListFields()]
    field = rng.choice(present if present and rng.random() < 0.85 else fields)
    said = f"{message.DESCRIPTOR.name}.{field.name}"
    if field.is_repeated:
        values = getattr(message, field.name)
        way = rng.choice(("clear", "drop", "double", "swap", "change"))
        if way == "clear" or not values:
            message.ClearField(field.name)
        elif way == "drop":
            del values[rng.randrange(len(values))]
        elif way == "double":
            values.extend([values[rng.randrange(len(values))]] * rng.choice((1, 1, 3)))
        elif way == "swap":
            items = list(values)
            rng.shuffle(items)
            del values[:]
            values.extend(items)
        elif field.message_type is None:
            values[rng.randrange(len(values))] = _scalar(field, rng, values[0])
        else:
            _field(values[rng.randrange(len(values))], rng)
        return f"{way} {said}"
    if field.message_type is not None:
        if rng.random() < 0.5:
            message.ClearField(field.name)
            return f"clear {said}"
        return _field(getattr(message, field.name), rng)
    setattr(message, field.name, _scalar(field, rng, getattr(message, field.name)))
    return f"set {said}"


def _scalar(field: Any, rng: Random, now: Any) -> Any:
    if field.enum_type is not None:
        return rng.choice([value.number for value in field.enum_type.values])
    if isinstance(now, bytes):
        way = rng.randrange(4)
        return (b"", now[: rng.randrange(len(now) + 1)], now + rng.randbytes(3), rng.randbytes(len(now)))[way]
    if isinstance(now, str):
        return rng.choice([word for word in _WORDS if "\ud800" not in word])
    if isinstance(now, float):
        return rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    wide = field.cpp_type == field.CPPTYPE_INT64
    unsigned = field.cpp_type in (field.CPPTYPE_UINT64, field.CPPTYPE_UINT32)
    most = 2**63 - 1 if wide or unsigned else 2**31 - 1
    least = 0 if unsigned else -most - 1
    return max(least, min(most, rng.choice((*_NUMBERS, now + 1, now - 1, now * 2, 7, 23))))


def _any_shape(model: onnx.ModelProto, rng: Random) -> str:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not values:
        return "no value"
    value = rng.choice(values)
    dims = value.type.tensor_type.shape.dim
    if dims:
        dims[rng.randrange(len(dims))].dim_value = rng.choice(_NUMBERS[:-2])
    return f"size of {value.name[:20]}"


def _attribute(model: onnx.ModelProto, rng: Random) -> str:
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return "no attribute"
    node = rng.choice(nodes)
    attribute = rng.choice(node.attribute)
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = rng.choice(_NUMBERS[:-2])
    elif attribute.type == onnx.AttributeProto.INTS and attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_NUMBERS[:-2])
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"\xff\xfe", b"x", b"linear" * 100))
    else:
        attribute.type = rng.choice(list(onnx.AttributeProto.AttributeType.values()))
    return f"{node.op_type}.{attribute.name}"


def _elsewhere(model: onnx.ModelProto, rng: Random) -> str:
    """Say that a weight lies in another file."""
    if not model.graph.initializer:
        return "no weight"
    tensor = rng.choice(model.graph.initializer)
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="model.data")
    key = rng.choice(("location", "location", "offset", "length"))
    words = [word for word in _WORDS if "\ud800" not in word]
    value = rng.choice(words) if key == "location" or rng.random() < 0.3 else str(rng.choice(_NUMBERS))
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = value
            return f"external {key}"
    tensor.external_data.add(key=key, value=value)
    return f"external {key}"


def _wiring(model: onnx.ModelProto, rng: Random) -> str:
    """Let an operator read or write something else."""
    if not model.graph.node:
        return "no operator"
    node = rng.choice(model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + ["", "nowhere"]
    ends = rng.choice((node.input, node.output))
    if ends:
        ends[rng.randrange(len(ends))] = rng.choice(names)
    return f"wiring of {node.op_type}"


def _kind(model: onnx.ModelProto, rng: Random) -> str:
    if not model.graph.node:
        return "no operator"
    node = rng.choice(model.graph.node)
    schema = rng.choice(onnx.defs.get_all_schemas())
    node.op_type, node.domain = schema.name, rng.choice((schema.domain, schema.domain, "com.microsoft", "x"))
    return f"operator {schema.name}"


def _nested(model: onnx.ModelProto, rng: Random) -> str:
    """Put the graph into the branch of an If, that into another, and so on."""
    for _ in range(rng.choice((1, 5, 30, 60))):
        inner = onnx.GraphProto()
        inner.CopyFrom(model.graph)
        del inner.input[:]
        del model.graph.node[:]
        model.graph.node.append(
            onnx.helper.make_node(
                "If", ["condition"], [value.name for value in inner.output], then_branch=inner, else_branch=inner
            )
        )
        if model.ByteSize() > 2**22:
            break
    model.graph.input.append(onnx.helper.make_tensor_value_info("condition", onnx.TensorProto.BOOL, []))
    return "nested"


def _functions(model: onnx.ModelProto, rng: Random) -> str:
    """Let an operator be a function that calls itself, or functions that double."""
    if not model.graph.node:
        return "no operator"
    node = rng.choice(model.graph.node)
    depth = rng.choice((1, 3, 25))
    for level in range(depth):
        name = f"f{level}"
        below = f"f{level + 1}" if level < depth - 1 else rng.choice(("f0", "Identity"))
        domain = "" if below == "Identity" else "local"
        calls = [
            onnx.helper.make_node(below, ["x"], ["a"], domain=domain),
            onnx.helper.make_node(below, ["a"], ["y"], domain=domain),
        ]
        opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("local", 1)]
        model.functions.append(onnx.helper.make_function("local", name, ["x"], ["y"], calls, opsets))
    node.op_type, node.domain = "f0", "local"
    del node.attribute[:]
    del node.input[1:]
    del node.output[1:]
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    return f"{depth} functions"


_SPECIAL: tuple[Callable[[onnx.ModelProto, Random], str], ...] = (
    _any_shape,
    _attribute,
    _attribute,
    _elsewhere,
    _elsewhere,
    _wiring,
    _kind,
    _nested,
    _functions,
)


def fresh(source: Path, target: Path) -> None:
    """Copy an original; whatever lay there goes."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        for root, folders, files in os.walk(target):
            for name in (*folders, *files):
                path = Path(root, name)
                if not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(target)
    shutil.copytree(source, target, symlinks=True)
