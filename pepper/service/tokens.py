"""Bearer tokens: made once, shown once, kept as hashes only."""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pepper.config.serving import Scope
from pepper.documents import MOST_BYTES, first_fault, read_bytes
from pepper.errors import ConfigError, nearest
from pepper.strict import StrictModel

FILE = "tokens.json"
_PREFIX = "pepper_"


class Token(StrictModel):
    """A token as it is kept.

    Attributes:
        name: Whose, or what for.
        sha256: Hash (hex) of the token, which is 256 random bits: no slower hash is needed.
        scopes: What its holder may do.
    """

    name: str
    sha256: str
    scopes: list[str]

    def allows(self, scope: Scope) -> bool:
        """Whether its holder may do this."""
        return scope in self.scopes or Scope.admin in self.scopes


ANYBODY = Token(name="anybody", sha256="", scopes=[Scope.admin])
"""Who asks where no tokens are asked for."""
_TOKENS = TypeAdapter(list[Token])


class Tokens:
    """The tokens of a service's folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._seen: tuple[int, int] | None = None
        self._known: dict[str, Token] = {}

    def find(self, token: str) -> Token | None:
        """Return what is known of a token that was sent; None if it is not valid (any more)."""
        self._read()
        return self._known.get(hashlib.sha256(token.encode()).hexdigest())

    def names(self) -> list[str]:
        """Return the names of all tokens."""
        self._read()
        return [token.name for token in self._known.values()]

    def make(self, name: str, scopes: Sequence[Scope]) -> str:
        """Make a token and return it; it is shown never again.

        Raises:
            ConfigError: There is one of that name, or it cannot be written.
        """
        if name in self.names():
            raise ConfigError(f"serve.token={name}: there is one already; give serve.revoke={name} first")
        token = _PREFIX + secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        kept = Token(name=name, sha256=digest, scopes=[str(scope) for scope in scopes])
        self._write([*self._known.values(), kept])
        return token

    def revoke(self, name: str) -> None:
        """Make a token invalid, at once.

        Raises:
            ConfigError: There is none of that name.
        """
        names = self.names()
        if name not in names:
            hint = nearest(name, names) or f" (tokens: {', '.join(names) or 'none'})"
            raise ConfigError(f"serve.revoke={name}: there is no such token{hint}")
        self._write([token for token in self._known.values() if token.name != name])

    def _read(self) -> None:
        """Read the file if it has changed: a running service heeds new and revoked tokens."""
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen == self._seen:
                return
            found = _TOKENS.validate_json(read_bytes(self._file, MOST_BYTES))
        except FileNotFoundError:
            self._seen, self._known = None, {}
            return
        except ValueError as error:
            said = first_fault(error) if isinstance(error, ValidationError) else error
            raise ConfigError(f"{self._file}: is no list of tokens ({said}); delete it and make new ones") from error
        except OSError as error:
            raise ConfigError(f"{self._file}: cannot be read ({error.strerror}); check its permissions") from error
        self._seen, self._known = seen, {token.sha256: token for token in found}

    def _write(self, tokens: Sequence[Token]) -> None:
        draft = self._file.with_name(f".{FILE}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            draft.touch(0o600)
            draft.write_text(json.dumps([token.model_dump() for token in tokens], indent=2) + "\n")
            draft.replace(self._file)
        except OSError as error:
            raise ConfigError(f"serve.folder={self._file.parent}: cannot be written ({error.strerror})") from error
