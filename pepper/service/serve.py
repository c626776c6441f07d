"""``task=serve``: the tasks over HTTP, or a token for who may ask them."""

import fcntl
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pepper.config import ServeConfig
from pepper.config.composing import Composition, own_folders
from pepper.console.tables import show
from pepper.errors import ConfigError
from pepper.outputs import results_folder
from pepper.tasks.result import Result

_INSTALL = "install it with pip install 'pepper-harness[service]'"
_GRACE_S = 5


def serve(composition: Composition) -> Result:
    """Serve until a signal ends it; or make or revoke a token.

    Raises:
        ConfigError: The port or the folder is taken, a package is missing, or nobody could come in.
    """
    config = composition.config.serve
    folder = results_folder("serve.folder", config.folder)
    assert folder is not None
    if config.token or config.revoke:
        return _change_tokens(config, folder)
    _check_installed()
    import uvicorn

    from pepper.service.app import make_app
    from pepper.service.tokens import Tokens

    if not config.open and not Tokens(folder).names():
        raise ConfigError(
            "serve.token: nobody has a token yet; make one with task=serve serve.token=NAME, or let everybody on this"
            " machine in with serve.open=true"
        )
    with _alone(folder), listening_at(config) as listener:
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        app = make_app(composition, tuple(f"--config-dir={folder}" for folder in own_folders()))
        show(f"serving at {address}, described at {address}/docs; Ctrl-C ends it", address=address)
        sys.stdout.flush()
        options = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=config.in_flight,
            timeout_graceful_shutdown=_GRACE_S,
        )
        uvicorn.Server(options).run(sockets=[listener])
    return Result()


def _change_tokens(config: ServeConfig, folder: Path) -> Result:
    from pepper.service.tokens import Tokens

    tokens = Tokens(folder)
    if config.revoke:
        tokens.revoke(config.revoke)
        show(f"token {config.revoke!r} is no more valid", revoked=config.revoke)
    if config.token:
        token = tokens.make(config.token, config.scopes)
        scopes = ", ".join(config.scopes)
        show(f"{token}\n  {config.token!r} may {scopes}; it is shown this once", token=token, scopes=config.scopes)
    return Result()


def _check_installed() -> None:
    from importlib.util import find_spec

    for package in ("fastapi", "uvicorn", "python-multipart", "prometheus-client"):
        if find_spec(package.replace("-", "_")) is None:
            raise ConfigError(f"task=serve: needs the package {package}; {_INSTALL}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder: two services would run each other's jobs."""
    with (folder / ".lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"serve.folder={folder}: another service uses it; end that one, or give another"
            ) from error
        yield


@contextmanager
def listening_at(config: ServeConfig) -> Iterator[socket.socket]:
    """Listen at the configured address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"serve.host={config.host}: no such address ({error.strerror}); give another") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(128)
        except OSError as error:
            where = f"serve.host={config.host} serve.port={config.port}"
            raise ConfigError(f"{where}: cannot be listened at ({error.strerror}); give another") from error
        yield listener
