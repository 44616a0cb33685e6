"""What a broker asks the name servers about its own group, and whether it may start at all.

Two brokers under one name and id would each take half of the messages and of the routes. Name servers take whoever registered last,
so the newcomer looks first: if another address holds its place and somebody answers there as that very broker, it does not start.

Source: reference "namesrv" sections 2 to 4; Apache starts and lets the registrations fight (TRAP-H21).
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from trmq.config import BrokerConfig
from trmq.config.properties import parse_properties
from trmq.errors import ConfigError, RemoteProtocolError, TrmqError
from trmq.host import Host
from trmq.remoting import RemotingClient
from trmq.wire.bodies import BrokerMemberGroup, ClusterInfo, decode_body
from trmq.wire.codes import RequestCode, ResponseCode

ASK_S = 1.0


async def refuse_a_double(host: Host, config: BrokerConfig, own: str | None) -> None:
    """Raises `ConfigError` if a living broker at another address than `own` ("ip:port", None if not known yet) holds this broker's name
    and id. A name server that does not answer within a second is taken to know nothing."""
    if not config.namesrv_addresses:
        return
    found: list[str] = []

    async def ask(client: RemotingClient, name_server: str) -> None:
        info = await cluster_info(client, name_server)
        group = info.broker_addr_table.get(config.broker_name) if info is not None else None
        address = group.broker_addrs.get(config.broker_id) if group is not None else None
        if address is None or address == own:
            return
        described = await broker_config(client, address)
        if described.get("brokerName") == config.broker_name and described.get("brokerId") == str(config.broker_id):
            found.append(f"{address} (registered at name server {name_server})")

    async with trio.open_nursery() as nursery:
        client = RemotingClient(host, nursery, connect_timeout=ASK_S)
        async with trio.open_nursery() as asking:
            for name_server in config.namesrv_addresses:
                asking.start_soon(ask, client, name_server)
        await client.aclose()
        nursery.cancel_scope.cancel()
    if found:
        what = "master" if config.broker_id == 0 else "slave"
        raise ConfigError(
            f"broker {config.broker_name} already has a {what} with brokerId={config.broker_id} at {found[0]}: stop that one, or give this "
            "broker another brokerName or brokerId"
        )


async def cluster_info(client: RemotingClient, name_server: str) -> ClusterInfo | None:
    """Everything a name server knows of brokers; None if it does not answer."""
    try:
        answer = await client.request(name_server, RequestCode.GET_BROKER_CLUSTER_INFO, timeout=ASK_S)
        return decode_body(answer.body, ClusterInfo) if answer.code == ResponseCode.SUCCESS else None
    except (TrmqError, OSError):
        return None


async def broker_config(client: RemotingClient, address: str) -> dict[str, str]:
    """The configuration a broker answers with; {} if nobody answers there."""
    try:
        answer = await client.request(address, RequestCode.GET_BROKER_CONFIG, timeout=ASK_S)
    except (TrmqError, OSError):
        return {}
    if answer.code != ResponseCode.SUCCESS:
        return {}
    return {entry.key: entry.value for entry in parse_properties(bytes(answer.body).decode("utf-8", "replace"))}


async def slaves_registered(client: RemotingClient, config: BrokerConfig, name_servers: Sequence[str]) -> dict[int, str] | None:
    """broker id -> address of the slaves of this broker's group, as far as any name server knows; None if none answers."""
    found: dict[int, str] | None = None
    fields = {"clusterName": config.broker_cluster_name, "brokerName": config.broker_name}
    for name_server in name_servers:
        try:
            answer = await client.request(name_server, RequestCode.GET_BROKER_MEMBER_GROUP, fields, timeout=ASK_S)
            group = decode_body(answer.body, BrokerMemberGroup).broker_member_group if answer.code == ResponseCode.SUCCESS else None
        except (TrmqError, OSError, RemoteProtocolError):
            continue
        found = found or {}
        if group is not None:
            found.update((broker_id, address) for broker_id, address in group.broker_addrs.items() if broker_id != 0)
    return found
