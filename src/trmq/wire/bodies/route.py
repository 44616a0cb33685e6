"""JSON bodies of routes and topics: what brokers register and clients ask for.

Source: reference "protocol" section 10.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from .base import Body


class DataVersion(msgspec.Struct, frozen=True, rename="camel"):
    """Which state of a table somebody has. Newer is decided by `state_version`, then `timestamp` (ms), then `counter`."""

    counter: int = 0
    state_version: int = 0
    timestamp: int = 0


class QueueData(Body):
    """A topic's queues on one broker name."""

    broker_name: str
    read_queue_nums: int
    write_queue_nums: int
    perm: int
    topic_sys_flag: int = 0


class BrokerData(Body):
    """The members of one broker name; `broker_addrs` maps broker id (0 = master) to `host:port`."""

    broker_name: str
    broker_addrs: dict[int, str] = field(default_factory=dict)
    cluster: str = ""
    enable_acting_master: bool = False
    zone_name: str | None = None


class TopicRouteData(Body):
    """Where a topic lives; the body of 105."""

    broker_datas: list[BrokerData] = field(default_factory=list)
    queue_datas: list[QueueData] = field(default_factory=list)
    filter_server_table: dict[str, list[str]] = field(default_factory=dict)
    order_topic_conf: str | None = None
    topic_queue_mapping_by_broker: dict[str, Any] | None = None


class ClusterInfo(Body):
    """Body of 106."""

    broker_addr_table: dict[str, BrokerData] = field(default_factory=dict)
    cluster_addr_table: dict[str, list[str]] = field(default_factory=dict)


class MemberGroup(Body):
    """One broker name as 901 tells it."""

    broker_addrs: dict[int, str] = field(default_factory=dict)
    broker_name: str = ""
    cluster: str = ""


class BrokerMemberGroup(Body):
    """Body of 901."""

    broker_member_group: MemberGroup | None = None


class TopicConfig(Body):
    """One topic of one broker. `attributes` as in Java, without the `+`."""

    topic_name: str
    read_queue_nums: int = 16
    write_queue_nums: int = 16
    perm: int = 6
    topic_filter_type: str = "SINGLE_TAG"
    topic_sys_flag: int = 0
    order: bool = False
    attributes: dict[str, str] = field(default_factory=dict)


class TopicConfigSerializeWrapper(Body):
    """A broker's topics with their version: body of 21 and inside a registration (Java: TopicConfigAndMappingSerializeWrapper)."""

    data_version: DataVersion = DataVersion()
    mapping_data_version: DataVersion = DataVersion()
    topic_config_table: dict[str, TopicConfig] = field(default_factory=dict)
    topic_queue_mapping_detail_map: dict[str, Any] = field(default_factory=dict)
    topic_queue_mapping_info_map: dict[str, Any] = field(default_factory=dict)


class TopicConfigAndQueueMapping(TopicConfig):
    """Body of 351."""

    topic_queue_mapping_detail: dict[str, Any] | None = None


class RegisterBrokerBody(Body):
    """Body of 103, see also `registration.py`."""

    filter_server_list: list[str] = field(default_factory=list)
    topic_config_serialize_wrapper: TopicConfigSerializeWrapper = field(default_factory=TopicConfigSerializeWrapper)


class CreateTopicListBody(Body):
    """Body of 18."""

    topic_config_list: list[TopicConfig]


class TopicList(Body):
    """Topic names."""

    topic_list: list[str] = field(default_factory=list)
    broker_addr: str | None = None


class GroupList(Body):
    """Group names; body of 300."""

    group_list: list[str] = field(default_factory=list)


class KVTable(Body):
    """Texts by name."""

    table: dict[str, str] = field(default_factory=dict)
