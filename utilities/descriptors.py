"""How many files and connections this process may have open.

A server needs one descriptor for each client. Systems begin with few (1,024 on most
Linux, 256 on macOS) and let every process ask for more, up to a second limit.
"""

import contextlib
import sys

# Asked for where the second limit allows it: far more than one thread can serve. Some
# systems allow a billion, and programs that close all possible ones take minutes then.
WANTED = 1 << 14
MACOS_MOST = 10_240  # macOS refuses more, whatever the second limit says
WINDOWS_MOST = 512  # connections of one `select`, as Python is built there


def descriptors() -> int:
    """Return how many this process may have open, after asking for more if needed."""
    if sys.platform == "win32":
        return WINDOWS_MOST
    import resource

    for wanted in (WANTED, MACOS_MOST):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = [n for n in (wanted, hard) if n != resource.RLIM_INFINITY]
        if soft == resource.RLIM_INFINITY or soft >= min(limits):
            break
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits), hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED if soft == resource.RLIM_INFINITY else soft
