"""Facts about the control half's own process, read from /proc at each scrape.

Shell. The data plane's process reports its own through ``Gauges``.
"""

import os
import resource
import time

from ztunnel.telemetry.families import Registry

__all__ = ["update_process"]

_STARTED = time.time()


def update_process(registry: Registry) -> None:
    """Set the ``process_*`` metrics; what cannot be read keeps its last value."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    registry.set("process_cpu_seconds", usage.ru_utime + usage.ru_stime)
    registry.set("process_start_time_seconds", _STARTED)
    registry.set("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    try:
        registry.set("process_open_fds", len(os.listdir("/proc/self/fd")) - 1)
        with open("/proc/self/statm", encoding="ascii") as file:
            registry.set("process_resident_memory_bytes", int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        pass
