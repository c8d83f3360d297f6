"""Names that an AuthorizationPolicy document may hold (Istio security API v1; Kubernetes ObjectMeta). Data only."""

__all__ = [
    "ACTIONS",
    "API_VERSIONS",
    "DOCUMENT",
    "L4_CONDITIONS",
    "METADATA",
    "OPERATION_L7",
    "SOURCE_L7",
    "is_l7_condition",
]

API_VERSIONS = ("security.istio.io/v1", "security.istio.io/v1beta1")
DOCUMENT = ("apiVersion", "kind", "metadata", "spec", "status")
METADATA = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
    "selfLink",
)
ACTIONS = ("ALLOW", "DENY", "AUDIT", "CUSTOM")
SOURCE_L7 = ("requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks")
OPERATION_L7 = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")

L4_CONDITIONS = ("source.ip", "source.namespace", "source.principal", "destination.ip", "destination.port")
_L7_CONDITIONS = (
    "remote.ip",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "connection.sni",
    "source.serviceAccount",
    "source.trustDomain",
)
_L7_WITH_ARGUMENT = ("request.headers[", "request.auth.claims[", "experimental.")


def is_l7_condition(key: str) -> bool:
    """Say whether a ``when`` key is a valid one that L4 cannot check."""
    return key in _L7_CONDITIONS or (key.startswith(_L7_WITH_ARGUMENT) and not key.endswith("["))
