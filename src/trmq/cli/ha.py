"""`trmq ha status`: who replicates from whom, how far, and what is in the way. Asks every member of every group, Apache's brokers too.

A master knows its slaves by the addresses of their connections, a slave knows its master: both sides are shown, since a link that only one
side believes in is the interesting case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any

import attrs
import trio
from cyclopts import Parameter

from trmq.client import Client
from trmq.client.admin import BrokerInfo
from trmq.errors import ConfigError, TrmqError
from trmq.real_host import RealHost
from trmq.wire.bodies import HARuntimeInfo

from . import EXIT_FAILED
from .common import ago, amount
from .output import Output, show
from .session import Format, NameServer, with_client

SILENT_MS = 20_000
"""A link on which nothing came for this long is broken: masters send a heartbeat every 5 s (haSendHeartbeatInterval)."""


@attrs.frozen
class Report:
    """What one member said. `silence` is why it said nothing, `untold` why nothing about replication."""

    info: BrokerInfo
    silence: str = ""
    runtime: Mapping[str, str] = attrs.field(factory=dict)
    config: Mapping[str, str] = attrs.field(factory=dict)
    ha: HARuntimeInfo | None = None
    untold: str = ""


def status_ha(
    *, broker: Annotated[str | None, Parameter(name=["--broker", "-b"])] = None, check: bool = False, namesrv: NameServer = None,
    output: Format = Output.table,
) -> int:
    """Members, offsets, lag and links of every broker group. (mqadmin haStatus)

    Example: trmq ha status
    Example: trmq ha status -b a --check -o json

    Parameters
    ----------
    broker
        Only this broker group (brokerName).
    check
        Exit code 1 if something is wrong: a group without a master, a member that does not answer, a slave that is not in sync.
    """

    async def work(mq: Client) -> int:
        infos = await mq.admin.cluster()
        if broker is not None and broker not in {info.broker_name for info in infos}:
            known = ", ".join(sorted({info.broker_name for info in infos})) or "none"
            raise ConfigError(f"no broker group {broker} is registered at the name server; registered: {known}")
        reports = await ask_all(mq, [info for info in infos if broker in (None, info.broker_name)])
        groups = describe(reports, now_ms())
        if output is Output.table:
            show_groups(groups)
        else:
            show(groups, output)
        return EXIT_FAILED if check and (not groups or any(group["problems"] for group in groups)) else 0

    return with_client(work, namesrv)


def now_ms() -> int:
    return RealHost(".").wall_ms()


async def ask_all(mq: Client, infos: Sequence[BrokerInfo]) -> list[Report]:
    """All at the same time, so that those that don't answer cost their time-out once."""
    found: dict[BrokerInfo, Report] = {}

    async def one(info: BrokerInfo) -> None:
        found[info] = await ask(mq, info)

    async with trio.open_nursery() as nursery:
        for info in infos:
            nursery.start_soon(one, info)
    return [found[info] for info in infos]


async def ask(mq: Client, info: BrokerInfo) -> Report:
    try:
        runtime = await mq.admin.broker_runtime(info.address)
        config = await mq.admin.broker_config(info.address)
    except TrmqError as error:
        return Report(info, silence=str(error))
    try:
        return Report(info, runtime=runtime, config=config, ha=await mq.admin.ha_status(info.address))
    except TrmqError as error:
        return Report(info, runtime=runtime, config=config, untold=str(error))


# --- what the reports mean; plain data


def describe(reports: Sequence[Report], now: int) -> list[dict[str, Any]]:
    """One object per broker group, as `-o json` prints it."""
    groups = []
    for (cluster, name), members in groupby(reports, lambda report: (report.info.cluster, report.info.broker_name)):
        mine = list(members)
        end = next((max_offset(report) for report in mine if report.info.broker_id == 0), None)
        described = [describe_member(report, end, now) for report in mine]
        groups.append({"cluster": cluster, "broker": name, "problems": problems_of(described), "members": described})
    return groups


def describe_member(report: Report, end: int | None, now: int) -> dict[str, Any]:
    """`end`: the master's next byte to write, None if nobody knows."""
    ha, own = report.ha, max_offset(report)
    is_slave = not is_master(report)
    return {
        "id": report.info.broker_id, "address": report.info.address, "alive": not report.silence,
        "role": report.config.get("brokerRole", ""), "max_offset": own,
        "lag_bytes": max(0, end - own) if is_slave and end is not None and own is not None else None,
        "in_sync_slaves": ha.in_sync_slave_nums if ha is not None and ha.master else None,
        "slaves": [] if ha is None or not ha.master else [describe_slave(ha, index) for index in range(len(ha.ha_connection_info))],
        "need": int(report.runtime["haNeed"]) if "haNeed" in report.runtime else None,
        "link": describe_link(report, ha, now) if ha is not None and not ha.master else None,
        "problem": report.silence or ("" if is_master(report) else report.runtime.get("haProblem")) or report.untold,
        "refused": int(report.runtime.get("haRefused") or 0) if is_master(report) else None,
        "last_refusal": report.runtime.get("haProblem", "") if is_master(report) else "",
    }  # fmt: skip


def describe_slave(ha: HARuntimeInfo, index: int) -> dict[str, Any]:
    """A slave as its master sees it; `ack_offset` is the next byte it wants."""
    slave = ha.ha_connection_info[index]
    return {
        "address": slave.addr.removeprefix("/"), "ack_offset": slave.slave_ack_offset, "lag_bytes": slave.diff,
        "bytes_per_s": slave.transferred_byte_in_second, "in_sync": slave.in_sync,
    }  # fmt: skip


def describe_link(report: Report, ha: HARuntimeInfo, now: int) -> dict[str, Any]:
    """A slave's link to its master. Times are ms since 1970, 0 for never."""
    link = ha.ha_client_runtime_info
    quiet = now - link.last_read_timestamp
    if not link.master_addr:
        state = "no master"
    elif link.last_read_timestamp <= 0:
        state = "never heard"
    else:
        state = f"silent for {quiet / 1000:.0f} s" if quiet > SILENT_MS else "connected"
    return {
        "state": report.runtime.get("haState") or state, "master": link.master_addr or "", "bytes_per_s": link.transferred_byte_in_second,
        "last_read_ms": link.last_read_timestamp, "last_write_ms": link.last_write_timestamp,
        "broken": not link.master_addr or link.last_read_timestamp <= 0 or quiet > SILENT_MS,
    }  # fmt: skip


def is_master(report: Report) -> bool:
    return report.info.broker_id == 0 if report.ha is None else report.ha.master


def max_offset(report: Report) -> int | None:
    """The next byte of its log; None if it did not say."""
    if report.ha is not None and report.ha.master:
        return report.ha.master_commit_log_max_offset
    text = report.runtime.get("commitLogMaxOffset", "")
    if text.isdecimal():
        return int(text)
    return None if report.ha is None else report.ha.ha_client_runtime_info.max_offset


def problems_of(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """What an operator has to look at, one sentence each."""
    found = []
    masters = [member for member in members if member["id"] == 0]
    slaves = [member for member in members if member["id"] != 0]
    if not masters:
        found.append("no master is registered: nothing can be sent to this group")
    for member in members:
        if short(member):
            found.append(f"a message needs {member['need']} copies for SEND_OK, and only {1 + len(member['slaves'])} can be made now")
        who = f"member {member['id']} at {member['address']}"
        if not member["alive"]:
            found.append(f"{who} does not answer: {member['problem']}")
        elif member["problem"]:
            found.append(f"{who}: {member['problem']}")
        elif (link := member["link"]) is not None and link["broken"]:
            found.append(f"{who} has lost its master: {link['state']}")
        for slave in member["slaves"]:
            if not slave["in_sync"]:
                found.append(f"slave {slave['address']} is not in sync: {amount(slave['lag_bytes'])} behind")
    if masters and masters[0]["alive"] and masters[0]["in_sync_slaves"] is not None and len(masters[0]["slaves"]) < len(slaves):
        found.append(f"{len(slaves)} registered, {len(masters[0]['slaves'])} connected: not every slave follows the master")
    return found


def short(member: Mapping[str, Any]) -> bool:
    """Whether a master waits for more copies than it has slaves for."""
    return member["need"] is not None and member["need"] > 1 + len(member["slaves"])


# --- for people


def show_groups(groups: Sequence[Mapping[str, Any]]) -> None:
    members, slaves, links = rows(groups, now_ms())
    show(members, Output.table, empty="no broker is registered")
    if slaves:
        show(slaves, Output.table, title="slaves, as their masters see them")
    if links:
        show(links, Output.table, title="links to the master, as the slaves see them")
    for group in groups:
        for problem in group["problems"]:
            print(f"{group['broker']}: {problem}")
        for member in group["members"]:
            if member["last_refusal"]:
                print(f"{group['broker']}: member {member['id']} refused {member['refused']} so far, the last: {member['last_refusal']}")


def rows(groups: Sequence[Mapping[str, Any]], now: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """The three tables: members, slaves as masters see them, links as slaves see them."""
    members, slaves, links = [], [], []
    for group in groups:
        for member in group["members"]:
            where = {"broker": group["broker"], "id": member["id"]}
            members.append(where | {
                "address": member["address"], "role": member["role"], "state": "up" if member["alive"] else "no answer",
                "max offset": member["max_offset"], "lag": "" if member["lag_bytes"] is None else amount(member["lag_bytes"]),
                "in sync": "" if member["in_sync_slaves"] is None else member["in_sync_slaves"],
            })  # fmt: skip
            slaves += [
                {"broker": group["broker"], "slave": slave["address"], "ack offset": slave["ack_offset"], "lag": amount(slave["lag_bytes"]),
                 "per second": amount(slave["bytes_per_s"]), "in sync": "yes" if slave["in_sync"] else "NO"}
                for slave in member["slaves"]
            ]  # fmt: skip
            if (link := member["link"]) is not None:
                links.append(where | {
                    "master": link["master"], "link": link["state"], "per second": amount(link["bytes_per_s"]),
                    "last read": ago(link["last_read_ms"], now), "last report": ago(link["last_write_ms"], now),
                })  # fmt: skip
    return members, slaves, links
