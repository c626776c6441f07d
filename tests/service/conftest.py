"""A service as its clients see it: a real server on a port of its own, in this process."""

import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import requests
from harness import Desk, MakeDesk, wait_until

from pepper.config import typed
from pepper.config.composing import Composition, compose_tree
from tests.tasks.champion import furnished

collect_ignore_glob = [] if find_spec("python_multipart") and find_spec("prometheus_client") else ["test_*.py"]
"""Without the extra ``service`` there is nothing to test."""


@dataclass
class Client:
    """Asks a service."""

    address: str
    token: str | None = None

    def __call__(self, method: str, path: str, **sent: Any) -> requests.Response:
        headers = {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **sent.pop("headers", {})}
        return requests.request(method, self.address + path, headers=headers, timeout=120, **sent)

    def upload(self, file: Path) -> str:
        answer = self(
            "POST", "/v1/models", data=file.read_bytes(), headers={"Content-Type": "application/octet-stream"}
        )
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["model"])


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def composition(desk: Desk, *overrides: str) -> Composition:
    """What the command line makes of a desk's options and these."""
    flags = ("--config-dir", str(desk.options))
    given = tuple(each for each in desk.arguments(*overrides) if each not in flags)
    whole = (f"serve.folder={desk.folder}/service", "task=serve", *given)
    return Composition(typed(compose_tree(whole)), whole, compose_tree)


@contextmanager
def served(desk: Desk, *overrides: str) -> Iterator[Client]:
    """Serve for a while."""
    import uvicorn

    from pepper.service.app import make_app
    from pepper.service.serve import listening_at

    with listening_at(composition(desk, "serve.port=0", *overrides).config.serve) as listener:
        app = make_app(composition(desk, *overrides), (f"--config-dir={desk.options}",))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
            wait_until(lambda: server.started)
            yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def desk(make_desk: MakeDesk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk with a champion."""
    with furnished(make_desk(tmp_path_factory.mktemp("service") / "desk"), errors=(0.0,)) as made:
        yield made


@pytest.fixture(scope="module")
def client(desk: Desk) -> Iterator[Client]:
    """A client of a service that is open to this machine."""
    with served(desk, "serve.open=true", "fleet=three_shares", "serve.max_model_bytes=1000000") as asking:
        yield asking
