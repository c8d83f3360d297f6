"""HBONE: HTTP/2 CONNECT sessions and their TLS, sans-IO."""
