"""SPIFFE identities, certificates and their renewal."""
