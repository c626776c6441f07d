"""Opens models on a provider, and makes sure that it is the provider that runs them."""

import onnxruntime as ort

from pepper.devices.providers.assignment import RECORD, Assignment, taken_by
from pepper.devices.providers.choice import CPU, REFUSE
from pepper.devices.providers.faults import meaning
from pepper.devices.providers.given import check_options
from pepper.devices.providers.provider import Provider

_REFUSE = "session.disable_cpu_ep_fallback"


def open_checked(
    provider: Provider, path: str, options: ort.SessionOptions
) -> tuple[ort.InferenceSession, Assignment | None]:
    """Open a model; return the session, and what the provider runs of it (None: all, it is the CPU's own).

    Args:
        provider: What is to run it.
        path: The model's file.
        options: How the session works; settings are added.

    Raises:
        ValueError: The provider, its library or its hardware is not there; the message says what is. Or it does not
            have an option, or not so.
        RuntimeError: It did not take the model, or left operators to the CPU that may not run there; its device has
            too little memory, or is not the driver's.
        Exception: onnxruntime refuses the model; its own exceptions have no common base.
    """
    name = provider.runs_as or provider.name
    if name == CPU:
        session = provider.open(path, options)
        check_options(provider.choice, session)
        return session, None
    options.add_session_config_entry(RECORD, "1")
    refuse = provider.choice.fallback == REFUSE
    options.add_session_config_entry(_REFUSE, str(int(refuse)))
    try:
        session = provider.open(path, options)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        if missing := provider.missing():
            raise RuntimeError(f"{name} cannot be used: {missing}") from error
        if told := meaning(error, provider.choice):
            raise RuntimeError(told) from error
        if not (refuse and "fallback to CPU EP has been explicitly disabled" in str(error)):
            raise
        options.add_session_config_entry(_REFUSE, "0")
        found = taken_by(name, provider.open(path, options))
        raise RuntimeError(
            f"device.fallback=refuse: {found.said()}; set device.fallback=allow, or cut them off"
        ) from error
    try:
        assignment = taken_by(name, session)
    except RuntimeError as error:
        missing = provider.missing()
        raise RuntimeError(f"{error}{': ' if missing else ''}{missing}") from error
    check_options(provider.choice, session)
    return session, assignment
