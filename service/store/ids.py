"""Identifiers that sort by their time of creation (UUID version 7, RFC 9562), so that an index on them grows at one end."""

import secrets
import time
import uuid


def new_id() -> str:
    """A new UUIDv7: 48 bits of milliseconds, the rest random."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))
