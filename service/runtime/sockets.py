"""The port, bound before anything is loaded, so that a port in use is reported at once. It listens once the server is ready."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from service.domain.errors import Conflict, Refused, Unavailable

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a name may have addresses of a family that this machine does not use


@contextmanager
def bind_port(host: str, port: int, option: str = "--port") -> Iterator[list[socket.socket]]:
    """A socket bound to each address of `host`, closed at the end. Connections are refused until the server listens.

    Raises Conflict if the port is in use, Refused if the address is not of this machine or the port needs more rights. The errors
    name the `option` that the port was given with.
    """
    with ExitStack() as stack:
        yield _bind_addresses(host, port, option, stack)


def port_in_use(host: str, port: int, option: str = "--port") -> Conflict:
    """The error for a port on which another process listens."""
    text = f"port {port} of {host} is in use: stop what listens there, or give another one with {option}"
    return Conflict(text, field=_field_of(option))


def _field_of(option: str) -> str:
    return option.removeprefix("--").removeprefix("ERRATA_").lower()


def _bind_addresses(host: str, port: int, option: str, stack: ExitStack) -> list[socket.socket]:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise Refused("host is no name or address that this machine knows; give another one with --host", field="host") from None
    sockets: list[socket.socket] = []
    faults: list[OSError] = []
    for family, kind, protocol, _, address in dict.fromkeys(addresses):
        if sockets and port == 0:
            break  # a second address would get another free port
        try:
            sockets.append(_bind(stack.enter_context(socket.socket(family, kind, protocol)), address))
        except OSError as fault:
            if fault.errno not in NOT_HERE:
                raise _error_of(fault, host, port, option) from None
            faults.append(fault)
    if not sockets:
        raise _error_of(faults[0], host, port, option)
    return sockets


def _bind(unbound: socket.socket, address: tuple[object, ...]) -> socket.socket:
    unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if unbound.family == socket.AF_INET6:
        unbound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    unbound.bind(address)
    return unbound


def _error_of(fault: OSError, host: str, port: int, option: str) -> Exception:
    if fault.errno == errno.EADDRINUSE:
        return port_in_use(host, port, option)
    if fault.errno in NOT_HERE:
        return Refused("host is not an address of this machine; give another one with --host", field="host")
    if fault.errno == errno.EACCES:
        text = f"port {port} needs more rights than this process has; give one over 1023 with {option}"
        return Refused(text, field=_field_of(option))
    return Unavailable(f"port {port} of {host} cannot be listened on: {os.strerror(fault.errno or 0)}")
