"""Which addresses of the internet are public, and which address a host's name spells. Knows no files and no sockets."""

from __future__ import annotations

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Refused(ValueError):  # noqa: N818
    """A reference may not be read. ``reason`` is redacted; ``place`` is what a user allows to have it read, or ""."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason, place)
        self.reason = reason
        self.place = place

    def __str__(self) -> str:
        """The reason and the remedy, on one line."""
        return (
            f"{self.reason}; where it may be read: --allow {self.place} --retry-failed" if self.place else self.reason
        )


def literal(host: str) -> Address | None:
    """The address that ``host`` spells, in any form that a C library reads (127.1, 0x7f000001), or None for a name."""
    host = host.strip("[]").partition("%")[0].rstrip(".")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def is_public(address: Address) -> bool:
    """Whether anyone on the internet can reach it: not loopback, link-local, private, shared, multicast or reserved."""
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    is_odd = address.is_multicast or address.is_reserved or getattr(address, "is_site_local", False)
    return address.is_global and not is_odd


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
