"""All policies of a node, answering at a cost that hardly grows with their number.

Gives exactly the verdicts of :func:`policy.evaluate.evaluate`, which says what they are. The data plane asks
(``decide``), whoever receives configuration changes it (``upsert``, ``remove``, ``mark_unusable``); ``generation`` tells
caches of verdicts apart. Not thread-safe: one thread owns it.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

from policy.compiled import Facts
from policy.evaluate import UNKNOWN_POLICY, applies
from policy.model import Action, Authorization, PolicyKey, Scope
from policy.ruleset import Owner, RuleSet
from policy.verdict import NO_RULE, Connection, Destination, DryRun, Unusable, Verdict, VerdictReason

__all__ = ["PolicyIndex", "UnknownPolicy"]

UnknownPolicy = Literal["refuse", "ignore"]
_Ruled = tuple[Action, bool]

MAX_VIEWS = 1024
"""Destinations that name policies and are kept compiled: more than a node has distinct ones (kubelet: 110 pods)."""


class _Bucket:
    """Policies that apply together: the global ones, a namespace's, or those that one destination names."""

    __slots__ = ("_sets", "_unusable", "_where")

    def __init__(self) -> None:
        self._sets: dict[_Ruled, RuleSet] = {}
        self._unusable: dict[PolicyKey, Unusable] = {}
        self._where: dict[PolicyKey, _Ruled] = {}

    def __len__(self) -> int:
        return len(self._where) + len(self._unusable)

    def put(self, item: Authorization | Unusable) -> None:
        self.discard(item.key)
        if isinstance(item, Unusable):
            self._unusable[item.key] = item
            return
        ruled = (item.action, item.dry_run)
        self._where[item.key] = ruled
        if ruled not in self._sets:
            self._sets[ruled] = RuleSet()
        self._sets[ruled].add(item)

    def discard(self, key: PolicyKey) -> None:
        self._unusable.pop(key, None)
        ruled = self._where.pop(key, None)
        if ruled is not None:
            self._sets[ruled].remove(key)
            if not self._sets[ruled]:
                del self._sets[ruled]

    def rules(self, action: Action, dry_run: bool) -> RuleSet | None:
        return self._sets.get((action, dry_run))

    def unusable(self) -> Unusable | None:
        return self._unusable[min(self._unusable)] if self._unusable else None


class PolicyIndex:
    """Policies by key, and the decision over those that apply.

    Args:
        policies: what to begin with.
        unknown_policy: what a name means that a workload lists and nobody knows: ``refuse`` fails closed, ``ignore`` is
            what Istio's own proxy does.
    """

    def __init__(self, policies: Iterable[Authorization] = (), *, unknown_policy: UnknownPolicy = "refuse") -> None:
        self.generation = 0
        """Grows with every change: a verdict is good for as long as this stays."""
        self._unknown_policy = unknown_policy
        self._policies: dict[PolicyKey, Authorization] = {}
        self._unusable: dict[PolicyKey, tuple[Scope, str, Unusable]] = {}
        self._global = _Bucket()
        self._by_namespace: dict[str, _Bucket] = {}
        self._views: OrderedDict[Destination, _Bucket] = OrderedDict()
        self._viewed: dict[str, set[Destination]] = {}
        for policy in policies:
            self.upsert(policy)

    def __len__(self) -> int:
        """Number of policies, unusable ones included."""
        return len(self._policies) + len(self._unusable)

    def __contains__(self, key: object) -> bool:
        return key in self._policies or key in self._unusable

    def policies(self) -> tuple[Authorization, ...]:
        """Return the usable policies, by key."""
        return tuple(self._policies[key] for key in sorted(self._policies))

    def unusable(self) -> tuple[Unusable, ...]:
        """Return the policies that could not be understood, by key."""
        return tuple(self._unusable[key][2] for key in sorted(self._unusable))

    def upsert(self, policy: Authorization) -> None:
        """Add the policy, or put it in the place of the one that has its key, usable or not."""
        key = policy.key
        if self._policies.get(key) == policy:
            return
        self._take_out(key)
        self._policies[key] = policy
        self._put_in(policy.scope, policy.namespace, policy)

    def mark_unusable(self, key: PolicyKey, scope: Scope | None, namespace: str, cause: str) -> None:
        """Keep that a policy exists and cannot be understood: whom it applies to is refused until it is replaced.

        It takes the place of the policy that had the key. ``scope`` ``None`` means that the scope itself is not understood;
        as it may be any, it counts as global.
        """
        marker, where = Unusable(key, cause), scope or Scope.GLOBAL
        if self._unusable.get(key) == (where, namespace, marker):
            return
        self._take_out(key)
        self._unusable[key] = (where, namespace, marker)
        self._put_in(where, namespace, marker)

    def remove(self, key: PolicyKey) -> bool:
        """Remove the policy, usable or not; say whether there was one."""
        if not self._take_out(key):
            return False
        self._tell_views(key, self._unknown(key))
        self.generation += 1
        return True

    def affects(self, key: PolicyKey, destination: Destination) -> bool:
        """Say whether a change of this policy can change a decision for the destination."""
        if key in destination.policies:
            return True
        policy = self._policies.get(key)
        if policy is not None:
            return applies(policy.scope, policy.namespace, key, destination)
        marked = self._unusable.get(key)
        return marked is not None and applies(marked[0], marked[1], key, destination)

    def applying(self, destination: Destination) -> tuple[PolicyKey, ...]:
        """Return the keys of all policies looked at for the destination, unusable and dry-run ones included. A scan."""
        return tuple(sorted(key for key in (*self._policies, *self._unusable) if self.affects(key, destination)))

    def decide(self, destination: Destination, connection: Connection) -> Verdict:
        """Decide as :func:`policy.evaluate.evaluate` does over the same policies.

        Raises:
            MalformedConnectionError: the identity or an address of ``connection`` is not one.
        """
        facts = Facts(connection)
        buckets = [self._global] if self._global else []
        if (own := self._by_namespace.get(destination.namespace)) is not None:
            buckets.append(own)
        if destination.policies:
            buckets.append(self._view(destination))
        if not buckets:
            return _DEFAULT
        dry_run = _dry_run(buckets, facts)
        if (denied := _first(buckets, Action.DENY, facts)) is not None:
            return Verdict(False, VerdictReason.DENIED_BY_POLICY, *denied, dry_run=dry_run)
        broken = [marker for bucket in buckets if (marker := bucket.unusable()) is not None]
        if broken:
            first = min(broken, key=lambda marker: marker.key)
            return Verdict(False, VerdictReason.UNUSABLE_POLICY, first.key, NO_RULE, first.cause, dry_run)
        if all(bucket.rules(Action.ALLOW, False) is None for bucket in buckets):
            return Verdict(True, VerdictReason.NO_ALLOW_POLICIES, dry_run=dry_run)
        if (allowed := _first(buckets, Action.ALLOW, facts)) is not None:
            return Verdict(True, VerdictReason.ALLOWED_BY_POLICY, *allowed, dry_run=dry_run)
        return Verdict(False, VerdictReason.NOT_ALLOWED, dry_run=dry_run)

    def _take_out(self, key: PolicyKey) -> bool:
        policy = self._policies.pop(key, None)
        marked = self._unusable.pop(key, None)
        if policy is not None:
            scope, namespace = policy.scope, policy.namespace
        elif marked is not None:
            scope, namespace, _ = marked
        else:
            return False
        if scope is Scope.GLOBAL:
            self._global.discard(key)
        elif scope is Scope.NAMESPACE:
            self._by_namespace[namespace].discard(key)
            if not self._by_namespace[namespace]:
                del self._by_namespace[namespace]
        return True

    def _put_in(self, scope: Scope, namespace: str, item: Authorization | Unusable) -> None:
        if scope is Scope.GLOBAL:
            self._global.put(item)
        elif scope is Scope.NAMESPACE:
            self._by_namespace.setdefault(namespace, _Bucket()).put(item)
        self._tell_views(item.key, item)
        self.generation += 1

    def _known(self, key: PolicyKey) -> Authorization | Unusable | None:
        policy = self._policies.get(key)
        if policy is not None:
            return policy
        return self._unusable[key][2] if key in self._unusable else self._unknown(key)

    def _unknown(self, key: PolicyKey) -> Unusable | None:
        return Unusable(key, UNKNOWN_POLICY) if self._unknown_policy == "refuse" else None

    def _view(self, destination: Destination) -> _Bucket:
        view = self._views.get(destination)
        if view is not None:
            self._views.move_to_end(destination)
            return view
        view = self._views[destination] = _Bucket()
        for name in destination.policies:
            self._viewed.setdefault(name, set()).add(destination)
            if (item := self._known(PolicyKey(name))) is not None:
                view.put(item)
        if len(self._views) > MAX_VIEWS:
            self._forget(self._views.popitem(last=False)[0])
        return view

    def _forget(self, destination: Destination) -> None:
        for name in set(destination.policies):
            self._viewed[name].discard(destination)
            if not self._viewed[name]:
                del self._viewed[name]

    def _tell_views(self, key: PolicyKey, item: Authorization | Unusable | None) -> None:
        for destination in self._viewed.get(key, ()):
            if item is None:
                self._views[destination].discard(key)
            else:
                self._views[destination].put(item)


_DEFAULT = Verdict(True, VerdictReason.NO_ALLOW_POLICIES)


def _first(buckets: list[_Bucket], action: Action, facts: Facts) -> Owner | None:
    best: Owner | None = None
    for bucket in buckets:
        rules = bucket.rules(action, False)
        if rules is not None:
            found = rules.first(facts)
            if found is not None and (best is None or found < best):
                best = found
    return best


def _dry_run(buckets: list[_Bucket], facts: Facts) -> tuple[DryRun, ...]:
    denying: dict[PolicyKey, int] = {}
    allowing: dict[PolicyKey, int] = {}
    idle: list[PolicyKey] = []
    for bucket in buckets:
        if (rules := bucket.rules(Action.DENY, True)) is not None:
            denying |= rules.all(facts)
        if (rules := bucket.rules(Action.ALLOW, True)) is not None:
            allowing |= rules.all(facts)
            if (lowest := rules.lowest()) is not None:
                idle.append(lowest)
    if not (denying or idle):
        return ()
    found = [DryRun(key, Action.DENY, True, rule) for key, rule in denying.items()]
    found += [DryRun(key, Action.ALLOW, True, rule) for key, rule in allowing.items()]
    found.sort(key=lambda result: result.policy)
    if idle and not allowing:
        found.append(DryRun(min(idle), Action.ALLOW, False))
    return tuple(found)
