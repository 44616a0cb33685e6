"""Files of `config/` are written one at a time, whoever asks."""

from __future__ import annotations

import trio

from trmq.broker.metadata import Metadata
from trmq.log.config_file import load_json_text
from trmq.sim.disk import SimDisk


async def test_a_write_at_stop_waits_for_the_one_under_way(autojump_clock: trio.abc.Clock) -> None:
    """Both replace the same file through one third name: side by side, the slower one found it gone."""
    disk = SimDisk()
    disk.latency = 0.5
    metadata = Metadata(disk)
    metadata.register("config/a.json", lambda: b"{}")
    metadata.mark("config/a.json")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metadata.run)
        await trio.sleep(0.1)
        await metadata.write(everything=True)
        nursery.cancel_scope.cancel()
    assert load_json_text(disk, "config/a.json") == b"{}"
