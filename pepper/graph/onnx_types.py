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
        sizes = tuple(dim.dim_value for dim in dims)
        if all(sizes) or all(dim.HasField("dim_value") for dim in dims):
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
