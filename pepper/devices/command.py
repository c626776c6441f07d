"""Run another program so that it ends with its parent: ``python -m pepper.devices.command PID PROGRAM ARG...``."""

import os
import sys

from pepper.devices.protocol import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))  # the request to the kernel outlives the exec
    os.execv(sys.argv[2], sys.argv[2:])
