"""Who may come in, and what the routes work with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from pepper.config import ServeConfig
from pepper.config.serving import LOOPBACK, Scope
from pepper.service.answers import Answers
from pepper.service.observing import Metrics
from pepper.service.orders import Orders
from pepper.service.problems import Refused
from pepper.service.shelf import Shelf
from pepper.service.tokens import ANYBODY, Token, Tokens

_BEARER = HTTPBearer(auto_error=False, description="A token made with task=serve serve.token=NAME")
_ASK = {"WWW-Authenticate": "Bearer"}


@dataclass
class House:
    """What all routes share.

    Attributes:
        config: The service's options.
        tokens: Who may come in.
        shelf: The models.
        answers: What the tasks say at once.
        orders: What they take longer for.
        metrics: What is counted.
        ready: Whether jobs are taken: not before the store is read, and no more once the service ends.
    """

    config: ServeConfig
    tokens: Tokens
    shelf: Shelf
    answers: Answers
    orders: Orders
    metrics: Metrics
    ready: bool = False


def house(request: Request) -> House:
    """Return what all routes share."""
    found = request.app.state.house
    assert isinstance(found, House)
    return found


Shared = Annotated[House, Depends(house)]


def needs(scope: Scope) -> Callable[..., Token]:
    """Return the dependency that lets in who may do this."""

    def holder(
        request: Request,
        shared: Shared,
        sent: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
    ) -> Token:
        if shared.config.open:
            _check_local(request)
            return ANYBODY
        if sent is None:
            fix = "send Authorization: Bearer TOKEN; task=serve serve.token=NAME makes one"
            raise Refused(401, "no token was sent", "Authorization", fix, _ASK)
        token = shared.tokens.find(sent.credentials)
        if token is None:
            fix = "make a new one with task=serve serve.token=NAME"
            raise Refused(401, "the token is not valid", "Authorization", fix, _ASK)
        request.state.token = token.name
        if not token.allows(scope):
            fix = f"make a token with task=serve serve.token=NAME serve.scopes=[{scope}]"
            raise Refused(403, f"token {token.name!r} has no scope {scope}", "Authorization", fix)
        return token

    return holder


def _check_local(request: Request) -> None:
    """Let no web page of elsewhere use what is open to this machine's users."""
    for name in ("host", "origin"):
        value = request.headers.get(name)
        if value is None:
            continue
        try:
            host = urlsplit(value if name == "origin" else f"//{value}").hostname
        except ValueError:
            host = None
        if host not in LOOPBACK:
            fix = "use http://127.0.0.1, or serve with tokens"
            raise Refused(403, f"{name}: {value[:200]!r} is not this machine", name, fix)


Reader = Annotated[Token, Depends(needs(Scope.read))]
Asker = Annotated[Token, Depends(needs(Scope.predict))]
Measurer = Annotated[Token, Depends(needs(Scope.measure))]
Admin = Annotated[Token, Depends(needs(Scope.admin))]
