"""Subscription groups as tools and slaves see them: create, change, delete, list, forbid.

Source: reference "protocol" section 11.6; `AdminBrokerProcessor#updateAndCreateSubscriptionGroup` and its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trmq.broker import attributes
from trmq.errors import RemoteProtocolError
from trmq.remoting import Answer, Connection
from trmq.wire.bodies import (
    GroupForbidden,
    SubscriptionGroupConfig,
    SubscriptionGroupList,
    SubscriptionGroupWrapper,
    decode_body,
    encode_body,
)
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers import (
    DeleteSubscriptionGroup,
    GetAllSubscriptionGroup,
    GetAllSubscriptionGroupResponse,
    GetSubscriptionGroupConfig,
    UpdateGroupForbidden,
)
from trmq.wire.names import check_group

from .topic import page

if TYPE_CHECKING:
    from trmq.broker.service import Broker


def update_group(broker: Broker, conn: Connection, command: Command) -> Answer:
    broker.groups.update(_checked(broker, decode_body(command.body, SubscriptionGroupConfig)))
    return encode_response(command, ResponseCode.SUCCESS)


def update_groups(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Several at once: all of them are checked before the first is changed."""
    for config in [_checked(broker, config) for config in decode_body(command.body, SubscriptionGroupList).group_config_list]:
        broker.groups.update(config)
    return encode_response(command, ResponseCode.SUCCESS)


def _checked(broker: Broker, config: SubscriptionGroupConfig) -> SubscriptionGroupConfig:
    complaint = check_group(config.group_name)
    if complaint is None and config.retry_queue_nums < 0:
        complaint = f"retryQueueNums of group {config.group_name} is {config.retry_queue_nums}, it must not be negative"
    if complaint is not None:
        raise RemoteProtocolError(complaint, ResponseCode.INVALID_PARAMETER)
    known = broker.groups.get(config.group_name)
    kept = attributes.changed(known.attributes if known else {}, config.attributes, attributes.GROUP_VALUES)
    return msgspec.structs.replace(config, attributes=kept)


def delete_group(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Forget the group; its offsets too, if asked. Its retry topic is the asker's business."""
    header = command.header(DeleteSubscriptionGroup)
    broker.groups.delete(header.group_name)
    broker.stats.forget(header.group_name)
    if header.clean_offset:
        broker.offsets.remove_group(header.group_name)
    return encode_response(command, ResponseCode.SUCCESS)


def all_groups(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Every group with the table's version; slaves copy from this."""
    header = command.header(GetAllSubscriptionGroup)
    table, version, forbidden = broker.groups.table, broker.groups.version, broker.groups.forbidden
    names = page(list(table), version, header.data_version, header.group_seq, header.max_group_num)
    body = SubscriptionGroupWrapper(
        data_version=version, subscription_group_table={name: table[name] for name in names},
        forbidden_table={name: forbidden[name] for name in names if name in forbidden},
    )
    return encode_response(command, ResponseCode.SUCCESS, GetAllSubscriptionGroupResponse(len(table)), body=encode_body(body))


def group_config(broker: Broker, conn: Connection, command: Command) -> Answer:
    group = command.header(GetSubscriptionGroupConfig).group
    config = broker.groups.find(group)
    if config is None:
        raise RemoteProtocolError(f"No group in this broker. group: {group}", ResponseCode.SUBSCRIPTION_GROUP_NOT_EXIST)
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(config))


def group_forbidden(broker: Broker, conn: Connection, command: Command) -> Answer:
    """Whether a group may read a topic; changes it if asked."""
    header = command.header(UpdateGroupForbidden)
    if header.readable is not None:
        broker.groups.forbid_reading(header.group, header.topic, not header.readable)
    readable = not broker.groups.forbids_reading(header.group, header.topic)
    return encode_response(command, ResponseCode.SUCCESS, remark="", body=encode_body(GroupForbidden(header.group, header.topic, readable)))


HANDLERS = {
    RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: update_group,
    RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST: update_groups,
    RequestCode.DELETE_SUBSCRIPTIONGROUP: delete_group,
    RequestCode.GET_ALL_SUBSCRIPTIONGROUP_CONFIG: all_groups,
    RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG: group_config,
    RequestCode.UPDATE_AND_GET_GROUP_FORBIDDEN: group_forbidden,
}
