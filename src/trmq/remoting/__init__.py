"""Connections that carry commands: a server, a client pool, and the read loop that both share. The Trio face of `wire`."""

from trmq.remoting.client import RemotingClient, parse_address
from trmq.remoting.connection import Connection
from trmq.remoting.server import serve_remoting
from trmq.remoting.service import Answer, Deferred, Job, Limits, Service

__all__ = ["Answer", "Connection", "Deferred", "Job", "Limits", "RemotingClient", "Service", "parse_address", "serve_remoting"]
