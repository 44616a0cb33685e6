"""GET_BROKER_RUNTIME_INFO: every key that `mqadmin`, the exporters and dashboards read, in the form in which they parse it.

Their parsers are strict and their errors are not: a missing number makes a tool drop the whole broker. So keys of things trmq
does not have (thread pools, a transient store pool, a page-cache lock) are there too, with the value that is true: 0.

Source: reference "protocol" section 11.6; `AdminBrokerProcessor#prepareRuntimeInfo`, `StoreStatsService#getRuntimeInfo`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trmq.remoting import Answer, Connection
from trmq.wire.bodies import KVTable, encode_body
from trmq.wire.codes import VERSION, RequestCode, ResponseCode
from trmq.wire.command import Command, encode_response

if TYPE_CHECKING:
    from trmq.broker.service import Broker

VERSION_TEXT = "V5_4_0"
POOLS = ("send", "pull", "litePull", "query", "ack")
"""Apache's thread pools; here requests never queue for a thread."""
POOL_CAPACITY = {"send": 10_000, "pull": 100_000, "litePull": 100_000, "query": 20_000, "ack": 100_000}


def runtime_info(broker: Broker, conn: Connection, command: Command) -> Answer:
    table = _about_broker(broker) | _about_store(broker) | _about_traffic(broker) | _nothing_waits() | broker.delay.running_statistics()
    table |= broker.replication.report()
    return encode_response(command, ResponseCode.SUCCESS, body=encode_body(KVTable(dict(sorted(table.items())))))


def _about_broker(broker: Broker) -> dict[str, str]:
    put, get = broker.stats.mornings()["put"], broker.stats.mornings()["get"]
    return {
        "brokerActive": "true", "brokerVersion": str(VERSION), "brokerVersionDesc": VERSION_TEXT,
        "bootTimestamp": str(broker.stats.boot_ms), "runtime": _duration(broker.now_ms() - broker.stats.boot_ms),
        "startAcceptSendRequestTimeStamp": "0",
        "msgPutTotalYesterdayMorning": str(put[0]), "msgPutTotalTodayMorning": str(put[1]), "msgPutTotalTodayNow": str(put[2]),
        "msgGetTotalYesterdayMorning": str(get[0]), "msgGetTotalTodayMorning": str(get[1]), "msgGetTotalTodayNow": str(get[2]),
    }


def _about_store(broker: Broker) -> dict[str, str]:
    store, disk = broker.store, broker.host.disk
    folder = store.config.commit_log_path
    total, free = disk.space(folder)
    ratio = str(disk.usage(folder))
    return {
        "commitLogDiskRatio": ratio, f"commitLogDiskRatio_{folder}": ratio, "consumeQueueDiskRatio": ratio,
        "commitLogDirCapacity": f"Total : {_readable(total)}, Free : {_readable(free)}.",
        "commitLogMinOffset": str(store.min_phy), "commitLogMaxOffset": str(store.max_phy),
        "dispatchBehindBytes": str(store.max_phy - store.confirm), "dispatchMaxBuffer": "0",
        "remainHowManyDataToFlush": _readable(store.max_phy - store.flushed),
        "earliestMessageTimeStamp": str(store.earliest_ms()),
        "pageCacheLockTimeMills": "0", "remainTransientStoreBufferNumbs": str((1 << 31) - 1),
    }


def _about_traffic(broker: Broker) -> dict[str, str]:
    stats = broker.stats
    latencies = stats.latencies()
    puts, size = max(1, stats.puts), broker.store.max_phy - broker.phy_at_start
    transferred = stats.triple("transferred")
    return {
        "putTps": stats.triple("puts"), "getFoundTps": stats.triple("found"), "getMissTps": stats.triple("missed"),
        "getTotalTps": stats.triple("total"), "getTransferredTps": transferred, "getTransferedTps": transferred,  # sic: before 4.9
        "putMessageTimesTotal": str(puts), "putMessageFailedTimes": str(stats.put_failed), "putMessageSizeTotal": str(size),
        "putMessageAverageSize": str(size / puts), "putMessageDistributeTime": latencies.classes,
        "putMessageEntireTimeMax": str(round(latencies.max_ms)), "getMessageEntireTimeMax": str(round(stats.get_max_ms)),
        "putLatency99": f"{latencies.p99_ms:.2f}", "putLatency999": f"{latencies.p999_ms:.2f}",
    }


def _nothing_waits() -> dict[str, str]:
    table = {
        "timerReadBehind": "0", "timerOffsetBehind": "0", "timerCongestNum": "0", "timerEnqueueTps": "0.0", "timerDequeueTps": "0.0",
        "EndTransactionQueueSize": "0", "EndTransactionThreadPoolQueueCapacity": "100000",
    }
    for pool in POOLS:
        table[f"{pool}ThreadPoolQueueSize"] = "0"
        table[f"{pool}ThreadPoolQueueHeadWaitTimeMills"] = "0"
        table[f"{pool}ThreadPoolQueueCapacity"] = str(POOL_CAPACITY[pool])
    return table


def _duration(ms: int) -> str:
    minutes, seconds = divmod(max(0, ms) // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"[ {days} days, {hours} hours, {minutes} minutes, {seconds} seconds ]"


def _readable(count: int) -> str:
    """Bytes as Java's `MixAll.humanReadableByteCount` writes them: `0 B`, `1.5 KiB`, `98.3 GiB`."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), -1
    while value >= 1024:
        value /= 1024
        unit += 1
    return f"{value:.1f} {'KMGTPE'[unit]}iB"


HANDLERS = {RequestCode.GET_BROKER_RUNTIME_INFO: runtime_info}
