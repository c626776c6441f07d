"""The gateway of a standing pipeline: ``python -m pepper.gateway GATEWAY.json``."""

import socket
import sys

import uvicorn

from pepper.errors import ExecutionError
from pepper.execution.prompt import prompt_driver
from pepper.execution.standing_files import GatewayFile, ended, keys_of, read_told
from pepper.gateway.app import Gateway

_GRACE_S = 5
_CONNECTIONS = 8  # for each request that may be under way: more are refused at once


def main() -> int:
    """Serve until a signal ends it; returns the exit status where it cannot."""
    try:
        told, _ = read_told(GatewayFile, sys.argv[1:])
        app = Gateway(told, keys_of()).app()
        with _listening(told.listen) as listener, prompt_driver():
            print(f"{told.model} at http://{told.listen}/v2", flush=True)
            options = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS * told.in_flight,
                timeout_graceful_shutdown=_GRACE_S,
            )
            uvicorn.Server(options).run(sockets=[listener])
    except ExecutionError as error:
        return ended(error)
    return 0


def _listening(place: str) -> socket.socket:
    host, _, port = place.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        raise ExecutionError(f"listen={place}: cannot be listened at ({error}); export with another port") from error


if __name__ == "__main__":
    sys.exit(main())
