"""Signals wait for the end of a block, and then do what they always do."""

import os
import signal

import pytest

from pepper.latency.signals import held


def test_an_interrupt_comes_at_the_end() -> None:
    done = []

    def interrupted() -> None:
        with held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("the block")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_in_the_block_comes_out() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), held():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before
