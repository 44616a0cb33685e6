"""Where topics live: the name server, how a producer picks a queue, how consumers share them."""

from .service import NameServer

__all__ = ["NameServer"]
