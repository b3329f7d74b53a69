"""Host names as they stand in a Host header, in an Origin and in the settings: a name or an address, with or without a port."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

MAX_CHARACTERS = 300  # characters; a name has at most 253
HOST_PATTERN = re.compile(r"(?P<name>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Host:
    """A name in lower case (an IPv6 address in its brackets), and a port where one is named."""

    name: str
    port: int | None = None

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The host that a text names, or None if it names none."""
        found = HOST_PATTERN.fullmatch(text.lower()) if len(text) <= MAX_CHARACTERS else None
        if found is None:
            return None
        name = found["name"]
        if name.startswith("["):
            try:
                name = f"[{ipaddress.IPv6Address(name[1:-1])}]"
            except ValueError:
                return None
        return cls(name, int(found["port"]) if found["port"] else None)

    def covers(self, other: "Host") -> bool:
        """Whether `other` is this host: a name without a port stands for every port, and one that is not written is 80 or 443."""
        if self.name != other.name:
            return False
        return self.port in (None, other.port) or (other.port is None and self.port in DEFAULT_PORTS.values())


LOOPBACK = frozenset({Host("localhost"), Host("127.0.0.1"), Host("[::1]")})


def parse_origin(text: str) -> tuple[str, Host] | None:
    """The scheme and the host of an Origin header, without the scheme's own port; None for `null` and for what is no page's."""
    scheme, _, rest = text.partition("://")
    host = Host.of(rest)
    if scheme not in DEFAULT_PORTS or host is None:
        return None
    return scheme, without_default_port(host, scheme)


def without_default_port(host: Host, scheme: str) -> Host:
    """The host as browsers write it: the port of the scheme itself is left out."""
    return Host(host.name) if host.port == DEFAULT_PORTS[scheme] else host
