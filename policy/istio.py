"""AuthorizationPolicy documents (``security.istio.io/v1``, ``v1beta1``) as L4 authorizations.

The translation is istiod's, recorded from it: clauses in the order to, from, when; ``*`` is presence, a leading ``*`` a
suffix, a trailing one a prefix; an ALLOW rule with an HTTP attribute is left out; a DENY rule loses the attribute and, where
nothing is left of an operation, source or condition, that one matches nothing. The reading is stricter than istiod's, which
drops bad values without a word: here they are errors. Called by whoever holds documents (``ambient``); pure.
"""

from enum import StrEnum

import msgspec
import yaml

from policy.document import Fields, Reader
from policy.errors import PolicyDocumentError
from policy.istio_fields import ACTIONS, API_VERSIONS, DOCUMENT, METADATA
from policy.istio_rules import Rules
from policy.model import Action, Authorization, Scope

__all__ = ["DRY_RUN_ANNOTATION", "Outcome", "Translated", "translate"]

DRY_RUN_ANNOTATION = "istio.io/dry-run"
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


class Outcome(StrEnum):
    """What became of a document."""

    TRANSLATED = "translated"
    """There is an authorization."""
    TARGETED = "targeted"
    """It has targetRefs: a waypoint enforces it, L4 does not."""
    REFUSED = "refused"
    """Its action cannot be enforced at L4 at all."""


class Translated(msgspec.Struct, frozen=True, kw_only=True):
    """One document. ``authorization`` is ``None`` exactly when ``outcome`` is not ``TRANSLATED``; ``notes`` then say why.

    ``selector`` are the labels that a workload must have, ``None`` without a selector. ``unsupported`` are the HTTP attributes
    found, in order, each once. ``notes`` are sentences for the operator about what is not enforced as it reads.
    """

    name: str
    namespace: str
    outcome: Outcome
    authorization: Authorization | None
    selector: dict[str, str] | None
    notes: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()


def translate(
    text: str, *, file: str = "", root_namespace: str = "istio-system", default_namespace: str = "default"
) -> tuple[Translated, ...]:
    """Read all documents of ``text``.

    Args:
        text: YAML, one AuthorizationPolicy a document.
        file: its name, for messages.
        root_namespace: where a policy without selector is global (Istio's default).
        default_namespace: for documents that name none.

    Raises:
        PolicyDocumentError: with every problem found; then nothing of the text is to be used.
    """
    reader = Reader(file)
    found: dict[tuple[str, str], Translated] = {}
    for node in reader.documents(text):
        policy = _Document(reader, root_namespace, default_namespace).read(node)
        if (policy.namespace, policy.name) in found:
            reader.problem(node, "metadata.name", f"AuthorizationPolicy {policy.namespace}/{policy.name} is there twice")
        found[policy.namespace, policy.name] = policy
    if reader.problems:
        raise PolicyDocumentError(tuple(reader.problems))
    return tuple(found.values())


class _Document:
    """Reads one document. Problems go to the reader; what is returned then is thrown away."""

    def __init__(self, reader: Reader, root_namespace: str, default_namespace: str) -> None:
        self._reader = reader
        self._root = root_namespace
        self._namespace = default_namespace

    def read(self, node: yaml.Node) -> Translated:
        reader = self._reader
        fields = reader.fields(node, "", DOCUMENT)
        for key in ("apiVersion", "kind", "metadata"):
            if key not in fields:
                reader.problem(node, key, "required and missing")
        if "apiVersion" in fields:
            reader.choice(fields["apiVersion"], "apiVersion", API_VERSIONS, "version")
        if "kind" in fields:
            reader.choice(fields["kind"], "kind", ("AuthorizationPolicy",), "kind")
        name, dry_run = self._metadata(fields["metadata"]) if "metadata" in fields else ("", False)
        keys = ("selector", "targetRef", "targetRefs", "action", "provider", "rules")
        spec = reader.fields(fields["spec"], "spec", keys) if "spec" in fields else {}

        selector = self._selector(spec["selector"]) if "selector" in spec else None
        action = reader.choice(spec["action"], "spec.action", ACTIONS, "action") if "action" in spec else "ALLOW"
        if "provider" in spec and action != "CUSTOM":
            reader.problem(spec["provider"], "spec.provider", "is for action CUSTOM only")
        effect = Action.DENY if action == "DENY" else Action.ALLOW
        read = Rules(reader, self._namespace, effect)
        rules = read.read(spec["rules"], "spec.rules") if "rules" in spec else ()

        outcome, why = Outcome.TRANSLATED, ""
        if self._targets(spec):
            outcome, why = Outcome.TARGETED, "it has targetRefs: a waypoint enforces it, the node proxy does not"
        elif action in ("CUSTOM", "AUDIT"):
            outcome, why = Outcome.REFUSED, f"the node proxy does not support the {action} action: enforce it with a waypoint"
        if why:
            return Translated(
                name=name, namespace=self._namespace, outcome=outcome, authorization=None, selector=selector, notes=(why,)
            )
        scope = Scope.GLOBAL if self._namespace == self._root else Scope.NAMESPACE
        authorization = Authorization(
            name=name,
            namespace=self._namespace,
            scope=scope if selector is None else Scope.WORKLOAD_SELECTOR,
            action=effect,
            rules=rules,
            dry_run=dry_run,
        )
        return Translated(
            name=name,
            namespace=self._namespace,
            outcome=outcome,
            authorization=authorization,
            selector=selector,
            notes=tuple(read.notes),
            unsupported=tuple(read.unsupported),
        )

    def _metadata(self, node: yaml.Node) -> tuple[str, bool]:
        reader = self._reader
        fields = reader.fields(node, "metadata", METADATA)
        if "name" not in fields:
            reader.problem(node, "metadata.name", "required and missing")
        name = reader.text(fields["name"], "metadata.name") if "name" in fields else ""
        if "/" in name:
            reader.problem(fields["name"], "metadata.name", "must not contain a slash")
        if "namespace" in fields:
            self._namespace = reader.text(fields["namespace"], "metadata.namespace")
            if "/" in self._namespace:
                reader.problem(fields["namespace"], "metadata.namespace", "must not contain a slash")
        if "labels" in fields:
            reader.texts(fields["labels"], "metadata.labels")
        if "annotations" not in fields:
            return name, False
        annotation = reader.texts(fields["annotations"], "metadata.annotations").get(DRY_RUN_ANNOTATION, "false")
        if annotation not in _TRUE | _FALSE:
            path = f"metadata.annotations.{DRY_RUN_ANNOTATION}"
            reader.problem(fields["annotations"], path, f'must be "true" or "false", is {annotation[:64]!r}')
        return name, annotation in _TRUE

    def _selector(self, node: yaml.Node) -> dict[str, str]:
        fields = self._reader.fields(node, "spec.selector", ("matchLabels",))
        if "matchLabels" not in fields:
            return {}
        path = "spec.selector.matchLabels"
        labels = self._reader.texts(fields["matchLabels"], path)
        for key, value in labels.items():
            if "*" in key or "*" in value:
                where = f"{path}.{key}"
                self._reader.problem(fields["matchLabels"], where, "must not hold a wildcard: labels are equal or not")
        return labels

    def _targets(self, spec: Fields) -> bool:
        present = [key for key in ("targetRef", "targetRefs") if key in spec]
        for key in present:
            if "selector" in spec or len(present) > 1:
                self._reader.problem(spec[key], f"spec.{key}", "only one of selector, targetRef and targetRefs may be set")
        keys = ("group", "kind", "name", "namespace")

        def target(node: yaml.Node, path: str) -> Fields:
            return self._reader.fields(node, path, keys)

        if "targetRef" in spec:
            target(spec["targetRef"], "spec.targetRef")
        if "targetRefs" in spec:
            self._reader.items(spec["targetRefs"], "spec.targetRefs", target, least=1)
        return bool(present)
