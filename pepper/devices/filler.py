"""The program that uses a core's time between a throttled device's turns: ``python -m pepper.devices.filler``."""

import os
import signal

from pepper.devices.protocol import connect

if __name__ == "__main__":
    connection = connect()
    os.kill(os.getpid(), signal.SIGSTOP)  # until its turn comes
    while True:
        pass
