"""What is measured of a running plan: one request at a time, as many as it takes, and at a given rate."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pepper.errors import ExecutionError
from pepper.execution.message import Array
from pepper.execution.runner import Answer, Runner
from pepper.graph.rounding import Values, difference, excess

NS = 1_000_000_000
SETTLE = 0.2  # of a saturated trial's answers: the queues fill meanwhile
PAUSE_S = 0.01  # some cycles of a device that runs in turns: a request finds it anywhere in one


@dataclass(frozen=True)
class Sample:
    """A request, and what the whole model makes of it.

    Attributes:
        inputs: The model's inputs by name.
        expected: The whole model's outputs by name.
        accepted: The difference that is accepted, by output; outputs that are not named tell nothing.
    """

    inputs: Values
    expected: Values
    accepted: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Steps:
    """Where the time of one request, or the median of many, went; in ms, along the way.

    Attributes:
        transfer: Before each stage, and last before the answer: from the last sender's hand-over until it was there.
        queue: Before each stage: there, but the stage was busy.
        compute: In each stage.
        blocked: After each stage: done, but the next queue was full.
    """

    transfer: tuple[float, ...]
    queue: tuple[float, ...]
    compute: tuple[float, ...]
    blocked: tuple[float, ...]


@dataclass(frozen=True)
class Trial:
    """Requests that were sent in one manner.

    Attributes:
        answers: Their answers; outputs are dropped once they are compared.
        difference: Largest difference to the whole model's outputs (see `pepper.graph.rounding.difference`).
        excess: Largest multiple of what is accepted; answers are right up to 1.
        throughput_per_s: Answers a second, while the queues were full (saturated) or over all (otherwise).
    """

    answers: tuple[Answer, ...]
    difference: float
    excess: float
    throughput_per_s: float

    @property
    def latency_ms(self) -> Array:
        """Latencies of those that were answered, shape (n,)."""
        return np.array([answer.latency_ms for answer in self.answers if answer.error is None])

    @property
    def failures(self) -> list[str]:
        """Why the others failed."""
        return [answer.error for answer in self.answers if answer.error is not None]

    @property
    def latest(self) -> list[Answer]:
        """What the last layout that answered anything answered, in the order of the answers."""
        answered = [answer for answer in self.answers if answer.error is None]
        last = max(answer.layout for answer in answered)
        return [answer for answer in answered if answer.layout == last]

    def steps(self, mean: bool = False) -> Steps:
        """Return the median (or mean) of each step, over the answers of the last layout."""
        middle = np.mean if mean else np.median
        rows = [steps(answer) for answer in self.latest]
        return Steps(*(tuple(middle([getattr(row, name) for row in rows], axis=0).tolist()) for name in _STEPS))


_STEPS = ("transfer", "queue", "compute", "blocked")


def steps(answer: Answer) -> Steps:
    """Return where the time of a request went, from when the driver sent it."""
    stamps = answer.stamps
    arrived = [*(stamp.arrived for stamp in stamps[1:]), answer.answered_ns]
    return Steps(
        tuple(
            (there - max(stamps[sender].sent for sender in senders)) / 1e6
            for senders, there in zip(answer.senders, arrived, strict=True)
        ),
        tuple((stamp.start - stamp.arrived) / 1e6 for stamp in stamps[1:]),
        tuple((stamp.end - stamp.start) / 1e6 for stamp in stamps[1:]),
        tuple((stamp.sent - stamp.end) / 1e6 for stamp in stamps[1:]),
    )


def one_at_a_time(
    runner: Runner,
    samples: Sequence[Sample],
    seconds: float,
    least: int,
    answers: list[Answer] | None = None,
    longest_pause_s: float = 0.0,
) -> Trial:
    """Send each request when the one before is answered: the latency of an idle pipeline.

    Args:
        runner: What runs.
        samples: Sent in turn.
        seconds: Least length.
        least: Least number of requests.
        answers: Gets each answer when it comes, so that a trial that cannot go on leaves them there.
        longest_pause_s: Before each request the pipeline rests up to so long, at random. Without a pause, a device
            that has just answered would still have its turn, and its caches, when it gets the next request.

    Raises:
        ExecutionError: No layout is left to go on with.
    """
    checked, rng = _Checked(runner, samples, answers), random.Random(0)
    end = time.monotonic_ns() + round(seconds * NS)
    while time.monotonic_ns() < end or checked.sent < least:
        time.sleep(rng.uniform(0, longest_pause_s))
        checked.send(time.monotonic_ns())
        checked.wait()
    return checked.trial()


def saturated(
    runner: Runner, samples: Sequence[Sample], seconds: float, least: int, answers: list[Answer] | None = None
) -> Trial:
    """Always have as many requests in flight as may be: the throughput.

    What is answered after the last request was sent does not count: where a device has several stages, the earlier
    ones rest by then, and the last answers come faster than a stream's.

    Args:
        runner: What runs.
        samples: Sent in turn.
        seconds: Least length.
        least: Least number of answers that count, those of the time in which the queues fill among them.
        answers: As above.

    Raises:
        ExecutionError: No layout is left to go on with.
    """
    checked = _Checked(runner, samples, answers)
    end = time.monotonic_ns() + round(seconds * NS)
    while time.monotonic_ns() < end or checked.sent < least + runner.in_flight:
        checked.send(time.monotonic_ns())
        checked.collect(0)
    sent_ns = time.monotonic_ns()
    checked.wait()
    return checked.trial(SETTLE, sent_ns)


def poisson_times(rate_per_s: float, seconds: float, seed: int) -> Iterator[int]:
    """Yield when requests arise, ns since the start: gaps are independent and exponential."""
    rng = np.random.default_rng(seed)
    at = 0.0
    while (at := at + rng.exponential(1 / rate_per_s)) < seconds:
        yield round(at * NS)


def at_rate(
    runner: Runner,
    samples: Sequence[Sample],
    seconds: float,
    rate_per_s: float,
    seed: int,
    between: Callable[[], None] | None = None,
    answers: list[Answer] | None = None,
) -> Trial:
    """Send requests as they would come from many users, a Poisson process.

    A request that finds the pipeline full waits, and the wait counts: its latency runs from when it arose.

    Args:
        runner: What runs.
        samples: Sent in turn.
        seconds: For how long requests arise.
        rate_per_s: How many a second on average.
        seed: Seed of the arrivals.
        between: Called before each request.
        answers: As above.

    Raises:
        ExecutionError: No layout is left to go on with.
    """
    checked = _Checked(runner, samples, answers)
    start = time.monotonic_ns()
    for offset in poisson_times(rate_per_s, seconds, seed):
        checked.collect(start + offset)
        if between is not None:
            between()
        checked.send(start + offset)
    checked.wait()
    return checked.trial()


class _Checked:
    """Sends samples in turn, compares the answers, and lists them."""

    def __init__(self, runner: Runner, samples: Sequence[Sample], answers: list[Answer] | None) -> None:
        self._runner, self._samples = runner, samples
        self._due: dict[int, Sample] = {}
        self._answers: list[Answer] = [] if answers is None else answers
        self._difference = self._excess = 0.0
        self.sent = 0

    def send(self, at_ns: int) -> None:
        sample = self._samples[self.sent % len(self._samples)]
        self._due[self._runner.submit(sample.inputs, at_ns)] = sample
        self.sent += 1

    def collect(self, until_ns: int) -> None:
        """Take the answers that come until then."""
        while (answer := self._runner.take(until_ns)) is not None:
            self._note(answer)

    def wait(self) -> None:
        """Take every answer that is still to come."""
        while self._due:
            answer = self._runner.take(time.monotonic_ns() + NS)
            if answer is not None:
                self._note(answer)

    def _note(self, answer: Answer) -> None:
        sample = self._due.pop(answer.seq)
        if answer.error is None:
            for name, value in sample.expected.items():
                far = difference(value, answer.outputs[name])
                self._difference = max(self._difference, far)
                if name in sample.accepted:
                    self._excess = max(self._excess, excess(far, sample.accepted[name]))
        self._answers.append(replace(answer, outputs={}))

    def trial(self, settle: float = 0.0, until_ns: float = math.inf) -> Trial:
        answered = sorted(answer.answered_ns for answer in self._answers if answer.error is None)
        if not answered:
            raise ExecutionError(f"no request was answered: {next((a.error for a in self._answers), 'none was sent')}")
        counted = [at_ns for at_ns in answered if at_ns <= until_ns]
        counted = counted[int(settle * len(counted)) :]
        span_s = (counted[-1] - counted[0]) / NS if counted else 0.0
        rate = (len(counted) - 1) / span_s if span_s else float("nan")
        return Trial(tuple(self._answers), self._difference, self._excess, rate)
