"""`trmq serve`: the options of a broker's start. What they do is in `starting`, which does not need Cyclopts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from . import starting


def serve(
    *,
    config: Annotated[Path | None, Parameter(name=["--config", "-c"])] = None,
    namesrv: Annotated[str | None, Parameter(name=["--namesrv", "-n"])] = None,
    store: Path | None = None,
    role: Literal["async_master", "sync_master", "slave"] | None = None,
    flush: Literal["async", "sync"] | None = None,
    listen_port: int | None = None,
    namesrv_port: int | None = None,
    bind: str | None = None,
    broker_name: str | None = None,
    broker_id: int | None = None,
    cluster: str | None = None,
    end_with: Literal["stdin"] | None = None,
    set: Annotated[list[str] | None, Parameter(name="--set", negative="", consume_multiple=False)] = None,
) -> int:
    """Run a broker until Ctrl-C, with a name server in the same process unless one is named.

    Example: trmq serve --store ./data
    Example: trmq serve -c broker.conf -n 10.0.0.5:9876
    Example: trmq serve --role sync_master --broker-name a -n "10.0.0.5:9876;10.0.0.6:9876"
    Example: trmq serve --role slave --broker-name a --broker-id 1 -n "10.0.0.5:9876;10.0.0.6:9876"

    Parameters
    ----------
    config
        An Apache broker.conf, taken unchanged.
    namesrv
        Name servers to register at, host:port separated by ';'. Without any, one is started here.
    store
        Folder of the store (storePathRootDir). Default: ~/.trmq/store.
    role
        What this member of its group does (brokerRole). A slave finds its master through the name servers, or by haMasterAddress.
    flush
        Whether a send is answered before (async) or after (sync) the disk has it (flushDiskType).
    listen_port
        Port for clients (listenPort). Default 10911; 0 takes a free one.
    namesrv_port
        Port of the name server started here. Default 9876; 0 takes a free one.
    bind
        Address to listen on (bindAddress). Default: loopback only.
    broker_name
        Name of the broker group (brokerName): the same for a master and its slaves.
    broker_id
        Place in the group (brokerId): 0 for the master, 1 or more for a slave.
    cluster
        Name of the cluster (brokerClusterName).
    end_with
        stdin: end, as after SIGTERM, when standard input closes. For programs that start this one and may be killed themselves.
    set
        Any other configuration key, as KEY=VALUE; may be repeated.
    """
    return starting.serve(
        config=config, namesrv=namesrv, store=store, role=role, flush=flush, listen_port=listen_port, namesrv_port=namesrv_port, bind=bind,
        broker_name=broker_name, broker_id=broker_id, cluster=cluster, end_with=end_with, set=set,
    )  # fmt: skip
