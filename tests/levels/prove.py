"""CrossHair over the catalogue of contracts, in a process of its own: `python tests/levels/prove.py [--mutant N] [FUNCTION...]`.

One line of JSON per condition: function, condition, state, seconds. CrossHair's own exit code does not tell "confirmed" from "not
confirmed", so nobody asks it: states are what counts. A seeded bug is one piece of shipped text replaced by another, in this process only.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SHIPPED, HERE = "trmq.replica.ack", "levels.contracts"
RETRY, SENDBACK = "trmq.client.retry", "trmq.broker.handlers.sendback"


class Proof(NamedTuple):
    """`slow`: wants more than the budget of a commit, so it is run in the long profile only. Then the seeded bug that it finds."""

    function: str
    where: str
    module: str
    right: str
    wrong: str
    slow: bool = False


PROOFS = (
    Proof("needed", SHIPPED, "trmq.replica.ack", "return max(2, 1 + registered)", "return max(1, registered)"),
    Proof("lowered", SHIPPED, "trmq.replica.ack", "max(min(need, in_sync), minimum)", "min(need, in_sync)"),
    Proof("held", SHIPPED, "trmq.replica.ack", "[need - 2]", "[need - 3]"),
    Proof("counted", SHIPPED, "trmq.replica.ack", "sorted(acks)[:allowed]", "sorted(acks)[: allowed + 1]"),
    Proof("held_is_the_most", HERE, "trmq.replica.ack", "return max(acks, default=-1)", "return min(acks, default=-1)"),
    Proof("strangers_count_with_what_they_have", HERE, "trmq.replica.ack", "return [max(acks)]", "return [max(acks) + 1]"),
    Proof("report_believed", HERE, "trmq.replica.transfer", "if offset > max_phy:", "if offset > max_phy + 1:"),
    Proof("beginning", "trmq.replica.transfer", "trmq.replica.transfer", "start -= segment_size  #", "start -= 0  #"),
    Proof("sliced", HERE, "trmq.replica.transfer", "start - start % segment_size + segment_size", "start + segment_size"),
    Proof("chosen", HERE, "trmq.route.selection", "name != last_broker and accepts(name)", "accepts(name)"),
    Proof("shared_out", HERE, "trmq.route.rebalance", "min(index, rest)", "index * (rest > 0)"),
    Proof("dealt_out", HERE, "trmq.route.rebalance", "members.index(me) :: len(members)", "members.index(me) :: max(2, len(members))"),
    Proof("pauses", HERE, "trmq.route.latency", "(1_800, 5_000)", "(1_800, 7_000)"),
    Proof("left_alone", HERE, "trmq.route.latency", "max(fault.available_at, now_ms + pause)", "now_ms + pause"),
    Proof("judge_send", RETRY, RETRY, "if code in RETRIED else Verdict.REFUSED", "if code in RETRIED or code == 13 else Verdict.REFUSED"),
    Proof("is_definite", RETRY, RETRY, "(int(ResponseCode.SYSTEM_ERROR),)", "(int(ResponseCode.SYSTEM_BUSY),)"),
    Proof("sharded", HERE, "trmq.client.retry", "abs(key_hash) % len(queues)", "abs(key_hash) % (len(queues) + 1)"),
    Proof("sized", HERE, "trmq.record", "topic_size > 127 else 0)", "topic_size > 128 else 0)"),
    Proof("found_first", HERE, "trmq.log.index_files", "low = middle + 1", "low = middle + 2"),
    Proof("pulled", HERE, "trmq.log.search", "OFFSET_OVERFLOW_BADLY, high,", "OFFSET_OVERFLOW_BADLY, low,"),
    Proof("deleted", HERE, "trmq.log.retention", "age < config.reserve_ms", "age <= config.reserve_ms"),
    Proof("answered", HERE, "trmq.broker.acks", "entries[0][0] <= mark", "entries[0][0] <= mark + 1"),
    Proof("delivery_noted", HERE, "trmq.broker.delay", "self.pending[0][0] <= flushed", "self.pending[0][0] < flushed"),
    Proof("patience", HERE, "trmq.broker.delay", "self.seen[-1] = (end, now)", "self.seen[-1] = (end, self.seen[-1][1])"),
    Proof("level_of", "trmq.log.dispatch", "trmq.log.dispatch", "return max(0, min(asked, count))", "return max(1, min(asked, count))"),
    Proof("due", HERE, "trmq.log.dispatch", "levels_ms[level - 1]", "levels_ms[level - 2]"),
    Proof("next_level", SENDBACK, SENDBACK, "or times >= times_max:", "or times > times_max:"),
    Proof("given_back", HERE, RETRY, "RETRY_LEVEL_BASE = 3", "RETRY_LEVEL_BASE = 4"),
)
BY_NAME = {proof.function: proof for proof in PROOFS}


def seed_bug(proof: Proof) -> None:
    """Put a copy of the module with one piece of text replaced in the shipped one's place."""
    shipped = importlib.import_module(proof.module)
    text = inspect.getsource(shipped)
    assert text.count(proof.right) == 1, f"{proof.function}: {proof.right!r} stands {text.count(proof.right)} times in {proof.module}"
    folder = Path(tempfile.mkdtemp(prefix="trmq-bug-"))
    path = folder / f"{proof.module.rpartition('.')[2]}.py"
    path.write_text(text.replace(proof.right, proof.wrong))
    spec = importlib.util.spec_from_file_location(proof.module, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[proof.module] = module
    spec.loader.exec_module(module)
    parent, _, name = proof.module.rpartition(".")
    setattr(sys.modules[parent], name, module)


def prove(proof: Proof, seconds: float) -> Iterator[tuple[str, str]]:
    """(condition, state) of each postcondition of one function."""
    from crosshair.core_and_libs import analyze_function, run_checkables
    from crosshair.options import AnalysisKind, AnalysisOptionSet

    function = getattr(importlib.import_module(proof.where), proof.function)
    options = AnalysisOptionSet(per_condition_timeout=seconds, per_path_timeout=seconds, report_all=True,
                                analysis_kind=[AnalysisKind.PEP316])  # fmt: skip
    for message in run_checkables(analyze_function(function, options)):
        yield f"{Path(message.filename).name}:{message.line}", f"{message.state.name}" + (
            "" if message.state.name == "CONFIRMED" else f" {message.message}"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("functions", nargs="*")
    parser.add_argument("--mutant", action="store_true", help="the function's seeded bug is in")
    parser.add_argument("--seconds", type=float, default=30.0, help="per condition")
    chosen = parser.parse_args()
    for name in chosen.functions or BY_NAME:
        proof = BY_NAME[name]
        if chosen.mutant:
            seed_bug(proof)
        importlib.import_module(proof.where)
        began = time.perf_counter()
        for condition, state in prove(proof, chosen.seconds):
            spent = time.perf_counter() - began
            print(json.dumps({"function": name, "condition": condition, "state": state, "seconds": round(spent, 2)}), flush=True)
            began = time.perf_counter()


if __name__ == "__main__":
    main()
