"""Which backend works on this machine, and why the others don't.

Called by the manager (``auto``) and by the preflight checks, which show the reasons. A candidate is tried for real: the
largest rule set is applied, read back, compared and removed in a network namespace made for it, which touches nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from capture.backends import BackendName, Iptables, make_backend
from capture.command import Tools
from capture.errors import BackendUnusableError, CaptureError, ConfigError
from capture.netns import NetnsRef, scratch_netns
from capture.rules import CaptureConfig, pod_rules
from capture.snapshot import compare

__all__ = ["BackendChoice", "Candidate", "Detection", "detect", "probe"]


class BackendChoice(StrEnum):
    """What the operator asked for."""

    AUTO = "auto"
    NFTABLES = "nftables"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One backend's trial. ``reason``: what failed, with the tool's own words; or that it worked."""

    name: BackendName
    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Detection:
    """``chosen`` and why; ``candidates``: those that were tried, in the order of preference."""

    chosen: BackendName
    why: str
    candidates: tuple[Candidate, ...]


def detect(
    choice: BackendChoice, tools: Tools, env: Mapping[str, str], *, netns: NetnsRef | None = None, ipv6: bool = True
) -> Detection:
    """The backend to use.

    An explicit choice wins; then ``FORCE_IPTABLES_BINARY`` (``legacy`` or ``nft``, istio-cni's variable); then legacy iptables
    where ``netns`` has legacy rules already, because two systems in one netns are hard to reason about; then nftables,
    iptables-nft, iptables-legacy, the first that works. Raises :class:`BackendUnusableError` with every reason, and
    :class:`ConfigError` for an unknown value of the variable.
    """
    order, why = _preferences(choice, tools, env, netns)
    tried: list[Candidate] = []
    for name in order:
        candidate = probe(name, tools, ipv6=ipv6)
        tried.append(candidate)
        if candidate.usable:
            return Detection(name, why, tuple(tried))
    reasons = "; ".join(f"{candidate.name}: {candidate.reason}" for candidate in tried)
    raise BackendUnusableError(f"no usable packet filter ({why}): {reasons}. 'ambient check' tells what to install")


@lru_cache(maxsize=32)
def probe(name: BackendName, tools: Tools, *, ipv6: bool = True) -> Candidate:
    """Tries one backend with the largest rule set. Kept for the life of the process: a machine doesn't change that often."""
    rules = pod_rules(CaptureConfig(dns_capture=True, virtual_interfaces=("probe0",), ipv6=ipv6))
    backend = make_backend(name, tools)
    try:
        with scratch_netns() as netns:
            backend.close(netns, rules.families)
            backend.install(netns, rules)
            backend.open(netns)
            drift = compare(backend.expected(rules), backend.snapshot(netns))
            backend.uninstall(netns)
    except (CaptureError, OSError) as error:
        return Candidate(name, False, str(error))
    if drift:
        return Candidate(name, False, f"rules read back differ from those written: {'; '.join(drift.sentences()[:3])}")
    return Candidate(name, True, "the whole rule set was applied and read back in a scratch network namespace")


def _preferences(
    choice: BackendChoice, tools: Tools, env: Mapping[str, str], netns: NetnsRef | None
) -> tuple[tuple[BackendName, ...], str]:
    if choice is not BackendChoice.AUTO:
        return (BackendName(choice),), "asked for"
    forced = env.get("FORCE_IPTABLES_BINARY", "")
    if forced in ("legacy", "nft"):
        return (BackendName(f"iptables-{forced}"),), f"FORCE_IPTABLES_BINARY={forced}"
    if forced:
        raise ConfigError(f"FORCE_IPTABLES_BINARY is {forced!r}; it can be 'legacy' or 'nft', or be left out")
    modern = (BackendName.NFTABLES, BackendName.IPTABLES_NFT)
    if netns is not None and _uses_legacy(tools, netns):
        return (BackendName.IPTABLES_LEGACY, *modern), "legacy iptables rules are in use there"
    return (*modern, BackendName.IPTABLES_LEGACY), "the first that works"


def _uses_legacy(tools: Tools, netns: NetnsRef) -> bool:
    try:
        return Iptables(tools, "legacy").rule_count(netns) > 0
    except CaptureError:
        return False
