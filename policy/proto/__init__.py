"""Protobuf types of the authorization resource; generated, see ``authorization.proto`` for how."""
