"""What a check of a store found: a value that prints, counts and becomes JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import attrs

Severity = Literal["error", "warning", "info"]
FINDINGS_PER_KIND_MAX = 20
CHECK = "trmq store check"


@attrs.frozen
class Finding:
    """One thing found. error: data is damaged or missing. warning: odd, nothing lost. info: normal after an unclean stop."""

    severity: Severity
    kind: str
    """A short name of the kind of finding, for programs."""
    file: str
    offset: int | None
    """Byte in the file; None if it concerns the whole of it."""
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        at = "" if self.offset is None else f" at byte {self.offset}"
        return f"{self.severity}: {self.file}{at}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


@attrs.define
class Report:
    """The result of `check_store`. `ok` is False as soon as there is one error."""

    findings: list[Finding] = attrs.field(factory=list)
    facts: dict[str, Any] = attrs.field(factory=dict)
    """Counts and states: records, bytes, min_phy, max_phy, segment_size, clean, queues, units, index_entries, keys_checked, …"""
    hidden: dict[str, int] = attrs.field(factory=dict)
    """Findings beyond the first twenty of a kind, by kind."""
    _seen: Counter[tuple[str, str]] = attrs.field(factory=Counter)

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def add(self, severity: Severity, kind: str, file: str, offset: int | None, message: str, remedy: str = "") -> None:
        self._seen[severity, kind] += 1
        if self._seen[severity, kind] > FINDINGS_PER_KIND_MAX:
            self.hidden[kind] = self.hidden.get(kind, 0) + 1
        else:
            self.findings.append(Finding(severity, kind, file, offset, message, remedy))

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and strings only."""
        return {
            "ok": self.ok,
            "facts": self.facts,
            "findings": [attrs.asdict(finding) for finding in self.findings],
            "hidden": self.hidden,
        }


Progress = Callable[[str, int, int], None]
"""(what is being checked, done, of) in bytes or items; called now and then."""
