"""Run a program so that nothing of it outlives the parent: ``python -m pepper.devices.command FD PROGRAM ARG...``.

What the program starts may be stopped, when a signal of its own asking would wait; and it is not asked to end with a
process that is not its parent. So this process, the leader of their group, waits for the end of the pipe FD, or of the
program, and kills the group.
"""

import os
import select
import signal
import subprocess
import sys

from pepper.devices.protocol import die_with_parent


def main() -> None:
    """Run the program until it ends or the parent does."""
    pipe, here = int(sys.argv[1]), os.getpid()
    program = subprocess.Popen(sys.argv[2:], preexec_fn=lambda: die_with_parent(here))  # this one may be killed, too
    poller = select.poll()
    for descriptor in (pipe, os.pidfd_open(program.pid)):
        poller.register(descriptor, select.POLLIN)
    poller.poll()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
