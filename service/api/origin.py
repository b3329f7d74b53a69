"""Whose requests are answered: the host that a request must name, and what a page of another origin may not do.

A browser sends requests for any page that is open in it, to every address that it can reach, and this server has no keys. Two
things give such a request away. A page that points its own name at this machine (DNS rebinding) names itself in `Host`. A page
that calls this machine by its right name is named in `Origin`, or told from ours by `Sec-Fetch-Site`, which no page can write.
Who sends neither is no browser, or one that follows a link.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

from service.api.problems import BAD_HOST, CROSS_ORIGIN, Problem
from service.domain.hosts import LOOPBACK, Host, parse_origin, without_default_port
from service.settings import ANY_HOST, Settings

HEALTH_PATHS = frozenset({"/health/live", "/health/startup", "/health/ready"})
NOT_LINKABLE_PATHS = frozenset({"/generate"})  # a link to it would spend the model's time, and nobody has a reason to set one
OWN_SITES = frozenset({b"same-origin", b"none"})


def is_health_check(scope: Mapping[str, Any]) -> bool:
    """Whether a request asks how the server is, and nothing else."""
    return scope["path"] in HEALTH_PATHS and scope["method"] in ("GET", "HEAD")


class Origins:
    """The hosts that this server answers to, and the check of each request against them."""

    def __init__(self, settings: Settings) -> None:
        named = [host for text in settings.allowed_hosts if (host := Host.of(text)) is not None]
        self._answers_all = ANY_HOST in settings.allowed_hosts
        self._hosts = (*LOOPBACK, *named)
        # A bare loopback name does not vouch for pages: other servers of this machine have pages there too.
        self._pages = tuple(host for host in named if host not in LOOPBACK)

    def check(self, scope: MutableMapping[str, Any]) -> None:
        """Raise Problem for a host that is not this server's, and for what another origin's page may not do."""
        headers = dict(scope["headers"])
        host = Host.of(headers.get(b"host", b"").decode("latin-1"))
        if not is_health_check(scope) and not self._is_ours(host):  # those who check the health come by any address
            raise Problem(
                BAD_HOST, "The Host header must name this machine or be in its setting ERRATA_ALLOWED_HOSTS (--allowed-host)."
            )
        if self._is_foreign(scope, headers, host):
            raise Problem(
                CROSS_ORIGIN,
                "A page of another origin may not do this; a proxy in between must hand on the Host header as it was.",
            )

    def _is_ours(self, host: Host | None) -> bool:
        return self._answers_all or (host is not None and any(own.covers(host) for own in self._hosts))

    def _is_foreign(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], host: Host | None) -> bool:
        site = headers.get(b"sec-fetch-site")
        if site is not None and site not in OWN_SITES and not _follows_a_link(scope, headers):
            return True
        # A link carries no Origin; what a script of a page reads or sends does, also over plain HTTP.
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        return not all(self._is_own_page(origin, host) for origin in given)

    def _is_own_page(self, text: str, host: Host | None) -> bool:
        """Whether an Origin is the address that this very request was sent to, or is named in the settings."""
        origin = parse_origin(text)
        if origin is None:
            return False
        scheme, page = origin
        if host is not None and page == without_default_port(host, scheme):
            return True
        return any(named.covers(page) for named in self._pages)


def _follows_a_link(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> bool:
    """Whether somebody opens an address in a window of its own, where the page that holds the link cannot look."""
    opened = (headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest"), scope["method"])
    return opened == (b"navigate", b"document", "GET") and scope["path"] not in NOT_LINKABLE_PATHS
