"""What every test shares: the `system` marker and what happens without root.

Everything in tests/system gets the marker. Where the process lacks the capabilities those tests live on, they are
skipped with that reason on a developer's machine and fail under CI=true: a build server that cannot run them has not
tested the product.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

SYSTEM = Path(__file__).parent / "system"

# Bit numbers of linux/capability.h.
NEEDED = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}

# The default deadline of 200 ms measures how busy the machine is. Under CI hypothesis loads its own profile "ci"
# (no deadline, same examples every run).
settings.register_profile("local", deadline=None)
if not os.environ.get("CI"):
    settings.load_profile("local")


def missing_capabilities() -> list[str]:
    """The names in `NEEDED` that this process does not hold; root in an unprivileged container lacks them too."""
    status = Path("/proc/self/status").read_text()
    effective = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    return [name for name, bit in NEEDED.items() if not effective >> bit & 1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what lies in tests/system."""
    for item in items:
        if item.path.is_relative_to(SYSTEM):
            item.add_marker(pytest.mark.system)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stops a system test before its fixtures touch anything when it cannot work."""
    if item.get_closest_marker("system") and (missing := missing_capabilities()):
        reason = f"needs root ({', '.join(missing)})"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; under CI this is a failure, not a skip", pytrace=False)
        pytest.skip(reason)
