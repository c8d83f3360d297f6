"""Traffic takeover: rule sets as data, their backends, and entry into network namespaces.

The front is :mod:`capture.manager` (apply, verify, repair, remove); :mod:`capture.preflight` tells whether a machine can do
it at all; :mod:`capture.netns` is for whoever works inside a pod's network namespace.
"""
