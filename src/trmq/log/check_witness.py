"""Comparing records with trmq's checksum files, which cover what Apache's format leaves unprotected (TRAP-S20)."""

from __future__ import annotations

from collections.abc import Sequence

from trmq.host import Disk
from trmq.log.checkpoint import Checkpoints
from trmq.log.checksums import read_groups, record_check
from trmq.log.report import Report


class WitnessCheck:
    """Fed with every record in order. On a store that Apache wrote, or wrote to last, the checksum files say nothing and are left out."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._trusted = not Checkpoints(disk).foreign()
        self._groups: dict[int, Sequence[int]] = {}
        self._group: Sequence[int] = ()
        self._taken = 0
        self.checked = 0

    def segment(self, base: int) -> None:
        """What follows is of the segment at `base`."""
        self._groups = {start: checks for _, start, checks in read_groups(self._disk, base)} if self._trusted else {}
        self._group, self._taken = (), 0

    def record(self, phy: int, record: memoryview, report: Report, path: str, position: int, remedy: str) -> None:
        if self._taken == len(self._group):
            self._group, self._taken = self._groups.get(phy, ()), 0
        if self._taken == len(self._group):
            return  # a power cut may take a witness away
        self._taken += 1
        self.checked += 1
        if record_check(record) != self._group[self._taken - 1]:
            problem = f"header, topic or properties of the record at log offset {phy} do not match their checksum"
            report.add("error", "record-checksum", path, position, problem, remedy)
