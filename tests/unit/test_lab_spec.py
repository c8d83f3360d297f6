"""ambient.lab.spec: what cannot be built is refused when it is written down."""

import pytest

from ambient.lab.errors import LabError, LabSpecError
from ambient.lab.spec import MAX_NODES, LabSpec, NodeSpec, PodSpec, check_lab_name


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a.b", "a" * 64, "a\n", "ä"])
def test_bad_pod_and_node_names_are_refused(name: str) -> None:
    with pytest.raises(LabSpecError):
        PodSpec(name)
    with pytest.raises(LabSpecError):
        NodeSpec(name)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.json", "a" * 33, "-", "x\n", "a b"])
def test_lab_names_that_are_no_file_name_are_refused(name: str) -> None:
    with pytest.raises(LabSpecError):
        check_lab_name(name)


def test_every_name_of_a_lab_is_its_own() -> None:
    with pytest.raises(LabSpecError, match="'client' is used twice"):
        LabSpec((NodeSpec("a", (PodSpec("client"),)), NodeSpec("b", (PodSpec("client"),))))
    with pytest.raises(LabSpecError, match="'a' is used twice"):
        LabSpec((NodeSpec("a", (PodSpec("a"),)),))


def test_two_pods_with_one_index_are_refused() -> None:
    with pytest.raises(LabSpecError, match="same index"):
        NodeSpec("a", (PodSpec("x", index=3), PodSpec("y", index=3)))


@pytest.mark.parametrize("index", [0, -1, 65_001])
def test_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(LabSpecError, match="out of range"):
        PodSpec("x", index=index)


def test_number_of_nodes_is_bounded() -> None:
    assert len(LabSpec.simple(MAX_NODES, 0).nodes) == MAX_NODES
    for nodes in (0, MAX_NODES + 1):
        with pytest.raises(LabSpecError):
            LabSpec.simple(nodes, 0)


def test_simple_names_and_accounts() -> None:
    spec = LabSpec.simple(2, 2)
    assert [node.name for node in spec.nodes] == ["node-1", "node-2"]
    assert [(pod.name, pod.service_account) for pod in spec.nodes[1].pods] == [("pod-2-1", "pod-2-1"), ("pod-2-2", "pod-2-2")]


def test_errors_carry_cause_remedy_and_reason() -> None:
    with pytest.raises(LabError) as caught:
        LabSpec((), name="ok")
    assert caught.value.reason == "lab_spec"
    assert caught.value.cause
    assert caught.value.remedy
    assert isinstance(caught.value, ValueError)
