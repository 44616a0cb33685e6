"""Who a store belongs to, and what it was when it was last used: `trmq/role.json`, which Apache ignores.

The id tells two stores apart that claim the same place in a group. The role tells a slave whose log has more than its master's whether it
was that group's master itself (then what is too much may go into a file) or a copy of a master that lost something (then it may not).

    {"role": "SLAVE", "clusterName": …, "brokerName": …, "brokerId": …, "storeId": …}
"""

from __future__ import annotations

from trmq.config import BrokerConfig
from trmq.errors import RemoteProtocolError, StoreMismatch
from trmq.host import Host
from trmq.log.config_file import load_json_text, persist
from trmq.wire.bodies import Body, decode_body, encode_body

PATH = "trmq/role.json"


class Identity(Body):
    """The file's text; `role` as in the configuration, "" for a store nobody has named yet."""

    role: str = ""
    cluster_name: str = ""
    broker_name: str = ""
    broker_id: int = 0
    store_id: str = ""

    @property
    def was_master(self) -> bool:
        return self.role.endswith("_MASTER")


def load_identity(host: Host) -> Identity:
    """What the file says; a new id if there is none."""
    try:
        text = load_json_text(host.disk, PATH)
        found = Identity() if text is None else decode_body(text, Identity)
    except RemoteProtocolError as error:
        raise StoreMismatch(f"{PATH} in the store cannot be read: {error}; move it away to go on without what it says") from None
    if not found.store_id:
        found.store_id = f"{host.random.getrandbits(96):024x}"
    return found


async def save_identity(host: Host, identity: Identity, config: BrokerConfig) -> Identity:
    """Note the role that a configuration gives, durably, unless the file says so already."""
    wanted = Identity(config.broker_role, config.broker_cluster_name, config.broker_name, config.broker_id, identity.store_id)
    if identity != wanted or not host.disk.exists(PATH):
        await persist(host.disk, PATH, encode_body(wanted))
    return wanted
