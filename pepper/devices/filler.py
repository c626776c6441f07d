"""The program that uses a core's time between a throttled device's turns: ``python -m pepper.devices.filler``."""

import os
import signal
from collections import deque
from itertools import repeat

from pepper.devices.protocol import connect

if __name__ == "__main__":
    connection = connect()
    os.kill(os.getpid(), signal.SIGSTOP)  # until its turn comes
    # Busy in a few bytes of code and data: what the device has in the core's caches stays there.
    deque(repeat(None), maxlen=0)
