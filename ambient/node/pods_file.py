"""The list of pods the lab agent enrols, as a JSON file read strictly.

An array of ``{"uid", "name", "namespace", "service_account", "netns"}`` and optionally ``"config"`` with the fields of
:class:`capture.rules.CaptureConfig`. Pure but for the reading.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import msgspec

from ambient.node.errors import PodsFileError
from capture.errors import ConfigError
from capture.rules import CaptureConfig
from ztunnel.state.model import WorkloadInfo

__all__ = ["PodSpec", "parse_pods", "read_pods"]

MAX_FILE: Final = 4 * 1024 * 1024
"""Bytes."""


class _Pod(msgspec.Struct, forbid_unknown_fields=True):
    uid: str
    name: str
    namespace: str
    service_account: str
    netns: str
    config: dict[str, Any] = {}


class PodSpec(msgspec.Struct, frozen=True):
    """A pod to be enrolled. ``netns`` is a path."""

    uid: str
    info: WorkloadInfo
    netns: str
    config: CaptureConfig


def read_pods(path: Path) -> dict[str, PodSpec]:
    """The pods by uid. Raises PodsFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise PodsFileError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise PodsFileError(f"{path}: longer than {MAX_FILE} bytes")
    try:
        return parse_pods(data)
    except PodsFileError as error:
        raise PodsFileError(f"{path}: {error}") from error


def parse_pods(data: bytes) -> dict[str, PodSpec]:
    """The pods by uid. Raises PodsFileError."""
    try:
        rows = msgspec.json.decode(data, type=list[_Pod])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PodsFileError(f"not a list of pods: {error}") from error
    pods: dict[str, PodSpec] = {}
    for number, row in enumerate(rows):
        if not row.uid or row.uid in pods:
            raise PodsFileError(f"$[{number}].uid: {row.uid!r} is empty or there twice; every pod needs its own")
        info = WorkloadInfo(row.name, row.namespace, row.service_account)
        pods[row.uid] = PodSpec(row.uid, info, row.netns, _config(row.config, number))
    return pods


def _config(values: dict[str, Any], number: int) -> CaptureConfig:
    known = {field.name for field in fields(CaptureConfig)}
    if unknown := sorted(values.keys() - known):
        raise PodsFileError(f"$[{number}].config: no such field {unknown[0]!r}; there are {', '.join(sorted(known))}")
    try:
        return msgspec.convert(values, CaptureConfig)
    except (msgspec.ValidationError, ConfigError) as error:
        raise PodsFileError(f"$[{number}].config: {error}") from error
