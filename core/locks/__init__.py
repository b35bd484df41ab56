"""Locks between processes: of run folders, stores, demos and shards."""

from .between import (
    Claim,
    Held,
    Kind,
    Mount,
    SharedLease,
    doubt_of,
    exclusive,
    has_shared_lease,
    holder_in,
    holder_of,
    kind_of_locks,
    mount_of,
    take,
    taken,
)

__all__ = [
    "Claim",
    "Held",
    "Kind",
    "Mount",
    "SharedLease",
    "doubt_of",
    "exclusive",
    "has_shared_lease",
    "holder_in",
    "holder_of",
    "kind_of_locks",
    "mount_of",
    "take",
    "taken",
]
