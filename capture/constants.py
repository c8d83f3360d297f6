"""Ports, marks and names of in-pod redirection, one place for all of them.

The values are those of Istio ambient, so that its ztunnel can serve a pod captured by us and ours a pod captured by
istio-cni. Used by every module of this room and by the proxy for its sockets.
"""

from typing import Final

PORT_OUTBOUND: Final = 15001
"""Captured outbound TCP is redirected here."""
PORT_INBOUND_PLAINTEXT: Final = 15006
"""Captured inbound TCP that is not HBONE is redirected here."""
PORT_HBONE: Final = 15008
"""HBONE arrives here by itself: never redirected."""
PORT_DNS_PROXY: Final = 15053
"""Captured DNS, UDP and TCP, is redirected here."""
PORT_DNS: Final = 53

PROXY_MARK: Final = 0x539
"""SO_MARK of every socket the proxy dials with: exempt from capture."""
LOOP_MARK: Final = 0x111
"""Mark of the application's answers to the proxy's transparent sockets: routed to lo instead of out."""
MARK_MASK: Final = 0xFFF
"""The bits of a mark that are ours; the upper 20 belong to others and are left alone."""
FULL_MASK: Final = 0xFFFFFFFF

ROUTE_TABLE: Final = 100
RULE_PRIORITY: Final = 32764
DNS_ZONE: Final = 1
"""Conntrack zone of the DNS proxy's own queries, so that they don't collide with the application's."""

LOOPBACK_V4: Final = "127.0.0.1"
LOOPBACK_V6: Final = "::1"
PROBE_IPV4: Final = "169.254.7.127"
"""Source address that the host gives to kubelet probes (istio-cni HOST_PROBE_SNAT_IP)."""
PROBE_IPV6: Final = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"
"""The same for IPv6 (istio-cni HOST_PROBE_SNAT_IPV6)."""
