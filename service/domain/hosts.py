"""Host names of Host headers, of origins and of the settings: a name or an address, with or without a port."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

MAX_CHARACTERS = 300  # characters; a name has at most 253
HOST_PATTERN = re.compile(r"(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Host:
    """A name in lower case (an IPv6 address in its brackets), and a port or None."""

    name: str
    port: int | None = None

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The host that a text names, or None if the text is no host."""
        match = HOST_PATTERN.fullmatch(text.lower()) if len(text) <= MAX_CHARACTERS else None
        if match is None:
            return None
        name = match["name"]
        if name.startswith("["):
            try:
                name = f"[{ipaddress.IPv6Address(name[1:-1])}]"
            except ValueError:
                return None
        return cls(name, int(match["port"]) if match["port"] else None)

    def covers(self, other: "Host") -> bool:
        """Whether `other` is this host. A name without a port covers every port. A missing port of `other` is 80 or 443."""
        if self.name != other.name:
            return False
        return self.port in (None, other.port) or (other.port is None and self.port in DEFAULT_PORTS.values())


LOOPBACK = frozenset({Host("localhost"), Host("127.0.0.1"), Host("[::1]")})


def parse_origin(text: str) -> tuple[str, Host] | None:
    """The scheme and the host of an Origin header, without the scheme's default port. None for `null` and for no HTTP origin."""
    scheme, _, rest = text.partition("://")
    host = Host.of(rest)
    if scheme not in DEFAULT_PORTS or host is None:
        return None
    return scheme, without_default_port(host, scheme)


def without_default_port(host: Host, scheme: str) -> Host:
    """The host as browsers write it: without the default port of the scheme."""
    return Host(host.name) if host.port == DEFAULT_PORTS[scheme] else host
