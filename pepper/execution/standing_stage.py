"""A stage that stands by itself: ``python -m pepper.execution.standing_stage STAGE.json``.

Nobody opens or wires it: a file says which part it runs, where it listens and to whom it hands on, and a supervisor
(systemd, a container runtime, K3s) starts it again when it ends. Whoever sends to it connects again then, and what
waits there comes after all; what it had taken is lost, and the gateway says so to those who asked.
"""

import hashlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pepper.errors import ExecutionError
from pepper.execution.message import Message, decode, join, newest
from pepper.execution.queues import TCP, Keys, Sink, Source
from pepper.execution.stage import Wire, WorkingStage
from pepper.execution.standing_files import StageFile, ended, keys_of, read_told

PARTS = "parts"
_ASKING_S = 0.02
"""Who asks for the stage's health says so at once: requests wait meanwhile."""
_WELL = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


class StandingStage(WorkingStage):
    """A stage as its file has it.

    Whether it works it says itself, between two requests: one that hangs does not answer.

    Args:
        told: The file's content.
        folder: Where it lies.
        keys: The pipeline's.

    Raises:
        ExecutionError: A part is not what it was, the provider does not take it, or an address is taken.
    """

    def __init__(self, told: StageFile, folder: Path, keys: Keys) -> None:
        super().__init__()
        _check_files(folder / PARTS, told.files)
        try:
            self.load(str(folder / PARTS / next(iter(told.files))), told.provider, told.threads, told.session, "")
        except Exception as error:  # whatever onnxruntime raises: it has no common base
            raise ExecutionError(f"{told.name}: its part cannot be opened ({' '.join(str(error).split())})") from error
        self._health = _listening(told.health)
        try:
            self._wire = Wire(
                told.number,
                [f"{TCP}{place}" for place in told.receive],
                [
                    {"address": f"{TCP}{outlet.address}", "link": None, "carry": outlet.carry, "away": True}
                    for outlet in told.send
                ],
                told.queue,
                None,
                told.name,
                list(keys),
            )
        except OSError as error:
            places = ", ".join(told.receive)
            raise ExecutionError(f"{told.name}: {places} cannot be listened at ({error.strerror})") from error
        self._supervisor = Supervisor(os.environ)
        self._supervisor.tell("READY=1")

    def fileno(self) -> int:
        """Something is to be read here when somebody asks for its health."""
        return self._health.fileno()

    def answer(self) -> None:
        """Say that it works."""
        with suppress(OSError):  # whoever asked has gone
            asking, _ = self._health.accept()
            with asking:
                asking.settimeout(_ASKING_S)
                asking.recv(2**12)
                asking.sendall(_WELL)

    def _take(self, wire: Wire) -> None:
        """Wait for all that there is of a request; of one that a neighbour has lost, nothing more comes."""
        waited = False
        heads: dict[int, Message] = {}
        while len(heads) < len(wire.sources):
            for number, source in enumerate(wire.sources):
                if number not in heads:
                    waited = bool(self._await(wire, source)) or waited
                    heads[number] = decode(source.receive())
            heads = newest(heads)
        self._pass(wire, join([heads[number] for number in range(len(wire.sources))]), waited)

    def _attend(self, end: Source | Sink | None = None, timeout_ms: int | None = None) -> bool:
        beat_ms = self._supervisor.beat()
        waits = [wait for wait in (beat_ms, timeout_ms) if wait is not None]
        return super()._attend(end, min(waits, default=None))


class Supervisor:
    """Whoever started this program and wants to hear from it, as sd_notify(3) has it; maybe nobody.

    Args:
        environment: Where it says so.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watched_us = int(environment.get("WATCHDOG_USEC") or 0) if self._address else 0
        self._beat_ms = watched_us // 3000 or None
        self._told_ns = 0

    def tell(self, word: str) -> None:
        """Tell it something."""
        if self._address:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(OSError):
                sender.sendto(word.encode(), self._address.replace("@", "\0", 1))

    def beat(self) -> int | None:
        """Tell it that the program works, if it is time; returns after how many ms to do so again, None is never."""
        if self._beat_ms is not None and time.monotonic_ns() - self._told_ns > self._beat_ms * 1_000_000:
            self._told_ns = time.monotonic_ns()
            self.tell("WATCHDOG=1")
        return self._beat_ms


def _listening(place: str) -> socket.socket:
    host, _, port = place.rpartition(":")
    try:
        listener = socket.create_server((host, int(port)))
    except (OSError, OverflowError) as error:
        raise ExecutionError(f"health={place}: cannot be listened at ({error}); export with another port") from error
    listener.setblocking(False)
    return listener


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, wanted in files.items():
        try:
            with (folder / name).open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise ExecutionError(
                f"{folder / name}: cannot be read ({error.strerror}); copy the export again"
            ) from error
        if found != wanted:
            raise ExecutionError(
                f"{folder / name}: has sha256 {found[:12]}, not {wanted[:12]} as exported; copy the export again"
            )


def main() -> int:
    """Work until the supervisor ends it; returns the exit status where it cannot."""
    try:
        told, folder = read_told(StageFile, sys.argv[1:])
        StandingStage(told, folder, keys_of()).serve()
    except ExecutionError as error:
        return ended(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
