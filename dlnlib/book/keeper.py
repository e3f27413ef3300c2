"""Starts the kernel of a run, and ends it with the run, however that ends.

A kernel inside a compiled call holds the interpreter lock: it cannot see that its parent is gone.
So a small process stands between the two. It reads a pipe that the run holds open and never writes
to. When the run is gone, in whatever way, the read ends, and the keeper kills the kernel with its
children and removes the run's temporary folder. Should the keeper itself be killed, Linux kills the
kernel.

    python keeper.py keep FOLDER COMMAND ...           with the pipe as standard input
    python keeper.py serve KEEPER PACKAGE ARGUMENTS    the kernel: this Python, this library, and
                                                       no user's settings
"""

from __future__ import annotations

import os
import sys

__all__ = ["keep", "serve"]

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def keep(folder: str, command: list[str]) -> int:
    """Run `command` until it ends or the pipe on standard input closes; returns its exit status."""
    import select
    import shutil
    import signal
    import subprocess

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    # an interrupt is for the kernel; ignored, it would be so there too
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    os.environ.pop("JPY_PARENT_PID", None)  # the kernel's parent is the keeper
    kernel = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while kernel.poll() is None:
        ready, _, _ = select.select([0, woken], [], [])
        if 0 in ready:
            kernel.kill()
            kernel.wait()
            shutil.rmtree(folder, ignore_errors=True)
            os.killpg(0, signal.SIGKILL)  # what the kernel started, and the keeper
        os.read(woken, 64)
    return kernel.returncode


def serve(keeper: int, package: str, arguments: list[str]) -> None:
    """Be the kernel."""
    import signal

    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:  # it was gone before that
        os._exit(1)
    _load(package)
    from ipykernel.kernelapp import IPKernelApp

    class Kernel(IPKernelApp):
        def load_config_file(self, *args, **kwargs):
            """No settings of the user's."""

    Kernel.launch_instance(arguments)


def _load(package: str) -> None:
    """Import dlnlib from `package`, the folder that the run itself imported it from."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(
        "dlnlib", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    sys.modules["dlnlib"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["dlnlib"])


if __name__ == "__main__":
    role, first, *rest = sys.argv[1:]
    if role == "keep":
        sys.exit(keep(first, [word.replace("{keeper}", str(os.getpid())) for word in rest]))
    serve(int(first), rest[0], rest[1:])
