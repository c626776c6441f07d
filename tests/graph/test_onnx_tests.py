"""ONNX's own tests, a few of them: loaded, costed, split everywhere, checked and run on their own inputs."""

import random

import pytest

from benchmarks import onnx_tests

SMALL = 12  # operators


@pytest.mark.slow
@pytest.mark.parametrize(("group", "count"), [("node", 20), ("simple", 5), ("pytorch", 12)])
def test_parts_of_onnx_own_tests_are_valid_and_right(group: str, count: int) -> None:
    small = [test for test in onnx_tests.tests(group) if len(test.model.graph.node) <= SMALL]
    several = [test for test in small if len(test.model.graph.node) > 1]
    chosen = random.Random(15).sample(several, min(count // 2, len(several)))
    chosen += random.Random(16).sample(small, count - len(chosen))
    for test in chosen:
        outcome = onnx_tests.try_test(test)
        assert not outcome.counts["refused"], (test.name, outcome.notes)
        assert not any(outcome.counts[fault] for fault in onnx_tests.FAULTS), (test.name, outcome.notes)
