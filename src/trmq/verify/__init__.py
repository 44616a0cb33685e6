"""Judging a cluster as its clients see it, trmq's or Apache's: a workload, faults by the operator's commands, a verdict."""

from .plan import Expect, Plan
from .report import to_dict, to_text
from .run import Result, verify

__all__ = ["Expect", "Plan", "Result", "to_dict", "to_text", "verify"]
