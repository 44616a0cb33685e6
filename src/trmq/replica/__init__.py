"""Replication: a slave holds byte for byte what its master's commit log holds.

Both ends of the HA port, and who must hold a record before it is acked.
"""

from .ack import Holders, needed
from .transfer import MasterEnd, PeerRefused, SlaveEnd

__all__ = ["Holders", "MasterEnd", "PeerRefused", "SlaveEnd", "needed"]
