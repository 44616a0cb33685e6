"""Seeded bugs of name servers, and of those who register there and ask there. Registered beside those of replication."""

from __future__ import annotations

from typing import Any

import trio

from chaos.mutants import MUTANTS, Patch, mutant
from property.mutants import wrap
from trmq.broker.registration import Link, Registration
from trmq.client.instance import Instance
from trmq.route.registry import Registry
from trmq.wire.bodies import TopicRouteData

__all__ = ["MUTANTS"]


@mutant("P-RT-4", scenarios=("registrations",))
def slaves_are_left_out(patch: Patch) -> None:
    """A route has masters only; consumers could not go on from a slave."""

    def route(original: Any, self: Registry, topic: str) -> TopicRouteData | None:
        found: TopicRouteData | None = original(self, topic)
        for group in found.broker_datas if found is not None else ():
            group.broker_addrs = {id: address for id, address in group.broker_addrs.items() if id == 0 or 0 not in group.broker_addrs}
        return found

    wrap(patch, Registry, "route", route)


@mutant("P-RT-4", scenarios=("registrations",))
def group_hides_another(patch: Patch) -> None:
    """Of several groups with a topic only the one that came first is shown."""

    def route(original: Any, self: Registry, topic: str) -> TopicRouteData | None:
        found: TopicRouteData | None = original(self, topic)
        if found is not None:
            found.broker_datas = sorted(found.broker_datas, key=lambda group: group.broker_name)[:1]
        return found

    wrap(patch, Registry, "route", route)


@mutant("P-RT-5", scenarios=("name_servers_come_and_go",))
def registers_at_one_only(patch: Patch) -> None:
    """So does a slave."""

    def made(original: Any, self: Registration, *args: Any) -> None:
        original(self, *args)
        if self.config.is_slave:
            del self.links[1:]

    wrap(patch, Registration, "__init__", made)


@mutant("P-RT-5", scenarios=("name_servers_come_and_go",))
def registers_once(patch: Patch) -> None:
    """A name server that has heard of us is never told again."""

    async def run(self: Link) -> None:
        while not await self._register(None):
            await trio.sleep(1)
        await trio.sleep_forever()

    patch.setattr(Link, "run", run)


@mutant("P-RT-6", scenarios=("name_servers_come_and_go",))
def one_name_server_is_asked(patch: Patch) -> None:
    def made(original: Any, self: Instance, host: Any, name_servers: Any, *args: Any, **kwargs: Any) -> None:
        original(self, host, name_servers[:1], *args, **kwargs)

    wrap(patch, Instance, "__init__", made)
