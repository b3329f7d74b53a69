"""The checks of `Host` and `Origin`: requests from pages of other origins are refused.

A browser sends the requests of every open page, to every address that it can reach, and this server has no keys. Two headers
reveal such a request. A page whose own name points at this machine (DNS rebinding) has its name in `Host`. A page that calls this
machine by its right name is named in `Origin` or marked by `Sec-Fetch-Site`, which no page can set. A request without these two
comes from a client that is no browser, or from a browser that follows a link.
"""

from collections.abc import Mapping, MutableMapping
from typing import Any

from service.api.problems import BAD_HOST, CROSS_ORIGIN, Problem
from service.domain.hosts import LOOPBACK, Host, parse_origin, without_default_port
from service.settings import ANY_HOST, Settings

HEALTH_PATHS = frozenset({"/health/live", "/health/startup", "/health/ready"})
NOT_LINKABLE_PATHS = frozenset({"/generate"})  # a link to it would spend the model's time and has no use
OWN_SITES = frozenset({b"same-origin", b"none"})


def is_health_check(scope: Mapping[str, Any]) -> bool:
    """Whether a request is a health check."""
    return scope["path"] in HEALTH_PATHS and scope["method"] in ("GET", "HEAD")


class Origins:
    """The hosts that this server answers to, and the check of each request against them."""

    def __init__(self, settings: Settings) -> None:
        named = [host for text in settings.allowed_hosts if (host := Host.of(text)) is not None]
        self._answers_all = ANY_HOST in settings.allowed_hosts
        self._hosts = (*LOOPBACK, *named)
        # A loopback name without a port does not make a page our own: other servers of this machine have pages there too.
        self._pages = tuple(host for host in named if host not in LOOPBACK)

    def check(self, scope: MutableMapping[str, Any]) -> None:
        """Raise Problem for a host that is not this server's, and for a request that a page of another origin may not make."""
        headers = dict(scope["headers"])
        host = Host.of(headers.get(b"host", b"").decode("latin-1"))
        if not is_health_check(scope) and not self._is_ours(host):  # health checks may use any address
            raise Problem(
                BAD_HOST, "The Host header must name this machine or be in its setting ERRATA_ALLOWED_HOSTS (--allowed-host)."
            )
        if self._is_foreign(scope, headers, host):
            raise Problem(
                CROSS_ORIGIN,
                "A page of another origin may not do this; a proxy in between must pass the Host header on unchanged.",
            )

    def _is_ours(self, host: Host | None) -> bool:
        return self._answers_all or (host is not None and any(allowed.covers(host) for allowed in self._hosts))

    def _is_foreign(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], host: Host | None) -> bool:
        site = headers.get(b"sec-fetch-site")
        if site is not None and site not in OWN_SITES and not _follows_a_link(scope, headers):
            return True
        # A followed link has no Origin. A request of a page's script has one, also over plain HTTP.
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        return not all(self._is_own_page(origin, host) for origin in origins)

    def _is_own_page(self, text: str, host: Host | None) -> bool:
        """Whether an Origin is the address of this request, or is named in the settings."""
        origin = parse_origin(text)
        if origin is None:
            return False
        scheme, page = origin
        if host is not None and page == without_default_port(host, scheme):
            return True
        return any(allowed.covers(page) for allowed in self._pages)


def _follows_a_link(scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser opens an address in a window of its own, whose content the page with the link cannot read."""
    navigation = (headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest"), scope["method"])
    return navigation == (b"navigate", b"document", "GET") and scope["path"] not in NOT_LINKABLE_PATHS
