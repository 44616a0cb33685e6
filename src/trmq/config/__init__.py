"""Configuration in RocketMQ's own keys, checked: `load_broker`, `load_namesrv`, and the two frozen classes they fill."""

from .broker import BrokerConfig
from .load import KeyBarred, Loaded, changed, load_broker, load_namesrv, pairs, properties_text
from .namesrv import NamesrvConfig
from .properties import format_properties, parse_properties

__all__ = [
    "BrokerConfig",
    "KeyBarred",
    "Loaded",
    "NamesrvConfig",
    "changed",
    "format_properties",
    "load_broker",
    "load_namesrv",
    "pairs",
    "parse_properties",
    "properties_text",
]
