"""From a graph and cuts to one ONNX file a part, and a manifest that says how they fit together."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from pepper.errors import ModelError, argument, key_of
from pepper.graph import cuts as cutting
from pepper.graph import infer, source
from pepper.graph.external import gather_external
from pepper.graph.ir import Graph, Tensor
from pepper.graph.manifest import Manifest, Part, is_split, write_manifest
from pepper.graph.onnx_types import has_rank
from pepper.graph.topology import bodies, captured_names
from pepper.outputs import replace_folder

_Types = Mapping[str, onnx.TypeProto]


def part_operators(graph: Graph, cuts: Sequence[cutting.Cut]) -> list[list[int]]:
    """Return the operators of each part, parts in an order in which they can run.

    Operators on the same side of every cut form a part. All data flows one way through every cut, so an
    operator that lies before more cuts than another never reads from it. A model without operators is one part.
    """
    if not graph.operators:
        return [[]]
    everything = np.ones(len(graph.operators), bool)
    sides = np.stack([everything, *(cutting.before(graph, cut) for cut in cuts)])
    _, first, member = np.unique(sides, axis=1, return_index=True, return_inverse=True)
    cuts_ahead = sides[:, first].sum(axis=0)
    order = sorted(range(len(first)), key=lambda part: (-int(cuts_ahead[part]), int(first[part])))
    member = member.ravel()
    return [np.flatnonzero(member == part).tolist() for part in order]


def split(graph: Graph, cuts: Sequence[cutting.Cut], out: Path, key: str = "split.out") -> Manifest:
    """Write one ONNX file a part and ``manifest.json`` into ``out``.

    The folder appears complete or not at all. One that an earlier split left is replaced.

    Args:
        graph: The whole model.
        cuts: Where it is cut.
        out: The folder.
        key: The configuration's key for it, for errors.

    Raises:
        ModelError: The type of a crossing tensor is unknown, or external data is truncated.
        ConfigError: The folder holds something else than an earlier split, or cannot be written.
    """
    written: list[Manifest] = []

    def write(folder: Path) -> None:
        written.append(_write_parts(graph, cuts, folder))
        write_manifest(written[0], folder)

    replace_folder(key, out, is_split, write)
    return written[0]


def _write_parts(graph: Graph, cuts: Sequence[cutting.Cut], folder: Path) -> Manifest:
    types = _border_types(graph)
    groups = part_operators(graph, cuts)
    home = {index: part for part, group in enumerate(groups) for index in group}
    last = len(groups) - 1
    given: list[dict[int, None]] = [{} for _ in groups]  # tensors that each part gives, in order
    for tensor in graph.tensors:
        if tensor.producer is not None and any(home[r] != home[tensor.producer] for r in tensor.readers):
            given[home[tensor.producer]][tensor.id] = None
    for output in graph.outputs:
        producer = graph.tensors[output].producer
        given[last if producer is None else home[producer]][output] = None

    whole = _Whole(graph)
    parts = []
    for number, group in enumerate(groups):
        model = _part_model(graph, group, list(given[number]), types, whole)
        name = f"part_{number + 1:0{len(str(len(groups)))}d}.onnx"
        weights_file = gather_external(model, graph.file, folder / f"{name}.data")
        onnx.save_model(model, str(folder / name))
        parts.append(
            Part(
                file=name,
                sha256=source.content_hash([folder / file for file in (name, weights_file) if file]),
                weights_file=weights_file,
                operators=len(group),
                inputs=tuple(source.tensor_spec(value) for value in model.graph.input),
                outputs=tuple(source.tensor_spec(value) for value in model.graph.output),
            )
        )
    return Manifest(
        source=str(graph.file),
        source_sha256=source.content_hash([graph.file]),
        inputs=tuple(source.tensor_spec(_value(graph, t, types)) for t in graph.inputs),
        outputs=tuple(source.tensor_spec(_value(graph, t, types)) for t in graph.outputs),
        shapes={graph.tensors[t].name: graph.tensors[t].shape or () for t in graph.inputs},
        cuts=tuple(tuple(graph.tensors[t].name for t in cut.tensors) for cut in cuts),
        parts=tuple(parts),
    )


def _border_types(graph: Graph) -> _Types:
    """Types of all tensors; dynamic dimensions stay dynamic unless the caller fixed them.

    The model's last tensors keep the file's own types. Where neither the file nor a rule tells the shape of another,
    it gets the number of dimensions that it has at the analysed sizes: at a border ONNX wants one.
    """
    shapes = None
    if graph.fixed:
        shapes = {graph.tensors[t].name: graph.tensors[t].shape or () for t in graph.inputs}
    types = infer.infer_types(graph.proto, graph.file, shapes)
    main = graph.proto.graph
    outputs, inner = ({value.name: value.type for value in values} for values in (main.output, main.value_info))
    for tensor in graph.tensors:
        stated, inferred = outputs.get(tensor.name), types.get(tensor.name)
        first = (inferred, stated) if tensor.readers else (stated, inferred)
        choices = (*first, _at_sizes(graph, tensor), inner.get(tensor.name))
        known = [kind for kind in choices if kind is not None and has_rank(kind)]
        if known:
            types[tensor.name] = known[0]
    types.update(_read_in_branches(graph))
    return types


def _read_in_branches(graph: Graph) -> _Types:
    """The file's own types of inputs that an If reads in its branches.

    At fixed sizes onnxruntime refuses a branch that could not run at them, even if it never does.
    """
    read = {t for operator in graph.operators if operator.kind == "If" for t in operator.captures}
    names = {graph.tensors[t].name for t in read & set(graph.inputs)}
    return {value.name: value.type for value in graph.proto.graph.input if value.name in names and has_rank(value.type)}


def _at_sizes(graph: Graph, tensor: Tensor) -> onnx.TypeProto | None:
    """The type that the tensor has at the sizes that the graph was loaded with; sizes that may change are left open."""
    if tensor.dtype is None or tensor.shape is None:
        return graph.types.get(tensor.name)
    elem_type = onnx.TensorProto.DataType.Value(tensor.dtype.upper())
    stays = graph.fixed and tensor.name not in graph.by_run
    return onnx.helper.make_tensor_type_proto(elem_type, tensor.shape if stays else [None] * len(tensor.shape))


class _Whole:
    """Look-ups into the whole model that every part needs."""

    def __init__(self, graph: Graph) -> None:
        whole = graph.proto.graph
        self.initializers = {tensor.name: tensor for tensor in whole.initializer}
        self.sparse = {tensor.values.name: tensor for tensor in whole.sparse_initializer}
        self.stated = {value.name: value for value in whole.value_info}
        self.quantization = {note.tensor_name: note for note in whole.quantization_annotation}
        self.makers = graph.makers
        self.constants = graph.constants
        self.weights = {*self.initializers, *self.sparse, *graph.makers}
        self.functions = {(f.domain, f.name): f for f in graph.proto.functions}

    def recipe(self, weights: Iterable[str], present: Collection[str]) -> tuple[list[str], list[onnx.NodeProto]]:
        """Initializers and nodes, in no order, that make these weights.

        The nodes are the file's own. Only where one reads the shape of a tensor that another part holds (it is not
        among those ``present``), a constant stands for it.
        """
        here = {*present, ""}
        seen = set(here)
        stored: list[str] = []
        made: dict[str, onnx.NodeProto] = {}  # by first output
        pending = list(weights)
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in self.makers:
                stored.append(name)
                continue
            node = self.makers[name]
            if any(given not in self.weights and given not in here for given in node.input):
                value = onnx.numpy_helper.from_array(self.constants[name], name)
                node = onnx.helper.make_node("Constant", [], [name], name=node.name, value=value)
            made[next(filter(None, node.output))] = node
            pending.extend((*node.input, *captured_names(node)))
        return stored, list(made.values())


def _part_model(
    graph: Graph, group: Sequence[int], gives: Sequence[int], types: _Types, whole: _Whole
) -> onnx.ModelProto:
    tensors = graph.tensors
    operators = [graph.operators[index] for index in group]
    inside = {t for operator in operators for t in operator.writes}
    reads = dict.fromkeys([*(t for operator in operators for t in operator.reads), *gives])
    fed = [t for t in reads if not tensors[t].is_weight and t not in inside]
    present = {tensors[t].name for t in (*fed, *inside)}
    stored, made = whole.recipe((tensors[t].name for t in reads if tensors[t].is_weight), present)

    model = onnx.ModelProto()
    source_model = graph.proto
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(model, field, getattr(source_model, field))
    model.ir_version = max(source_model.ir_version, 4)  # before 4, weights had to be inputs too
    model.opset_import.extend(source_model.opset_import)
    model.metadata_props.extend(source_model.metadata_props)
    part = model.graph
    part.name = source_model.graph.name or "graph"
    part.doc_string = source_model.graph.doc_string
    part.metadata_props.extend(source_model.graph.metadata_props)
    part.node.extend(_ordered([*(operator.proto for operator in operators), *made]))
    part.initializer.extend(whole.initializers[name] for name in stored if name in whole.initializers)
    part.sparse_initializer.extend(whole.sparse[name] for name in stored if name in whole.sparse)
    part.input.extend(_value(graph, t, types) for t in sorted(fed, key=_input_rank(graph)))
    part.output.extend(_value(graph, t, types) for t in gives)
    model.functions.extend(_functions(part.node, whole))
    names = dict.fromkeys(tensors[t].name for t in (*reads, *inside))
    inner = names.keys() - {tensors[t].name for t in (*fed, *gives)}
    part.value_info.extend(whole.stated[name] for name in names if name in inner and name in whole.stated)
    part.quantization_annotation.extend(whole.quantization[name] for name in names if name in whole.quantization)
    return model


def _ordered(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes in their order, save that each comes behind what it reads."""
    waiting = {name: node for node in nodes for name in node.output if name}
    ordered = []
    pending = list({id(node): node for node in waiting.values()}.values())[::-1]
    while pending:
        node = pending[-1]
        missing = {id(found): found for name in (*node.input, *captured_names(node)) if (found := waiting.get(name))}
        if missing:
            pending.extend(missing.values())
            continue
        pending.pop()
        written = [waiting.pop(name, None) for name in node.output]
        if any(written):
            ordered.append(node)
    return ordered


def _input_rank(graph: Graph) -> Callable[[int], tuple[int, int]]:
    """Order of a part's inputs: the model's own first, in its order, then by when they are written."""
    rank = {tensor: place for place, tensor in enumerate(graph.inputs)}
    return lambda t: (-1, rank[t]) if t in rank else (graph.tensors[t].producer or 0, t)


def _functions(nodes: Iterable[onnx.NodeProto], whole: _Whole) -> list[onnx.FunctionProto]:
    """Local functions that the nodes call, directly or through others."""
    called: dict[tuple[str, str], onnx.FunctionProto] = {}
    pending = list(nodes)
    while pending:
        node = pending.pop()
        key = (node.domain, node.op_type)
        if key in whole.functions and key not in called:
            called[key] = whole.functions[key]
            pending.extend(called[key].node)
        for body in bodies(node):
            pending.extend(body.node)
    return list(called.values())


def _value(graph: Graph, tensor_id: int, types: _Types) -> onnx.ValueInfoProto:
    """Describe a tensor at a part's border."""
    tensor = graph.tensors[tensor_id]
    kind = types.get(tensor.name)
    if kind is not None and (kind.WhichOneof("value") != "tensor_type" or kind.tensor_type.elem_type):
        return onnx.ValueInfoProto(name=tensor.name, type=kind)
    if tensor.dtype is None:
        maker = "" if tensor.producer is None else f" ({graph.operators[tensor.producer].kind} writes it)"
        raise ModelError(
            f"{graph.file}: the type of tensor {tensor.name!r}{maker} is unknown, so no part can end there;"
            f" give {argument(key_of('model.shapes', tensor.name), '[...]')} or cut elsewhere"
        )
    elem_type = onnx.TensorProto.DataType.Value(tensor.dtype.upper())
    return onnx.helper.make_tensor_value_info(tensor.name, elem_type, tensor.shape)
