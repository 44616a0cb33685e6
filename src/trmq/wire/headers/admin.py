"""Headers of administration: topics, groups, statistics, and what a slave or a tool asks a broker.

Source: reference "protocol" section 11.6.
"""

from __future__ import annotations

from .base import Header, Int32, Int64


class CreateTopic(Header):
    """17 UPDATE_AND_CREATE_TOPIC, 513 UPDATE_AND_CREATE_STATIC_TOPIC. `attributes` reads `+k=v,-k`."""

    topic: str
    default_topic: str
    read_queue_nums: Int32
    write_queue_nums: Int32
    perm: Int32
    topic_filter_type: str
    order: bool
    topic_sys_flag: Int32 | None = None
    attributes: str | None = None
    force: bool | None = None


class DeleteTopic(Header):
    """215."""

    topic: str


class GetTopicConfig(Header):
    """351."""

    topic: str


class GetAllTopicConfig(Header):
    """21; paged from 5.4.0 on, older askers send nothing."""

    topic_seq: Int32 | None = None
    data_version: str | None = None
    max_topic_num: Int32 | None = None


class GetAllTopicConfigResponse(Header):
    """Answer to 21."""

    total_topic_num: Int32


class GetAllSubscriptionGroup(Header):
    """201; paged from 5.4.0 on, older askers send nothing."""

    group_seq: Int32 | None = None
    data_version: str | None = None
    max_group_num: Int32 | None = None


class GetAllSubscriptionGroupResponse(Header):
    """Answer to 201."""

    total_group_num: Int32


class GetSubscriptionGroupConfig(Header):
    """352."""

    group: str


class DeleteSubscriptionGroup(Header):
    """207."""

    group_name: str
    clean_offset: bool | None = None


class GetBrokerConfigResponse(Header):
    """Answer to 26: the configuration's DataVersion as JSON text."""

    version: str


class GetTopicStatsInfo(Header):
    """202."""

    topic: str


class GetConsumeStats(Header):
    """208; `topic_list` is joined by semicolons."""

    consumer_group: str
    topic: str | None = None
    topic_list: str | None = None


class GetBrokerConsumeStats(Header):
    """317."""

    is_order: bool


class GetConsumerConnectionList(Header):
    """203."""

    consumer_group: str


class GetProducerConnectionList(Header):
    """204."""

    producer_group: str


class QueryTopicConsumeByWho(Header):
    """300."""

    topic: str


class QueryTopicsByConsumer(Header):
    """343."""

    group: str


class QuerySubscriptionByConsumer(Header):
    """345."""

    group: str
    topic: str | None = None


class QueryConsumeTimeSpan(Header):
    """303."""

    topic: str
    group: str


class QueryCorrectionOffset(Header):
    """308."""

    compare_group: str
    topic: str
    filter_groups: str | None = None


class CloneGroupOffset(Header):
    """314."""

    src_group: str
    dest_group: str
    topic: str | None = None
    offline: bool | None = None


class ViewBrokerStatsData(Header):
    """315."""

    stats_name: str
    stats_key: str


class QueryConsumeQueue(Header):
    """321; `index` is the first queue offset."""

    topic: str | None = None
    queue_id: Int32 | None = None
    index: Int64 | None = None
    count: Int32 | None = None
    consumer_group: str | None = None


class ResumeCheckHalfMessage(Header):
    """323."""

    topic: str | None = None
    msg_id: str | None = None


class UpdateGroupForbidden(Header):
    """353."""

    group: str
    topic: str
    readable: bool | None = None


class ExchangeHAInfo(Header):
    """906; the answer has the same fields."""

    master_ha_address: str | None = None
    master_flush_offset: Int64 | None = None
    master_address: str | None = None


class ResetMasterFlushOffset(Header):
    """908."""

    master_flush_offset: Int64


class AddBroker(Header):
    """902, to a broker container."""

    config_path: str | None = None


class RemoveBroker(Header):
    """903, to a broker container."""

    broker_name: str
    broker_cluster_name: str
    broker_id: Int64
