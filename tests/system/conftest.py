"""Fixtures of the tests in real network namespaces."""

from collections.abc import Iterator

import pytest

from tests.system.apps import Town, new_town


@pytest.fixture(scope="session")
def _town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with new_town(tmp_path_factory.mktemp("mesh")) as town:
        yield town


@pytest.fixture
def town(_town: Town) -> Town:
    """Two nodes in a mesh; state as at the beginning, the log marked."""
    _town.clean()
    return _town
