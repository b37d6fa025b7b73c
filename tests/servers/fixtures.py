"""Fixtures that give a test a place of its own on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests import servers
from tests.servers import Place, Proxy

ThroughProxy = Callable[[Place], tuple[Place, Proxy]]


@pytest.fixture
def s3() -> Place:
    """A new bucket."""
    return servers.s3()


@pytest.fixture
def azure() -> Place:
    """A new container."""
    return servers.azure()


@pytest.fixture
def through_proxy() -> Iterator[ThroughProxy]:
    """Gives the same place by the address of a proxy, and the proxy, which then counts from 0."""
    used = []

    def through(place: Place) -> tuple[Place, Proxy]:
        proxy = servers.proxy_of(place.server)
        proxy.forget()
        used.append(proxy)
        return place.at(proxy.url), proxy

    yield through
    for proxy in used:
        proxy.forget()
