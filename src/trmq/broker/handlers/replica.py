"""What slaves ask their master beside the log, what a slave refuses, and how replication is doing (907).

Source: reference "ha" section 3; `AdminBrokerProcessor#getBrokerHaStatus`. Upholds P-SLV-3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.broker.following import tail_digest
from trmq.errors import RemoteProtocolError
from trmq.remoting import Answer, Connection
from trmq.replica.consent import consent
from trmq.replica.master import SlaveIdentity
from trmq.wire.bodies import HAClientRuntimeInfo, HAConnectionRuntimeInfo, HARuntimeInfo, encode_body
from trmq.wire.codes import RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response
from trmq.wire.headers.replica import Join, JoinResponse

if TYPE_CHECKING:
    from trmq.broker.service import Broker


def join(broker: Broker, conn: Connection, command: Command) -> Answer:
    """May this slave follow? A token if its log is a copy of ours; else what is wrong."""
    header = command.header(Join)
    master, log, config = broker.replication.master, broker.store.log, broker.config
    if master is None:
        raise RemoteProtocolError(f"the broker at {config.broker_ip1}:{broker.address[1]} is no master", ResponseCode.NO_PERMISSION)
    complaint = _complaint(broker, header)
    if complaint is not None:
        master.refuse(f"{header.broker_addr} (id {header.broker_id})", complaint)
        raise RemoteProtocolError(complaint, ResponseCode.NO_PERMISSION)
    verdict = consent(
        log.min_phy, log.max_phy, header.max_offset, header.tail_size,
        lambda: tail_digest(broker, header.max_offset, header.tail_size) == header.tail_digest,
    )  # fmt: skip
    if verdict != "follow":
        sentence = f"its log ends at {header.max_offset}, this one at {log.max_phy}, and it is no copy ({verdict})"
        master.refuse(f"{header.broker_addr} (id {header.broker_id})", sentence)
        token = 0
    else:
        who = SlaveIdentity(header.broker_id, header.broker_addr, header.store_id, header.sync_from_last_file)
        token = master.admit(who)
        broker.replication.joined[conn] = header.broker_id
    return encode_response(command, ResponseCode.SUCCESS, JoinResponse(verdict, token, log.min_phy, log.max_phy))


def _complaint(broker: Broker, header: Join) -> str | None:
    """Why a slave must not follow, whatever its log holds; None if nothing is wrong."""
    config, log, master = broker.config, broker.store.log, broker.replication.master
    assert master is not None
    for key, ours, theirs in (
        ("brokerClusterName", config.broker_cluster_name, header.cluster_name), ("brokerName", config.broker_name, header.broker_name),
        ("mappedFileSizeCommitLog", log.segment_size, header.segment_size),
    ):
        if ours != theirs:
            return f"its {key} is {theirs}, this master's {ours}: set {key}={ours} on the slave"
    if header.broker_id <= 0:
        return f"a slave needs a brokerId above 0, it has {header.broker_id}"
    there = master.connected(header.broker_id)
    if there is not None and (there.store_id, there.address) != (header.store_id, header.broker_addr):
        return f"brokerId={header.broker_id} is held by the slave at {there.address}: give this one another brokerId"
    if 0 < header.max_offset < log.min_phy:
        return (
            f"its log ends at {header.max_offset} but this master's begins at {log.min_phy}: what lies between has expired here; stop it "
            "and run `trmq store resync` on its store"
        )
    if header.tail_size < 0 or header.tail_size > 1 << 20 or header.max_offset < 0:
        return f"it says that its log ends at {header.max_offset} with a tail of {header.tail_size} bytes"
    return None


def ha_status(broker: Broker, conn: Connection, command: Command) -> Answer:
    """How replication is doing, as Apache shows it."""
    replication, end = broker.replication, broker.store.max_phy
    if replication.following is not None:
        state = replication.following.slave.state()
        client = HAClientRuntimeInfo(
            master_addr=state.master, transferred_byte_in_second=state.bytes_per_second, max_offset=end,
            last_read_timestamp=state.last_read_ms, last_write_timestamp=state.last_write_ms, master_flush_offset=0,
        )
        body = HARuntimeInfo(master=False, master_commit_log_max_offset=0, ha_client_runtime_info=client)
    else:
        gap = broker.config.ha_max_gap_not_in_sync
        slaves = [
            HAConnectionRuntimeInfo(
                addr=slave.address, slave_ack_offset=max(0, slave.acked), diff=end - max(0, slave.acked),
                in_sync=slave.acked >= 0 and end - slave.acked < gap, transferred_byte_in_second=slave.bytes_per_second,
                transfer_from_where=slave.sent,
            )
            for slave in replication.slaves()
        ]
        body = HARuntimeInfo(
            master=True, master_commit_log_max_offset=end, in_sync_slave_nums=sum(slave.in_sync for slave in slaves),
            ha_connection_info=slaves,
        )
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(body))


# --- what a slave refuses

WRITES = (RequestCode.SEND_MESSAGE, RequestCode.SEND_MESSAGE_V2, RequestCode.SEND_BATCH_MESSAGE)
CHANGES = (
    RequestCode.UPDATE_AND_CREATE_TOPIC, RequestCode.UPDATE_AND_CREATE_TOPIC_LIST, RequestCode.DELETE_TOPIC_IN_BROKER,
    RequestCode.CLEAN_UNUSED_TOPIC, RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
    RequestCode.DELETE_SUBSCRIPTIONGROUP, RequestCode.UPDATE_AND_GET_GROUP_FORBIDDEN, RequestCode.INVOKE_BROKER_TO_RESET_OFFSET,
    RequestCode.CLONE_GROUP_OFFSET,
)


def _refused(broker: Broker, command: Command, code: ResponseCode, remark: str) -> Answer:
    broker.stats.put_failed += code != ResponseCode.NO_PERMISSION
    return None if command.is_oneway else encode_response(command, code, remark=remark)


def refuse_write(broker: Broker, conn: Connection, command: Command) -> Answer:
    remark = "service not available now: this broker is a slave, messages are sent to the master of its group"
    return _refused(broker, command, ResponseCode.SERVICE_NOT_AVAILABLE, remark)


def refuse_send_back(broker: Broker, conn: Connection, command: Command) -> Answer:
    remark = f"no master available along with {broker.config.broker_ip1}"
    return _refused(broker, command, ResponseCode.SYSTEM_ERROR, remark)


def refuse_change(broker: Broker, conn: Connection, command: Command) -> Answer:
    remark = f"the broker at {broker.config.broker_ip1}:{broker.address[1]} is a slave: ask the master of {broker.config.broker_name}"
    return _refused(broker, command, ResponseCode.NO_PERMISSION, remark)


HANDLERS = {RequestCode.TRMQ_JOIN: join, RequestCode.GET_BROKER_HA_STATUS: ha_status}
ON_A_SLAVE = {
    **dict.fromkeys(WRITES, refuse_write), **dict.fromkeys(CHANGES, refuse_change), RequestCode.CONSUMER_SEND_MSG_BACK: refuse_send_back,
    RequestCode.LOCK_BATCH_MQ: refuse_change,
}
"""Requests that a slave answers in another way than a master. Locks are a master's alone: a member with an old route would share a queue
with the one that asked the master (P-LCK-3; Apache's slaves grant them)."""
