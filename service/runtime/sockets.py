"""The port, taken before anything is loaded: that it is not to be had is said at once, and nobody is answered before the end."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from service.domain.errors import Conflict, Refused, Unavailable

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a name may have addresses of a kind that this machine does not use


@contextmanager
def bind_port(host: str, port: int) -> Iterator[list[socket.socket]]:
    """A socket bound to each address of `host`, closed at the end. Connections are refused until somebody listens on them.

    Raises Conflict if the port is in use, Refused if the address is not one of this machine's or the port needs more rights.
    """
    with ExitStack() as opened:
        yield _bound(host, port, opened)


def in_use(host: str, port: int) -> Conflict:
    """What is raised where something listens on the port already."""
    return Conflict(f"port {port} of {host} is in use: stop what listens there, or give another one with --port", field="port")


def _bound(host: str, port: int, opened: ExitStack) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise Refused("host is no name or address that this machine knows; give another one with --host", field="host") from None
    sockets: list[socket.socket] = []
    faults: list[OSError] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        if sockets and port == 0:
            break  # a second address would get another free port
        try:
            sockets.append(_bind(opened.enter_context(socket.socket(family, kind, protocol)), address))
        except OSError as fault:
            if fault.errno not in NOT_HERE:
                raise _told(fault, host, port) from None
            faults.append(fault)
    if not sockets:
        raise _told(faults[0], host, port)
    return sockets


def _bind(made: socket.socket, address: tuple[object, ...]) -> socket.socket:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(address)
    return made


def _told(fault: OSError, host: str, port: int) -> Exception:
    if fault.errno == errno.EADDRINUSE:
        return in_use(host, port)
    if fault.errno in NOT_HERE:
        return Refused("host is not an address of this machine; give another one with --host", field="host")
    if fault.errno == errno.EACCES:
        return Refused(f"port {port} needs more rights than this process has; give one over 1023 with --port", field="port")
    return Unavailable(f"port {port} of {host} cannot be listened on: {os.strerror(fault.errno or 0)}")
