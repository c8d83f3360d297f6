"""The front of traffic takeover: apply, verify, repair and remove the redirection of one pod.

Called by the node agent, the lab and the command line, from a thread: every call blocks for some tens of milliseconds (half a
second with python-iptables). Calls for one netns wait for each other, also across processes; other netns are not held up.

How a change is made safe. A change takes several steps (leftovers, policy routing, rules of two families), so the pod is closed
first: a guardrail drops its TCP and UDP. Then the steps; then what is there is read back and compared; only if it is
exactly right the guardrail goes. A failure at any step leaves the guardrail, so the pod is never open half captured, and a
later :func:`repair` opens it. A pod that is right already isn't touched at all.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from capture.backends import Backend, BackendName, Nftables, make_backend
from capture.command import Tools
from capture.detect import BackendChoice, detect, probe
from capture.errors import CaptureError, CaptureFailedError, CommandFailedError, NetnsError, ToolMissingError
from capture.model import RuleSet
from capture.netns import NetnsRef, call_in_netns, identity, opened
from capture.routing import apply_routing, remove_routing, verify_routing
from capture.rules import CaptureConfig, pod_rules
from capture.snapshot import Drift, Snapshot, compare

__all__ = ["Applied", "apply", "remove", "repair", "verify"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a call did. ``details``: sentences for the log; what was wrong, what was replaced, what could not be looked at."""

    backend: BackendName
    changed: bool
    details: tuple[str, ...] = ()


def apply(
    netns: NetnsRef, config: CaptureConfig, *, backend: BackendChoice = BackendChoice.AUTO, tools: Tools | None = None
) -> Applied:
    """Makes the pod's redirection exactly what ``config`` asks for, whatever was there of ours; the rules of others stay.

    Raises :class:`CaptureFailedError` (its ``closed`` says what the pod is left as), :class:`BackendUnusableError` or
    :class:`NetnsError` (nothing was touched).
    """
    with _held(netns) as pod:
        survey = _survey(pod, backend, config, tools or Tools())
        drift = survey.drift(pod_rules(config))
        if not drift:
            return Applied(survey.chosen.name, False, survey.notes)
        _change(survey, config)
        return Applied(survey.chosen.name, True, (*drift.sentences(), *survey.notes))


def verify(
    netns: NetnsRef, config: CaptureConfig, *, backend: BackendChoice = BackendChoice.AUTO, tools: Tools | None = None
) -> Drift:
    """How the pod differs from ``config``; empty means not at all. Changes nothing. Raises any :class:`CaptureError`."""
    with _held(netns) as pod:
        return _survey(pod, backend, config, tools or Tools()).drift(pod_rules(config))


def repair(
    netns: NetnsRef, config: CaptureConfig, *, backend: BackendChoice = BackendChoice.AUTO, tools: Tools | None = None
) -> Applied:
    """Mends what :func:`verify` reports, and opens a pod that a failed change left closed. As :func:`apply`."""
    return apply(netns, config, backend=backend, tools=tools)


def remove(netns: NetnsRef, *, config: CaptureConfig | None = None, tools: Tools | None = None) -> bool:
    """Takes away everything of ours by every backend; whether there was something. The pod's traffic is its own again.

    The guardrail goes last. Raises :class:`CaptureFailedError` when something could not be removed; what was is not put back.
    """
    tools = tools or Tools()
    rules = pod_rules(config or CaptureConfig())
    with _held(netns) as pod:
        looked = _look(pod, tools)
        found = [seen for seen in looked if seen.snapshot.residue]
        guarded = any(seen.snapshot.guard for seen in found)
        try:
            for seen in found:
                seen.backend.uninstall(pod)
            routed = remove_routing(pod, rules)
            for seen in found:
                seen.backend.open(pod)
            for seen in looked:
                # A system that doesn't work on this machine can't hold anything of ours; one that works and can't be read may.
                if seen.failure and probe(seen.backend.name, tools).usable:
                    raise CommandFailedError(f"what {seen.backend.name} holds cannot be read: {seen.failure}")
        except (CaptureError, OSError) as error:
            raise CaptureFailedError(f"the pod's redirection could not be removed: {error}", closed=guarded) from error
        return bool(found) or routed


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one backend shows. ``failure``: why it could show nothing; ``missing``: its tool is not installed."""

    backend: Backend
    snapshot: Snapshot = field(default_factory=Snapshot)
    failure: str = ""
    missing: bool = False


@dataclass(frozen=True, slots=True)
class _Survey:
    """What is there, by every backend."""

    pod: int
    chosen: Backend
    mine: Snapshot
    others: tuple[tuple[Backend, Snapshot], ...]
    notes: tuple[str, ...]

    def drift(self, rules: RuleSet) -> Drift:
        leftovers = tuple(f"rules by {backend.name}, left over" for backend, found in self.others if found.residue)
        return compare(self.chosen.expected(rules), self.mine) + Drift(unexpected=leftovers) + verify_routing(self.pod, rules)


def _survey(pod: int, choice: BackendChoice, config: CaptureConfig, tools: Tools) -> _Survey:
    looked = _look(pod, tools)
    name = _choose(pod, choice, config, tools, looked)
    mine = next(seen for seen in looked if seen.backend.name is name)
    if mine.failure:
        raise CommandFailedError(f"what {name} holds cannot be read: {mine.failure}")
    others = [seen for seen in looked if seen is not mine]
    notes = [
        f"leftovers of {seen.backend.name} could not be looked for: {seen.failure}"
        for seen in others
        if seen.failure and not seen.missing
    ]
    return _Survey(pod, mine.backend, mine.snapshot, tuple((seen.backend, seen.snapshot) for seen in others), tuple(notes))


def _choose(pod: int, choice: BackendChoice, config: CaptureConfig, tools: Tools, looked: list[_Seen]) -> BackendName:
    present = [seen.backend.name for seen in looked if seen.snapshot.chains]
    if choice is not BackendChoice.AUTO and BackendName(choice) in present:
        return BackendName(choice)
    if choice is BackendChoice.AUTO and len(present) == 1 and not os.environ.get("FORCE_IPTABLES_BINARY"):
        # A pod keeps the backend it has: a change of preference is no reason to touch a running pod.
        return present[0]
    return detect(choice, tools, os.environ, netns=pod, ipv6=config.ipv6).chosen


def _look(pod: int, tools: Tools) -> list[_Seen]:
    """What every backend shows of ours."""
    result: list[_Seen] = []
    nft_knows_of_iptables: bool | None = None
    for name in BackendName:
        backend = make_backend(name, tools)
        try:
            if isinstance(backend, Nftables):
                listing = backend.listing(pod)
                nft_knows_of_iptables = listing.iptables_leftovers
                result.append(_Seen(backend, listing.snapshot))
            elif name is BackendName.IPTABLES_NFT and nft_knows_of_iptables is False:
                result.append(_Seen(backend))
            else:
                result.append(_Seen(backend, backend.snapshot(pod)))
        except CaptureError as error:
            result.append(_Seen(backend, failure=str(error), missing=isinstance(error, ToolMissingError)))
    return result


def _change(survey: _Survey, config: CaptureConfig) -> None:
    pod, chosen, rules = survey.pod, survey.chosen, pod_rules(config)
    closed = survey.mine.guard or any(snapshot.guard for _, snapshot in survey.others)
    try:
        chosen.close(pod, rules.families)
        closed = True
        apply_routing(pod, rules)
        for backend, snapshot in survey.others:
            if snapshot.chains:
                backend.uninstall(pod)
        chosen.install(pod, rules)
        left = _without_guard(chosen.snapshot(pod))
        drift = compare(chosen.expected(rules), left) + verify_routing(pod, rules)
        if drift:
            raise CommandFailedError(f"the rules read back are not those written: {'; '.join(drift.sentences()[:5])}")
        for backend, snapshot in survey.others:
            if snapshot.guard:
                backend.open(pod)
        chosen.open(pod)
    except (CaptureError, OSError) as error:
        state = (
            "the pod is CLOSED (its TCP and UDP are dropped) until a repair succeeds"
            if closed
            else "the guardrail could not be put; the pod is as it was before"
        )
        raise CaptureFailedError(f"capture by {chosen.name} failed: {error}; {state}", closed=closed) from error


def _without_guard(snapshot: Snapshot) -> Snapshot:
    return Snapshot(snapshot.chains)


@contextmanager
def _held(netns: NetnsRef) -> Iterator[int]:
    """The pod's netns, locked. The lock is on the netns itself, so it ends with it and needs no file."""
    with opened(netns) as given:
        call_in_netns(given, lambda: None)  # anything else than a netns ends here
        pod = identity(given)
        for whose, path in (("this process's own", "/proc/self/ns/net"), ("the host's", "/proc/1/ns/net")):
            if _same(pod, path):
                raise NetnsError(f"refusing to capture {whose} network namespace: only a pod's is ever touched")
        # A description of its own: locks belong to those, and a caller may hold several copies of one.
        lock = os.open(f"/proc/self/fd/{given}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield given
        finally:
            os.close(lock)


def _same(pod: tuple[int, int], path: str) -> bool:
    try:
        return identity(path) == pod
    except NetnsError:
        return False
