"""The client: producers, consumers, readers and admin over one shared set of connections. `connect` opens it."""

from .client import Client, connect, parse_name_servers
from .consumer import Consumer
from .delivery import Delivery
from .messages import Message, Received, SendResult, SendStatus
from .options import FromWhere
from .producer import Producer
from .reader import Reader

__all__ = [
    "Client", "Consumer", "Delivery", "FromWhere", "Message", "Producer", "Reader", "Received", "SendResult", "SendStatus", "connect",
    "parse_name_servers",
]
