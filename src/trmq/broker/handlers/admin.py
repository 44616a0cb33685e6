"""The broker itself: its configuration, its tables as slaves and tools copy them, cleaning, statistics of one item.

UPDATE_BROKER_CONFIG changes what may safely change while running, and nothing else: `UPDATABLE` says what. A change lasts
until the broker stops; what is to last longer belongs into its file.

Source: reference "protocol" section 11.6; `AdminBrokerProcessor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.broker.following import MAX_PHY
from trmq.broker.version import next_version
from trmq.config import changed, properties_text
from trmq.errors import ConfigError, RemoteProtocolError
from trmq.remoting import Answer, Connection, Job
from trmq.wire.bodies import encode_body
from trmq.wire.bodies.report import BrokerStatsData, BrokerStatsItem
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import GetBrokerConfigResponse, ViewBrokerStatsData

from . import runtime_info

if TYPE_CHECKING:
    from trmq.broker.service import Broker

UPDATABLE = frozenset({
    "brokerPermission", "autoCreateTopicEnable", "autoCreateSubscriptionGroup", "notifyConsumerIdsChangedEnable", "longPollingEnable",
    "shortPollingTimeMills", "holdMsMax", "maxTransferBytesOnMessageInMemory", "maxTransferCountOnMessageInMemory", "defaultQueryMaxNum",
    "maxMsgsNumBatch", "flushConsumerOffsetInterval", "flushDelayOffsetInterval", "fileReservedTime", "deleteWhen",
    "diskMaxUsedSpaceRatio", "diskSpaceCleanForciblyRatio", "diskSpaceWarningLevelRatio", "cleanFileForciblyEnable",
    "cleanResourceInterval",
})
"""Keys that take effect at once in a running broker."""


def get_config(broker: Broker, conn: Connection, command: Command) -> Answer:
    version = encode_body(broker.config_version).decode()
    return encode_response(command, ResponseCode.SUCCESS, GetBrokerConfigResponse(version), body=properties_text(broker.config).encode())


def update_config(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Apply `key=value` lines: all of them or, if one is refused, none."""
    try:
        text = command.body.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("the configuration must be key=value lines in UTF-8", ResponseCode.INVALID_PARAMETER) from None
    try:
        config, done = changed(broker.config, text, "admin command")
    except ConfigError as error:
        raise RemoteProtocolError(str(error), ResponseCode.NO_PERMISSION) from None
    fixed = [key for key in done if key not in UPDATABLE]
    if fixed:
        raise RemoteProtocolError(
            f"{', '.join(fixed)} cannot change while the broker runs; change it in the file and restart", ResponseCode.NO_PERMISSION
        )
    if config != broker.config:
        broker.reconfigure(config)
        broker.config_version = next_version(broker.config_version, broker.now_ms())
    return encode_response(command, ResponseCode.SUCCESS)


def all_consumer_offsets(broker: Broker, conn: Connection, command: Command) -> Answer:
    return encode_response(command, ResponseCode.SUCCESS, {MAX_PHY: str(broker.store.max_phy)}, body=broker.offsets.text())


def all_delay_offsets(broker: Broker, conn: Connection, command: Command) -> Answer:
    return encode_response(command, ResponseCode.SUCCESS, {MAX_PHY: str(broker.store.max_phy)}, body=broker.delay.encode())


def stats_data(broker: Broker, conn: Connection, command: Command) -> Answer:
    """One counted item over a minute, an hour, a day."""
    header = command.header(ViewBrokerStatsData)
    found = broker.stats.windows(header.stats_name, header.stats_key)
    if found is None:
        raise RemoteProtocolError(f"The stats <{header.stats_name}> <{header.stats_key}> not exist", ResponseCode.SYSTEM_ERROR)
    minute, hour, day = (BrokerStatsItem(one.sum, one.tps, one.average) for one in found)
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(BrokerStatsData(minute, hour, day)))


def clean_consume_queues(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Raise the queues' minimums to the log's beginning and remove the files below."""

    async def clean() -> bytes:
        await broker.store_service.follow_min()
        return encode_response(command, ResponseCode.SUCCESS)

    return Job(clean)


def delete_expired_log(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Remove what is older than fileReservedTime now, not only at the hour of deletion."""

    async def delete() -> bytes:
        await broker.store_service.clean_expired(broker.now_ms(), any_hour=True)
        return encode_response(command, ResponseCode.SUCCESS)

    return Job(delete)


HANDLERS = {
    RequestCode.GET_BROKER_CONFIG: get_config,
    RequestCode.UPDATE_BROKER_CONFIG: update_config,
    RequestCode.GET_ALL_CONSUMER_OFFSET: all_consumer_offsets,
    RequestCode.GET_ALL_DELAY_OFFSET: all_delay_offsets,
    RequestCode.VIEW_BROKER_STATS_DATA: stats_data,
    RequestCode.CLEAN_EXPIRED_CONSUMEQUEUE: clean_consume_queues,
    RequestCode.DELETE_EXPIRED_COMMITLOG: delete_expired_log,
    **runtime_info.HANDLERS,
}
