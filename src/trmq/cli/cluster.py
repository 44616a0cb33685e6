"""`trmq cluster list`."""

from __future__ import annotations

from trmq.client import Client
from trmq.errors import TrmqError

from .output import Output, show
from .session import Format, NameServer, with_client


def list_cluster(*, namesrv: NameServer = None, output: Format = Output.table) -> int:
    """All brokers with version and rates. (mqadmin clusterList)"""

    async def work(mq: Client) -> None:
        rows = []
        for info in await mq.admin.cluster():
            row = {"cluster": info.cluster, "broker": info.broker_name, "id": info.broker_id, "address": info.address}
            try:
                runtime = await mq.admin.broker_runtime(info.address)
                row |= {
                    "version": runtime.get("brokerVersionDesc"), "in_per_s": float((runtime.get("putTps") or "0").split()[0]),
                    "out_per_s": float((runtime.get("getTransferredTps") or "0").split()[0]), "state": "up",
                }  # fmt: skip
            except TrmqError as error:
                row |= {"version": "", "in_per_s": 0.0, "out_per_s": 0.0, "state": str(error)}
            rows.append(row)
        show(rows, output, empty="no broker is registered")

    return with_client(work, namesrv)
