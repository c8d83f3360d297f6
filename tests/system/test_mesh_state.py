"""The static state file under a running mesh: what is wrong with it is told exactly, and never takes effect."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.apps import Server, Town, attempt, until

Doc = dict[str, Any]


def _unknown_field(doc: Doc) -> None:
    doc["workloads"][0]["colour"] = "red"


def _wrong_type(doc: Doc) -> None:
    doc["workloads"][0]["workloadIps"] = "10.0.0.1"


def _duplicate_uid(doc: Doc) -> None:
    doc["workloads"][1]["uid"] = doc["workloads"][0]["uid"]


def _shared_address(doc: Doc) -> None:
    doc["workloads"][1]["workloadIps"] = doc["workloads"][0]["workloadIps"]


def _policy(doc: Doc, **fields: object) -> None:
    doc["policies"] = [
        {"name": "p", "namespace": "shop", "scope": "Namespace", "action": "Deny", "rules": [], "dryRun": False, **fields}
    ]


def _unknown_action(doc: Doc) -> None:
    _policy(doc, action="Audit")


def _unknown_match(doc: Doc) -> None:
    _policy(doc, rules=[[[{"moonPhase": ["full"]}]]])


def _unknown_kind_of_string(doc: Doc) -> None:
    _policy(doc, rules=[[[{"principals": [{"Regex": ".*"}]}]]])


BAD: dict[str, tuple[Callable[[Doc], None], str, str]] = {
    "unknown field": (_unknown_field, "workloads[0].colour", "colour"),
    "wrong type": (_wrong_type, "workloads[0].workloadIps", "list"),
    "duplicate uid": (_duplicate_uid, "workloads[1]", "uid"),
    "address in two workloads": (_shared_address, "workloads[1]", "address"),
    "unknown action": (_unknown_action, "policies[0].action", "Audit"),
    "unknown match": (_unknown_match, "policies[0].rules", "moonPhase"),
    "unknown kind of string match": (_unknown_kind_of_string, "policies[0].rules", "Regex"),
}


def problem(town: Town) -> str:
    found = town.dump(town.node_2)["config"]["stateProblem"]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_told_and_does_not_replace_the_good_one(town: Town, what: str) -> None:
    spoil, path, cause = BAD[what]
    good = town.mesh.state_path.read_text()
    doc = copy.deepcopy(json.loads(good))
    spoil(doc)
    try:
        town.mesh.state_path.write_text(json.dumps(doc, indent=1))
        until(lambda: "state refused" in town.since(town.node_2))
        said = problem(town)
        assert said.startswith(f"{town.mesh.state_path}: line ")
        assert path in said
        assert cause in said
        assert said.splitlines()[0].split(": ", 2)[2][:30] in town.since(town.node_2)
        assert len(town.dump(town.node_2)["workloads"]) == len(json.loads(good)["workloads"])
        town.works()
    finally:
        town.mesh.state_path.write_text(good)
    until(lambda: problem(town) == "")
    town.works()


@pytest.mark.parametrize("end", [0, 1, 700])
def test_a_half_written_file_waits_for_the_rest(town: Town, end: int) -> None:
    """Cut in the middle it is an error. An empty file is no state, not the state in which there is nothing."""
    good = town.mesh.state_path.read_text()
    try:
        town.mesh.state_path.write_text(good[:end])
        until(lambda: "state refused" in town.since(town.node_2), said=f"a file of {end} bytes was taken")
        town.works()
    finally:
        town.mesh.state_path.write_text(good)
    until(lambda: problem(town) == "")
    town.works()


def test_a_deleted_file_changes_nothing(town: Town) -> None:
    good = town.mesh.state_path.read_text()
    town.mesh.state_path.unlink()
    try:
        until(lambda: "No such file" in problem(town))
        assert "No such file" in town.since(town.node_2)
        town.works()
    finally:
        town.mesh.state_path.write_text(good)
    until(lambda: problem(town) == "")
    town.works()


def test_after_a_bad_file_a_good_one_takes_effect(town: Town) -> None:
    town.mesh.state_path.write_text("workloads: [}")
    until(lambda: problem(town))
    town.policy("nobody", "Allow", [])
    town.apply()
    assert problem(town) == ""
    with Server(town.far):
        assert attempt(town.client, town.far.ipv4) == "reset"
    town.clean()
    town.works()


def test_an_empty_state_is_written_as_such(town: Town) -> None:
    good = town.mesh.state_path.read_text()
    try:
        town.mesh.state_path.write_text("{}")
        until(lambda: town.dump(town.node_2)["workloads"] == [])
        assert problem(town) == ""
    finally:
        town.mesh.state_path.write_text(good)
    until(lambda: town.dump(town.node_1)["workloads"] and town.dump(town.node_2)["workloads"])
    town.works()


def test_a_restarted_control_half_with_a_bad_file_keeps_the_good_state(town: Town) -> None:
    """The file was spoilt while all was well; then the control half dies. What the data plane knows stays in force."""
    town.policy("nobody", "Allow", [])
    town.apply()
    good = town.mesh.state_path.read_text()
    try:
        town.mesh.state_path.write_text(good[:500])
        until(lambda: "state refused" in town.since(town.node_1))
        town.kill_control(town.node_1)
        until(lambda: town.since(town.node_1).count("state refused") >= 2)
        with Server(town.near) as app:
            assert attempt(town.client, town.near.ipv4) == "reset"
            assert app.idle()
    finally:
        town.mesh.state_path.write_text(good)
    until(lambda: problem(town) == "")
