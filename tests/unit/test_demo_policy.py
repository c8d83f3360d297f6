"""ambient.demo.policy: what it writes is what the proxy's strict reader takes."""

import json
from pathlib import Path

import pytest

from ambient.demo.policy import main, one_policy
from policy.model import Action
from policy.static_form import parse_static


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state.yaml"
    path.write_text(json.dumps({"workloads": [{"uid": "w"}], "services": [], "policies": [one_policy("Deny", "shop/old")]}))
    return path


@pytest.mark.parametrize(
    ("option", "name", "action"), [("--deny", "deny-web", Action.DENY), ("--allow-only", "allow-only-web", Action.ALLOW)]
)
def test_one_policy_takes_the_place_of_all(state: Path, option: str, name: str, action: Action) -> None:
    assert main([str(state), option, "shop/web"]) == 0
    document = json.loads(state.read_text())
    assert document["workloads"] == [{"uid": "w"}]
    (policy,) = [parse_static(found, "policies[0]") for found in document["policies"]]
    assert (policy.name, policy.namespace, policy.action) == (name, "shop", action)
    assert policy.rules[0][0][0].principals[0].value == "cluster.local/ns/shop/sa/web"


def test_none_removes_them(state: Path) -> None:
    assert main([str(state), "--none"]) == 0
    assert json.loads(state.read_text())["policies"] == []


@pytest.mark.parametrize("account", ["web", "shop/", "/web", "a/b/c", ""])
def test_a_wrong_account_changes_nothing(state: Path, account: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = state.read_text()
    with pytest.raises(ValueError, match="NAMESPACE/SERVICE-ACCOUNT"):
        one_policy("Deny", account)
    if account:
        assert main([str(state), "--deny", account]) == 1
        assert "not changed" in capsys.readouterr().err
    assert state.read_text() == before


def test_no_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "--none"]) == 1
    assert "not changed" in capsys.readouterr().err
