"""ONNX types as plain values: element types, fixed shapes, and the names of what is no tensor."""

import onnx

TensorType = tuple[str | None, tuple[int, ...] | None]
"""The element type in lower case and the shape; None where unknown. What is no tensor has its type's name."""

DTYPES = {number: name.lower() for name, number in onnx.TensorProto.DataType.items() if number}
"""Element types in lower case by ONNX's number."""


def tensor_type(kind: onnx.TypeProto | None) -> TensorType:
    """Reduce an ONNX type to element type and fixed shape."""
    if kind is None:
        return None, None
    if kind.WhichOneof("value") != "tensor_type":
        return type_name(kind), None
    tensor = kind.tensor_type
    shape = None
    if tensor.HasField("shape"):
        dims = tensor.shape.dim
        sizes = tuple([dim.dim_value for dim in dims])  # a list is quicker than a generator
        if 0 not in sizes or all(dim.HasField("dim_value") for dim in dims):
            shape = sizes
    return DTYPES.get(tensor.elem_type), shape


def weight_type(tensor: onnx.TensorProto) -> TensorType:
    """Element type and shape of an initializer."""
    return DTYPES.get(tensor.data_type), tuple(tensor.dims)


def type_name(kind: onnx.TypeProto) -> str | None:
    """Return a type as onnxruntime writes it, such as ``seq(tensor(float))``; None if it says nothing."""
    match kind.WhichOneof("value"):
        case "tensor_type":
            return f"tensor({DTYPES.get(kind.tensor_type.elem_type, '?')})"
        case "sparse_tensor_type":
            return f"sparse_tensor({DTYPES.get(kind.sparse_tensor_type.elem_type, '?')})"
        case "sequence_type":
            return f"seq({type_name(kind.sequence_type.elem_type) or '?'})"
        case "optional_type":
            return f"optional({type_name(kind.optional_type.elem_type) or '?'})"
        case "map_type":
            key = DTYPES.get(kind.map_type.key_type, "?")
            return f"map({key},{type_name(kind.map_type.value_type) or '?'})"
        case _:
            return None


def named_type(name: str) -> onnx.TypeProto | None:
    """Return the type that onnxruntime writes like this, without shapes; None if it is no such name."""
    outer, _, rest = name.partition("(")
    inner = rest.removesuffix(")")
    result = onnx.TypeProto()
    if outer in ("tensor", "sparse_tensor"):
        number = {dtype: number for number, dtype in DTYPES.items()}.get(inner)
        if number is None:
            return None
        getattr(result, f"{outer}_type").elem_type = number
        return result
    if outer == "map":
        key, _, inner = inner.partition(",")
        result.map_type.key_type = {dtype: number for number, dtype in DTYPES.items()}.get(key, 0)
    elem = named_type(inner) if outer in ("seq", "optional", "map") else None
    if elem is None:
        return None
    target = {"seq": result.sequence_type.elem_type, "optional": result.optional_type.elem_type}.get(outer)
    (result.map_type.value_type if target is None else target).CopyFrom(elem)
    return result


def is_known(kind: onnx.TypeProto | None) -> bool:
    """Whether nothing is left to find out: a tensor's element type and each of its sizes, or what it is instead."""
    dtype, shape = tensor_type(kind)
    return dtype is not None and (shape is not None or "(" in dtype)


def has_rank(kind: onnx.TypeProto | None) -> bool:
    """Whether a type says of a tensor its element type and number of dimensions, or what it is instead."""
    if kind is None or kind.WhichOneof("value") != "tensor_type":
        return kind is not None and kind.WhichOneof("value") is not None
    return bool(kind.tensor_type.elem_type) and kind.tensor_type.HasField("shape")


def in_common(one: onnx.TypeProto | None, other: onnx.TypeProto | None) -> onnx.TypeProto | None:
    """Return what two types have in common: sizes in which they differ are open, ranks too; None if all differs."""
    if one is None or other is None or one == other:
        return one if one == other else None
    if type_name(one) != type_name(other):
        return None
    if one.WhichOneof("value") != "tensor_type":
        return named_type(type_name(one) or "")
    common, sizes = onnx.TypeProto(), [kind.tensor_type.shape.dim for kind in (one, other)]
    common.tensor_type.elem_type = one.tensor_type.elem_type
    if has_rank(one) and has_rank(other) and len(sizes[0]) == len(sizes[1]):
        dims = common.tensor_type.shape.dim
        common.tensor_type.shape.SetInParent()
        dims.extend(a if a == b and a.HasField("dim_value") else type(a)() for a, b in zip(*sizes, strict=True))
    return common


def stacked(kind: onnx.TypeProto | None, count: int | None) -> onnx.TypeProto | None:
    """Return the type of so many tensors of a type, one after the other; their number may be open."""
    if not has_rank(kind) or kind is None or kind.WhichOneof("value") != "tensor_type":
        return None
    result = onnx.TypeProto()
    result.CopyFrom(kind)
    first = onnx.TensorShapeProto.Dimension() if count is None else onnx.TensorShapeProto.Dimension(dim_value=count)
    del result.tensor_type.shape.dim[:]
    result.tensor_type.shape.dim.extend([first, *kind.tensor_type.shape.dim])
    return result
