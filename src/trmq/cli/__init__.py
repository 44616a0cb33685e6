"""`trmq`: serve, administer, pipe messages, measure, verify a store.

Each verb lives in a module that is imported only when it runs, so that `--help` and the start of a broker stay quick.
Exit codes: 0 done · 1 the operation failed · 2 wrong usage or configuration · 3 cannot connect · 5 timeout, outcome unknown ·
6 a promise was broken · 7 the store is damaged · 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONNECT = 3
EXIT_TIMEOUT = 5
EXIT_VIOLATED = 6
EXIT_DAMAGED = 7
EXIT_INTERRUPTED = 130

EPILOGUE = """\
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 cannot connect, 5 timeout (outcome unknown),
6 a promise was broken, 7 store damaged, 130 interrupted.
Environment: NAMESRV_ADDR (as Apache's tools read it), TRMQ_<KEY> for any configuration key, NO_COLOR.
"""


def build() -> App:
    """The command tree; verbs are named by module path and loaded on use."""
    from cyclopts import App

    app = App(
        name="trmq",
        help="Apache RocketMQ's broker, name server and tools in Python. `trmq serve` starts both on loopback.",
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=_version,
        result_action="return_value",
    )
    app.command("trmq.cli.serve:serve", name="serve", help="Run a broker (and, unless one is named, a name server) until Ctrl-C.")
    app.command("trmq.cli.namesrv:namesrv", name="namesrv", help="Run a name server until Ctrl-C.")
    app.command("trmq.cli.dev:dev", name="dev", help="Run a whole cluster on this machine, a process per node, with a live table.")
    app.command("trmq.cli.pipe:produce", name="produce", help="Send messages, one per line of standard input (text or jsonl).")
    app.command("trmq.cli.pipe:consume", name="consume", help="Print messages as they arrive (text or jsonl).")
    app.command("trmq.cli.bench:bench", name="bench", help="Measure throughput and latency of any cluster.")
    app.command("trmq.cli.sim:sim", name="sim", help="Play a simulated cluster's life from a seed, and judge what it promised.")
    app.command("trmq.cli.verify:verify", name="verify", help="Judge any cluster, trmq's or Apache's: workload, faults, verdict.")
    for noun, verbs in NOUNS.items():
        sub = App(name=noun, help=NOUN_HELP[noun], help_format="plaintext", result_action="return_value")
        for verb, text in verbs.items():
            sub.command(f"trmq.cli.{noun}:{verb}_{noun}", name=verb, help=text)
        app.command(sub)
    return app


NOUN_HELP = {
    "topic": "Create, list, describe and delete topics.",
    "group": "Consumer groups: subscriptions, lag, offsets.",
    "message": "Look messages up by id or key.",
    "cluster": "What the name server knows.",
    "ha": "Replication: roles, offsets, lag.",
    "store": "Check a store on disk, offline; make a slave's start again.",
    "spec": "What is promised, clause by clause, and what is not.",
    "demo": "See it work.",
    "config": "Show and check configuration files.",
}
NOUNS: dict[str, dict[str, str]] = {
    "topic": {
        "list": "All topics of the cluster.",
        "create": "Create a topic or change its queues and permission.",
        "show": "Route, queues and offsets of a topic.",
        "delete": "Delete a topic from brokers and name servers.",
    },
    "group": {
        "list": "All consumer groups.",
        "create": "Create a consumer group or change its settings.",
        "show": "Members, offsets and lag of a group.",
        "reset": "Set the group's offsets of a topic: earliest, latest or a time.",
        "delete": "Delete a consumer group.",
    },
    "message": {
        "get": "One message by its id (offset id or unique key).",
        "query": "Messages of a topic by key.",
    },
    "cluster": {"list": "Brokers, addresses, versions and rates."},
    "ha": {"status": "Members, offsets, lag and links of every broker group."},
    "store": {
        "check": "Verify log, queues, index and checkpoints of a store, trmq's or Apache's. Read-only.",
        "resync": "Set a slave's log aside, so that it copies everything from its master again.",
        "tail": "Print the messages that were cut off a former master's log.",
    },
    "spec": {
        "list": "Every clause: what must hold, what holds in time, what can happen.",
        "show": "A clause with its source, seeded bugs and tests; or a whole page.",
    },
    "demo": {"failover": "A master dies: consumers go on from its slave, producers elsewhere, and nothing is lost."},
    "config": {
        "show": "The effective configuration, each value with where it comes from.",
        "keys": "All keys trmq honours, with defaults.",
    },
}


def _version() -> str:
    from importlib.metadata import version

    return f"trmq {version('trmq')}"


def fail(message: str, code: int = EXIT_FAILED) -> int:
    """One sentence on standard error; returns the exit code."""
    print(f"trmq: {message}", file=sys.stderr)
    return code


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: runs the verb, turns every error trmq raises on purpose into one sentence and an exit code."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    from trmq.errors import TrmqError

    from .quick import read

    verb = read(arguments)
    try:
        outcome = run_any(arguments) if verb is None else verb()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our pipe left: nothing to say, nobody to say it to
        return 0
    except BaseExceptionGroup as group:
        known = first_known(group)
        if known is None:
            raise
        return explain(known)
    except (TrmqError, OSError) as error:
        return explain(error)
    return outcome if isinstance(outcome, int) else 0


def run_any(arguments: list[str]) -> object:
    """Have Cyclopts read the arguments and run the verb; what the verb returns, or the exit code of a mistake in them."""
    from cyclopts import CycloptsError, UnknownCommandError

    try:
        return build()(arguments or ["--help"], exit_on_error=False, print_error=False)
    except UnknownCommandError as error:
        return fail(unknown_verb(arguments, error.unused_tokens or []), EXIT_USAGE)
    except CycloptsError as error:
        return fail(f"{' '.join(str(error).split())} Try `trmq --help`.", EXIT_USAGE)


def unknown_verb(arguments: list[str], unused: list[str]) -> str:
    """The sentence for a verb that does not exist, with the nearest one. (Cyclopts' own text imports every verb's module.)"""
    from difflib import get_close_matches

    before = arguments[: len(arguments) - len(unused)]
    plain = ["serve", "namesrv", "dev", "produce", "consume", "bench", "sim", "verify"]
    known = [*NOUNS.get(before[0], {})] if before else [*plain, *NOUNS]
    word = unused[0] if unused else ""
    near = get_close_matches(word, known, 1, 0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"there is no verb {' '.join([*before, word])}.{hint} Known: {', '.join(known)}."


def first_known(group: BaseExceptionGroup[BaseException]) -> Exception | KeyboardInterrupt | None:
    """The one error worth telling out of a nursery's group; None if a bug is among them."""
    from trmq.errors import TrmqError

    _, unknown = group.split((TrmqError, OSError, KeyboardInterrupt))
    if unknown is not None:
        return None
    for leaf in leaves(group):
        if isinstance(leaf, Exception | KeyboardInterrupt):
            return leaf
    return None


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def explain(error: BaseException) -> int:
    from trmq.errors import ConfigError, ConnectionLost, CorruptRecord, MessageIllegal, RequestTimeout, SendFailed, StoreMismatch

    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return 0
    if isinstance(error, ConfigError | StoreMismatch | MessageIllegal):
        return fail(str(error), EXIT_USAGE)
    if isinstance(error, CorruptRecord):
        return fail(str(error), EXIT_DAMAGED)
    if isinstance(error, RequestTimeout) or (isinstance(error, SendFailed) and error.unknown):
        return fail(str(error), EXIT_TIMEOUT)
    if isinstance(error, ConnectionLost) or (isinstance(error, SendFailed) and isinstance(error.__cause__, ConnectionLost)):
        return fail(str(error), EXIT_CONNECT)
    return fail(str(error) or type(error).__name__, EXIT_FAILED)
