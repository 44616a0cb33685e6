"""Starting `trmq serve`: a real host with a broker, and with a name server unless one is named.

Apache's own configuration files are taken unchanged. The lines printed at the end of the start are Apache's too, so that scripts that
wait for "boot success" work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import trio

from trmq.broker.service import Broker
from trmq.config import BrokerConfig, Loaded, load_broker, load_namesrv
from trmq.errors import ConfigError
from trmq.real_host import RealHost, raise_file_limit
from trmq.route import NameServer

from .common import folder_of, pairs_of, text_of
from .running import list_unneeded, run_until_signal, say_namesrv, settle_memory

DEFAULT_STORE = "~/.trmq/store"
DEFAULT_NAMESRV_PORT = 9876


def serve(
    *, config: Path | None = None, namesrv: str | None = None, store: Path | None = None, role: str | None = None, flush: str | None = None,
    listen_port: int | None = None, namesrv_port: int | None = None, bind: str | None = None, broker_name: str | None = None,
    broker_id: int | None = None, cluster: str | None = None, end_with: str | None = None, set: list[str] | None = None,
) -> int:  # fmt: skip
    """Run until a signal; the parameters are those of `trmq serve`."""
    flags: dict[str, Any] = {
        "namesrv_addr": namesrv, "store_path_root_dir": None if store is None else str(store), "broker_role": role and role.upper(),
        "flush_disk_type": flush and f"{flush.upper()}_FLUSH", "listen_port": listen_port, "bind_address": bind, "broker_name": broker_name,
        "broker_id": broker_id, "broker_cluster_name": cluster, **pairs_of(set),
    }  # fmt: skip
    loaded = load_broker(*text_of(config, "broker.conf"), environment=os.environ, flags=flags)
    return run_until_signal(_serve, loaded, own_name_server(loaded, namesrv_port), end_with=end_with)


def own_name_server(loaded: Loaded[BrokerConfig], port: int | None) -> int | None:
    """The port of the name server to start in this process, None for none. Raises `ConfigError` for what contradicts itself."""
    config = loaded.config
    if config.namesrv_addr:
        if port is not None:
            raise ConfigError(
                f"--namesrv-port starts a name server here, but {config.namesrv_addr} is named "
                f"({loaded.origins['namesrvAddr']}): leave one of the two out"
            )
        return None
    if config.broker_role != "SLAVE":
        return DEFAULT_NAMESRV_PORT if port is None else port
    if port is not None:
        raise ConfigError(f"--namesrv-port {port}: a slave runs no name server, it needs its master's: give --namesrv instead")
    if not config.ha_master_address:
        raise ConfigError(
            "a slave (brokerRole=SLAVE) has to find its master: give --namesrv with the name servers the master registers at, "
            "or haMasterAddress=HOST:PORT of its replication port"
        )
    return None


async def _serve(stop: trio.Event, loaded: Loaded[BrokerConfig], namesrv_port: int | None) -> None:
    """Name server (if ours) outlives the broker, so that the broker can say goodbye to it."""
    import attrs

    list_unneeded(loaded.unneeded)
    raise_file_limit()
    folder = folder_of(Path(loaded.config.store_path_root_dir or DEFAULT_STORE))
    config = attrs.evolve(loaded.config, store_path_root_dir=str(folder))
    async with trio.open_nursery() as outer:
        if namesrv_port is not None:
            bind = config.bind_address or "127.0.0.1"
            ns_config = load_namesrv(flags={"listen_port": namesrv_port, "bind_address": bind}).config
            server = NameServer(RealHost(folder / "namesrv"), ns_config)
            ip, port = await outer.start(server.run)
            say_namesrv((ip, port))
            config = attrs.evolve(config, namesrv_addr=f"{'127.0.0.1' if ip in ('0.0.0.0', '::') else ip}:{port}")
        broker = Broker(RealHost(folder), config)
        async with trio.open_nursery() as inner:
            _, port = await inner.start(broker.run)
            address = f"{broker.config.broker_ip1}:{port}"
            print(
                f"The broker[{broker.config.broker_name}, {address}] boot success. "
                f"serializeType=JSON and name server is {config.namesrv_addr}, store {folder}, "
                f"role {config.broker_role}, id {config.broker_id}",
                flush=True,
            )
            settle_memory()
            await stop.wait()
            inner.cancel_scope.cancel()
        outer.cancel_scope.cancel()
