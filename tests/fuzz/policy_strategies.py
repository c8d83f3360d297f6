"""Policies and connections over alphabets so small that they collide; shared by the policy fuzz tests."""

from hypothesis import strategies as st

from policy.model import Action, Authorization, Match, Scope, ServiceAccountMatch, StringMatch, StringMatchKind
from policy.verdict import Connection, Destination

NAMESPACES = ("a", "ab", "b")
ACCOUNTS = ("s", "as")
PORTS = (1, 80, 65535)
RANGES = ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/31", "10.0.0.1/32", "128.0.0.0/1", "::/0", "fd00::/8", "fd00::1/128")
HOSTS = ("10.0.0.1", "10.0.0.2", "200.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fe80::1%eth0")
PRINCIPALS = tuple(
    f"{domain}/ns/{namespace}/sa/{account}" for domain in ("t", "u") for namespace in NAMESPACES for account in ACCOUNTS
)
NAMES = ("p", "q", "r", "s")
KEYS = tuple(f"{namespace}/{name}" for namespace in NAMESPACES for name in NAMES)


def few(elements: st.SearchStrategy) -> st.SearchStrategy[tuple]:
    """Mostly none: a match with all its fields set says little."""
    return st.one_of(st.just(()), st.just(()), st.lists(elements, min_size=1, max_size=3).map(tuple))


def strings(texts: tuple[str, ...]) -> st.SearchStrategy[StringMatch]:
    kinds = st.sampled_from((StringMatchKind.EXACT, StringMatchKind.PREFIX, StringMatchKind.SUFFIX, StringMatchKind.PRESENCE))
    return st.builds(_string, kinds, st.sampled_from(texts), st.integers(0, 9))


def _string(kind: StringMatchKind, text: str, length: int) -> StringMatch:
    match kind:
        case StringMatchKind.PREFIX:
            return StringMatch(kind, text[:length])
        case StringMatchKind.SUFFIX:
            return StringMatch(kind, text[max(len(text) - length, 0) :])
        case StringMatchKind.EXACT:
            return StringMatch(kind, text)
        case StringMatchKind.PRESENCE:
            return StringMatch(kind)


accounts = st.builds(ServiceAccountMatch, st.sampled_from(NAMESPACES), st.sampled_from(ACCOUNTS))
matches = st.builds(
    Match,
    namespaces=few(strings(NAMESPACES)),
    not_namespaces=few(strings(NAMESPACES)),
    principals=few(strings(PRINCIPALS)),
    not_principals=few(strings(PRINCIPALS)),
    source_ips=few(st.sampled_from(RANGES)),
    not_source_ips=few(st.sampled_from(RANGES)),
    destination_ips=few(st.sampled_from(RANGES)),
    not_destination_ips=few(st.sampled_from(RANGES)),
    destination_ports=few(st.sampled_from(PORTS)),
    not_destination_ports=few(st.sampled_from(PORTS)),
    service_accounts=few(accounts),
    not_service_accounts=few(accounts),
)


def tuples(elements: st.SearchStrategy, most: int) -> st.SearchStrategy[tuple]:
    return st.lists(elements, max_size=most).map(tuple)


rules = tuples(tuples(matches, 2), 2)
authorizations = st.builds(
    Authorization,
    name=st.sampled_from(NAMES),
    namespace=st.sampled_from(NAMESPACES),
    scope=st.sampled_from(Scope),
    action=st.sampled_from(Action),
    rules=tuples(rules, 3),
    dry_run=st.sampled_from((False, False, False, True)),
)
destinations = st.builds(Destination, st.sampled_from(NAMESPACES), tuples(st.sampled_from(KEYS), 3))
connections = st.builds(
    Connection,
    st.one_of(st.none(), st.sampled_from(PRINCIPALS).map("spiffe://{}".format)),
    st.sampled_from(HOSTS),
    st.sampled_from(HOSTS),
    st.sampled_from(PORTS),
)
