"""ONNX's own tests: does pepper take each model, and do its parts compute what the whole does?

The onnx package brings tests of every operator (``node``, made on the spot), small models (``simple``) and exports of
PyTorch (``pytorch``), each with inputs. Each model is loaded at these inputs, its operators are costed, and it is split
at every place that any number of tensors cross: as one part, at each place alone, and at all of them. Parts must pass
``onnx.checker`` and load where the whole does, and compute what it does on the test's inputs, up to what rounding
explains. Shapes are held to those of a run. Tests run in a process of their own, which may die.

    python -m benchmarks.onnx_tests
"""

import argparse
import os
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx.backend.test.loader import load_model_tests

from benchmarks.common import print_table
from pepper.errors import ModelError, PepperError
from pepper.graph.costs import Costing
from pepper.graph.cuts import Cut, find_cuts
from pepper.graph.inputs import NUMPY_TYPES
from pepper.graph.ir import Graph, is_tensor
from pepper.graph.load import load_graph
from pepper.graph.manifest import Manifest
from pepper.graph.rounding import Values, compare, excess, floors
from pepper.graph.running import Session, open_whole
from pepper.graph.source import read_proto, real_inputs
from pepper.graph.split import split

GROUPS = {"node": ["node"], "simple": ["simple"], "pytorch": ["pytorch-converted", "pytorch-operator"]}
FAULTS = ("crashes", "do not load", "invalid", "wrong", "wrong shapes", "unknown shapes", "no rule")
"""What must not be. Parts do not load, are invalid or wrong; shapes are wrong or unknown where a run tells them;
operators have no cost rule."""
COLUMNS = ("tests", "refused", "not run", "parts", *FAULTS, "cost in part", "open without values")
_MANY = 1_000  # tensors may cross


@dataclass
class Outcome:
    """What came of a test.

    Attributes:
        counts: How often each of `COLUMNS`.
        notes: A line for all that is no success.
    """

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def count(self, what: str, why: object) -> None:
        """Count one of the columns, with a reason."""
        self.counts[what] += 1
        self.notes.append(f"{what}: {' '.join(str(why).split())[:300]}")


@dataclass(frozen=True)
class Test:
    """A model with inputs.

    Attributes:
        name: Its name, unique in its group.
        model: The model.
        inputs: What it is fed, in the order of its inputs.
    """

    name: str
    model: onnx.ModelProto
    inputs: Sequence[Any]


@lru_cache
def tests(group: str) -> list[Test]:
    """Return the tests of a group, each with its first set of inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = [case for kind in GROUPS[group] for case in load_model_tests(kind=kind)]
    return [_test(case) for case in cases]


def _test(case: Any) -> Test:
    if case.model is not None:
        return Test(case.name, case.model, [_plain(value) for value in case.data_sets[0][0]])
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    files = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
    return Test(case.name, model, [_stored(file, value) for file, value in zip(files, model.graph.input, strict=False)])


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _stored(file: Path, value: onnx.ValueInfoProto) -> Any:
    if value.type.WhichOneof("value") == "sequence_type":
        return onnx.numpy_helper.to_list(onnx.SequenceProto.FromString(file.read_bytes()))
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))


def try_test(test: Test) -> Outcome:
    """Take a test's model through pepper's graph room."""
    outcome = Outcome()
    outcome.counts["tests"] += 1
    with tempfile.TemporaryDirectory(prefix="pepper-onnx-tests-") as name:
        try:
            _try(test, Path(name), outcome)
        except PepperError as error:
            outcome.count("refused", error)
        except Exception as error:  # what a user would see as a traceback
            where = traceback.extract_tb(error.__traceback__)[-1]
            outcome.count("crashes", f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}")
    return outcome


def _try(test: Test, folder: Path, outcome: Outcome) -> None:
    file = folder / "model.onnx"
    file.write_bytes(test.model.SerializeToString())
    specs = real_inputs(read_proto(file).graph)
    feeds = dict(zip((spec.name for spec in specs), test.inputs, strict=False))
    arrays = {spec.name: feeds[spec.name] for spec in specs if is_tensor(spec.dtype) and spec.name in feeds}
    given = {spec.name: arrays[spec.name] for spec in specs if spec.name in arrays and spec.dtype in NUMPY_TYPES}
    shapes = {name: np.shape(value) for name, value in arrays.items()}
    if open_shapes := load_graph(file, shapes).unknown_shapes():
        outcome.count("open without values", ", ".join(tensor.name for tensor in open_shapes))
    graph = load_graph(file, shapes, inputs=given)

    costing = Costing(graph)
    list(costing)
    feeds = {name: _fed(value) for name, value in feeds.items()}
    whole = _whole(graph, feeds, outcome)
    if whole is not None:
        for gap in costing.gaps:
            outcome.count("no rule" if "no cost rule" in gap else "cost in part", gap)
        _hold_shapes(graph, feeds, outcome)
    cuts = find_cuts(graph, "frontiers", _MANY)
    valid = not _invalid(file)
    for number, borders in enumerate(_choices(cuts)):
        parts = folder / f"parts{number}"
        manifest = split(graph, borders, parts)
        outcome.counts["parts"] += len(manifest.parts)
        if valid:
            for part in manifest.parts:
                if reason := _invalid(parts / part.file):
                    outcome.count("invalid", reason)
        if whole is not None:
            _hold_parts(graph, manifest, parts, feeds, whole, outcome)


def _fed(value: Any) -> Any:
    """What onnxruntime takes: numpy's own types as they are, others by their bits."""
    if not isinstance(value, np.ndarray) or not value.dtype.name.startswith(("bfloat", "float8")):
        return value
    bits = value.view(f"u{value.dtype.itemsize}")
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.helper.np_dtype_to_tensor_dtype(value.dtype))


def _choices(cuts: Sequence[Cut]) -> Iterator[Sequence[Cut]]:
    yield []
    yield from ([cut] for cut in cuts)
    if len(cuts) > 1:
        yield cuts


def _invalid(file: Path) -> str | None:
    try:
        onnx.checker.check_model(str(file))
    except Exception as error:  # onnx raises ValidationError, RuntimeError and ValueError alike
        return str(error)
    return None


def _whole(graph: Graph, feeds: Mapping[str, Any], outcome: Outcome) -> Values | None:
    """The outputs of the whole; None where onnxruntime does not give them."""
    try:
        return open_whole(graph, 1)(feeds)
    except ModelError as error:
        outcome.count("not run", error)
        return None


def _hold_shapes(graph: Graph, feeds: Mapping[str, Any], outcome: Outcome) -> None:
    names = [tensor.name for tensor in graph.tensors if tensor.producer is not None]
    if not names:
        return
    try:
        values = open_whole(graph, 1, "none", names)(feeds)
    except ModelError:
        return
    for tensor in (graph.by_name[name] for name in names):
        value = values[tensor.name]
        if isinstance(value, np.ndarray) and tensor.shape is None:
            outcome.count("unknown shapes", f"{tensor.name!r} is {value.shape}, known as {tensor.dtype}")
        elif isinstance(value, np.ndarray) and tensor.shape != value.shape:
            outcome.count("wrong shapes", f"{tensor.name!r} is {value.shape}, not {tensor.shape}")


def _hold_parts(
    graph: Graph, manifest: Manifest, folder: Path, feeds: Mapping[str, Any], whole: Values, outcome: Outcome
) -> None:
    """Run the parts one after the other and compare what comes out."""
    values = dict(feeds)
    for part in manifest.parts:
        try:
            run = Session(folder / part.file, folder / part.file, [spec.name for spec in part.outputs], 1)
            values.update(run({spec.name: values[spec.name] for spec in part.inputs}))
        except ModelError as error:
            outcome.count("do not load", error)
            return
    far, limits = compare([(dict(feeds), whole)], [values], floors(graph, whole), None, partial(open_whole, graph, 1))
    for name, limit in limits.items():
        if excess(far[name], limit) > 1:
            at = ", ".join(name for names in manifest.cuts for name in names)
            outcome.count("wrong", f"{name!r} is {far[name]:.3g} off, not {limit:.3g}, cut at {at[:100] or 'nothing'}")


def _try_named(group: str, number: int) -> Outcome:
    return try_test(tests(group)[number])


def try_all(chosen: Sequence[tuple[str, int]]) -> Iterator[Outcome]:
    """Try tests, given by group and number, in a process of their own."""
    pool = None
    for group, number in chosen:
        pool = pool or ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            yield pool.submit(_try_named, group, number).result()
        except BrokenProcessPool:
            pool = None
            died = Outcome(Counter({"tests": 1}))
            died.count("crashes", "the process died")
            yield died
    if pool is not None:
        pool.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--match", default="", help="only tests with this in their name")
    parser.add_argument("--every", type=int, default=1, help="only every Nth of these")
    parser.add_argument("--names", action="store_true", help="print each test that did not go all the way, with why")
    options = parser.parse_args()
    chosen = [
        (group, number, test.name)
        for group in GROUPS
        for number, test in enumerate(tests(group))
        if options.match in test.name
    ][:: options.every]
    by_group = {group: Counter[str]() for group in GROUPS}
    outcomes = try_all([(group, number) for group, number, _ in chosen])
    for (group, _, name), outcome in zip(chosen, outcomes, strict=True):
        by_group[group] += outcome.counts
        if options.names:
            for note in outcome.notes:
                print(f"{group} {name}: {note}", flush=True)
    total = sum(by_group.values(), Counter[str]())
    rows = [[group, *(f"{counts[c]:,}" for c in COLUMNS)] for group, counts in {**by_group, "all": total}.items()]
    print_table(f"onnx {onnx.__version__}", ["group", *COLUMNS], rows)
    sys.exit(1 if any(total[fault] for fault in FAULTS) else 0)


if __name__ == "__main__":
    os.environ.setdefault("ORT_LOGGING_LEVEL", "4")
    main()
