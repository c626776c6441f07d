"""What each operator of a graph costs: arithmetic, bytes moved, and the costs inside its bodies."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import onnx
import onnx.inliner

from pepper.errors import ModelError
from pepper.graph import infer
from pepper.graph.cost_kinds import STRING_BYTES, Call, Product, UnknownCostError, Work, bytes_of
from pepper.graph.cost_rules import RULES
from pepper.graph.folding import Folding, Value, single
from pepper.graph.fusion import fused_away, quantized_forms
from pepper.graph.inputs import input_spec
from pepper.graph.ir import Graph, Tensor, is_tensor, size_bytes
from pepper.graph.onnx_types import tensor_type, weight_type

_INT8 = {"int8", "uint8", "int4", "uint4", "int2", "uint2"}
_FLOAT16 = {"float16", "bfloat16"}
_LONGEST_LOOP = 1_000_000  # beyond it, a trip count stands for "until the condition fails"

_Known = Callable[[str], Value | None]
"""The value of a tensor by name, where it is known: trip counts, conditions, shapes."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One operator's cost, or the cost of one kind of operator inside a body.

    Attributes:
        kind: One of ``cost_kinds.KINDS``.
        products: The matrix products that hold its MACs.
        read_bytes: Bytes that it reads, weights included.
        written_bytes: Bytes that it writes.
        precision: ``int8``, ``float16`` or ``float32`` (anything else): what its MACs multiply.
        operators: How often a kernel is launched; a loop's body counts once a trip, a recurrent layer once a step.
        held: Weights that its bodies hold.
    """

    kind: str
    products: Sequence[Product]
    read_bytes: int
    written_bytes: int
    precision: str = "float32"
    operators: int = 1
    held: Sequence[Tensor] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(product.macs for product in self.products)

    def within_another(self) -> "Cost":
        """The cost of what is computed within another operator."""
        # Not `replace`, which takes ten times as long: this is asked of every other operator.
        return Cost(
            "fused", self.products, self.read_bytes, self.written_bytes, self.precision, self.operators, self.held
        )

    def repeated(self, times: int) -> "Cost":
        """The cost of running it several times."""
        return replace(
            self,
            products=[product._replace(times=product.times * times) for product in self.products],
            read_bytes=self.read_bytes * times,
            written_bytes=self.written_bytes * times,
            operators=self.operators * times,
        )


class Costing:
    """Costs the operators of a graph.

    An If costs the branch that its condition takes, where that is known (a value that is given for an input counts as
    known), else its costliest branch; a Loop its body times a constant trip count; a Scan its body times the
    sequence length; a local function its body.

    Attributes:
        graph: The graph.
        fused: For each operator whether it is computed within another, see `fusion.fused_away`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.fused = fused_away(graph)
        self._quantized = quantized_forms(graph)
        self._gaps: dict[str, None] = {}

    @property
    def gaps(self) -> Sequence[str]:
        """A line for each operator met so far whose cost is not, or not fully, known."""
        return tuple(self._gaps)

    def __iter__(self) -> Iterator[list[Cost]]:
        """Cost each operator in turn: one entry, and one for each operator inside its bodies."""
        tensors, operators = self.graph.tensors, self.graph.operators
        for operator, fused in zip(operators, self.fused, strict=True):
            inputs = [None if t is None else tensors[t] for t in operator.inputs]
            outputs = [None if t is None else tensors[t] for t in operator.outputs]
            dequantized = len(inputs) > 1 and all(self._is_dequantized(tensor) for tensor in inputs[:2])
            if operator.index in self._quantized:
                inputs = [_in_8_bits(tensor) for tensor in inputs]
                outputs = [_in_8_bits(tensor) for tensor in outputs] if self._quantized[operator.index] else outputs
            scope = {tensors[t].name: tensors[t] for t in operator.captures}
            call = Call(operator.proto, inputs, outputs)
            costs = self._costs(call, operator.name, scope, self._value, dequantized)
            yield [cost.within_another() for cost in costs] if fused else costs

    def _is_dequantized(self, tensor: Tensor | None) -> bool:
        if tensor is None:
            return False
        if tensor.producer is None:
            maker = self.graph.makers.get(tensor.name)
            return maker is not None and maker.op_type == "DequantizeLinear"
        return self.graph.operators[tensor.producer].kind == "DequantizeLinear"

    def _costs(
        self, call: Call, name: str, scope: Mapping[str, Tensor], known: _Known, dequantized: bool = False
    ) -> list[Cost]:
        proto = call.proto
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        if (domain, proto.op_type) in self._functions:
            return self._function(call, name, known)
        rule = RULES.get((domain, proto.op_type))
        try:
            if rule is None:
                raise UnknownCostError("pepper has no cost rule for it")
            work = rule(call)
        except UnknownCostError as error:
            self._gap(name, proto, str(error))
            work = Work("other")
        except (ArithmeticError, IndexError, TypeError, ValueError):
            self._gap(name, proto, "its shapes or attributes are not those of the operator set")
            work = Work("other")
        cost = self._priced(call, name, work, dequantized)
        return [cost, *self._bodies(call, name, scope, known)] if work.kind == "control" else [cost]

    def _priced(self, call: Call, name: str, work: Work, dequantized: bool) -> Cost:
        read, written = work.read_bytes, work.written_bytes
        if read is None:
            read = self._bytes(call, name, {t.name: t for t in call.inputs if t is not None}.values())
        if written is None:
            written = self._bytes(call, name, call.outputs)
        if work.kind == "classical":
            read += sum(_held_bytes(attribute) for attribute in call.proto.attribute)
        if not work.products:
            return Cost(work.kind, (), read, written)
        dtype = call.inputs[0].dtype if call.inputs[0] is not None else None
        precision = work.precision or "float32"
        if dtype in _INT8 or dequantized or call.proto.op_type.startswith("DynamicQuantize"):
            precision = "int8"
        elif dtype in _FLOAT16 and work.precision is None:
            precision = "float16"
        return Cost(work.kind, work.products, read, written, precision, work.launches)

    def _bytes(self, call: Call, name: str, tensors: Iterable[Tensor | None]) -> int:
        total = 0
        for tensor in tensors:
            if tensor is not None and is_tensor(tensor.dtype):  # what is none is handed on by reference
                size = bytes_of(tensor)
                if size is None:
                    self._gap(name, call.proto, f"the size of {tensor.name!r} is unknown")
                else:
                    total += size
        return total

    def _gap(self, name: str, proto: onnx.NodeProto, reason: str) -> None:
        self._gaps[f"{name} ({proto.op_type}): {reason}"] = None

    # Bodies: each is inferred as a model of its own, at the shapes that it is called with.

    @cached_property
    def _functions(self) -> dict[tuple[str, str], onnx.FunctionProto]:
        return {(f.domain, f.name): f for f in self.graph.proto.functions}

    @cached_property
    def _folding(self) -> Folding:
        """Values of the main graph that follow from constants, from shapes and from what the user gives for inputs."""
        proto, given = self.graph.proto, self.graph.given
        weights = [tensor for tensor in proto.graph.initializer if tensor.data_location != tensor.EXTERNAL]
        for tensor in (self.graph.tensors[t] for t in self.graph.inputs):
            if tensor.name in given and tensor.dtype is not None and tensor.shape is not None:
                value = input_spec(tensor.name, tensor.dtype, tensor.shape, given[tensor.name]).value
                if value is not None:
                    weights.append(onnx.numpy_helper.from_array(value, tensor.name))
        folding = Folding(proto.graph.node, weights, self.graph.types, proto.opset_import)
        for name, known in self.graph.constants.items():  # of branches, too
            folding.learn(name, known)
        return folding

    def _value(self, name: str) -> Value | None:
        return self._folding.value(name)

    def _function(self, call: Call, name: str, known: _Known) -> list[Cost]:
        caller = onnx.NodeProto()
        caller.CopyFrom(call.proto)
        caller.output[:] = [output or f"unread_{i}" for i, output in enumerate(call.proto.output)]
        graph = onnx.GraphProto(name="call", node=[caller])
        given = {t.name: t for t in call.inputs if t is not None}
        model = self._model(graph, given, known, caller.output)
        try:
            return self._inside(onnx.inliner.inline_local_functions(model).graph, given, name, known)
        except (RuntimeError, onnx.checker.ValidationError) as error:
            self._gap(name, call.proto, f"its function cannot be inlined ({' '.join(str(error).split())[:200]})")
            return []

    def _bodies(self, call: Call, name: str, scope: Mapping[str, Tensor], known: _Known) -> list[Cost]:
        kind, trips = call.proto.op_type, None
        if kind == "If":
            condition = single(known(call.proto.input[0]))
            taken = ["then_branch", "else_branch"]
            if condition is not None:
                taken = taken[:1] if condition else taken[1:]
            branches = [self._inside(call.attribute(branch), scope, name, known) for branch in taken]
            return max(branches, key=lambda costs: _weight_of(costs))
        body = call.attribute("body")
        given = dict(scope)
        if kind == "Loop":
            given |= _named(body.input[2:], call.inputs[2:])
            trips = _trip_count(call, known)
        elif kind == "Scan":
            scanned = call.attribute("num_scan_inputs", 1)
            states = len(call.inputs) - scanned
            given |= _named(body.input[:states], call.inputs[:states])
            axes = call.attribute("scan_input_axes", None) or itertools.repeat(0)
            for value, tensor, axis in zip(body.input[states:], call.inputs[states:], axes, strict=False):
                if tensor is not None and tensor.shape and axis in range(-len(tensor.shape), len(tensor.shape)):
                    rest = list(tensor.shape)
                    trips = rest.pop(axis)
                    given[value.name] = _tensor(value.name, tensor.dtype, tuple(rest))
        if trips is None:
            self._gap(name, call.proto, "how often its body runs is unknown: counted once")
            trips = 1
        return [cost.repeated(trips) for cost in self._inside(body, given, name, known)]

    def _model(
        self, graph: onnx.GraphProto, given: Mapping[str, Tensor], known: _Known, outputs: Sequence[str]
    ) -> onnx.ModelProto:
        proto = self.graph.proto
        model = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
        model.graph.name = graph.name or "body"
        model.graph.node.extend(graph.node)
        model.graph.initializer.extend(graph.initializer)
        own = {tensor.name for tensor in graph.initializer}
        for name, tensor in given.items():
            if (value := known(name)) is not None:
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            elif tensor.dtype is not None and is_tensor(tensor.dtype):
                elem = onnx.TensorProto.DataType.Value(tensor.dtype.upper())
                model.graph.input.append(onnx.helper.make_tensor_value_info(name, elem, tensor.shape))
        model.graph.input.extend(v for v in graph.input if v.name not in given and v.name not in own)
        stated = {value.name: value for value in graph.output}
        for name in outputs:
            model.graph.output.append(stated.get(name) or onnx.ValueInfoProto(name=name))
        return model

    def _inside(self, graph: onnx.GraphProto, given: Mapping[str, Tensor], name: str, known: _Known) -> list[Cost]:
        model = self._model(graph, given, known, [value.name for value in graph.output])
        try:
            types = infer.infer_types(model, self.graph.file, None)
        except ModelError:
            types = {}  # every shape that is missing below makes a gap
        folding = Folding(model.graph.node, model.graph.initializer, types, model.opset_import)
        scope = dict(given)
        for value in graph.input:
            scope.setdefault(value.name, _tensor(value.name, *tensor_type(types.get(value.name))))
        held = [_tensor(t.name, *weight_type(t), is_weight=True) for t in graph.initializer]
        costs: list[Cost] = []
        for tensor in held:
            scope[tensor.name] = tensor
        for node in graph.node:
            inputs = [scope.get(i) if i else None for i in node.input]
            constant = not any(a.HasField("g") for a in node.attribute) and all(
                t is not None and t.is_weight for t in inputs
            )
            outputs = [_tensor(o, *tensor_type(types.get(o)), is_weight=constant) if o else None for o in node.output]
            scope |= {t.name: t for t in outputs if t is not None}
            if constant:
                held += [t for t in outputs if t is not None and node.op_type == "Constant"]
            else:
                inner = node.name or node.op_type
                costs += self._costs(Call(node, inputs, outputs), f"{name}/{inner}", scope, folding.value)
        return [*costs, Cost("view", (), 0, 0, operators=0, held=held)] if held else costs


def operator_macs(graph: Graph) -> list[float]:
    """Multiply-accumulates of each operator, those of its bodies included; gaps count as none."""
    return [float(sum(cost.macs for cost in entries)) for entries in Costing(graph)]


def operator_work(graph: Graph) -> list[float]:
    """What each operator does, for parts of equal work: its MACs, and each four bytes that it moves as one more.

    So no operator does nothing, and parts of a model whose MACs all lie in one place can be told apart.
    """
    return [
        1 + sum(cost.macs + (cost.read_bytes + cost.written_bytes) / 4 for cost in entries)
        for entries in Costing(graph)
    ]


def _held_bytes(attribute: onnx.AttributeProto) -> int:
    """Bytes of the tables that an operator of classical machine learning holds."""
    texts = sum(STRING_BYTES + len(text) for text in attribute.strings)
    held = size_bytes(*weight_type(attribute.t)) if attribute.HasField("t") else 0
    return 4 * len(attribute.floats) + 8 * len(attribute.ints) + texts + (held or 0)


def _in_8_bits(tensor: Tensor | None) -> Tensor | None:
    """The integers that a form of 8 bits reads or writes where the graph has floats."""
    return None if tensor is None else _tensor(tensor.name, "int8", tensor.shape, tensor.is_weight)


def _trip_count(call: Call, known: _Known) -> int | None:
    count = single(known(call.proto.input[0])) if call.has(0) else None
    return int(count) if count is not None and 0 <= count <= _LONGEST_LOOP else None


def _named(values: Sequence[onnx.ValueInfoProto], tensors: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """The body's names for what its operator is given."""
    return {
        value.name: _tensor(value.name, tensor.dtype, tensor.shape)
        for value, tensor in zip(values, tensors, strict=False)
        if tensor is not None
    }


def _tensor(name: str, dtype: str | None, shape: tuple[int, ...] | None, is_weight: bool = False) -> Tensor:
    return Tensor(-1, name, dtype, shape, size_bytes(dtype, shape), is_weight, None, ())


def _weight_of(costs: Sequence[Cost]) -> tuple[int, int]:
    return sum(c.macs for c in costs), sum(c.read_bytes + c.written_bytes for c in costs)
