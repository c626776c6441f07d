"""Who is at work."""

import getpass
import os


def user() -> str:
    """Return the user's name, or the number where there is none: a container's user need not have one."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # which of them depends on the Python version
        return f"uid {os.getuid()}"
