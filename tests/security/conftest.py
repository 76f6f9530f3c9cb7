"""A `ctweb run` with two users."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from running import Ctweb, new_namespace, runner

from security.people import TRACKING, Page, settle

_sources = count(2)


@pytest.fixture(scope="module")
def ctweb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ctweb]:
    state_dir = tmp_path_factory.mktemp("security") / "state"
    settle(state_dir)
    with new_namespace(), runner(state_dir) as start:
        yield start().ready()


@pytest.fixture
def page(ctweb: Ctweb) -> Page:
    """A page that is not signed in, at an address where nobody has failed yet."""
    return Page(ctweb, f"127.0.1.{next(_sources)}")


@pytest.fixture
def boss(page: Page) -> Page:
    """Signed in with the role full."""
    assert page.sign_in("boss") == 200
    return page


@pytest.fixture
def guest(page: Page) -> Page:
    """Signed in with the role read."""
    assert page.sign_in("guest") == 200
    return page


@pytest.fixture
def unmoved(ctweb: Ctweb) -> Iterator[None]:
    """No attack changes a setting, or makes the server stumble."""
    yield
    assert ctweb.get(TRACKING)[1]["udp-timeout"] == "10s"
    log = ctweb.log.read_text()
    assert "Traceback" not in log
    assert "a request failed" not in log
