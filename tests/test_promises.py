"""No promise in the manuals without a clause: a sentence that promises something names, in the same sentence, the clause that judges it.

What a promise is, is decided by words: a sentence of `README.md` or `docs/*.md` with one of `WORDS` in it counts as one. It bears a link
like [P-ACK-8](docs/spec.md#p-ack-8), or it stands in `NO_PROMISE` with the reason why it is none. Code blocks do not count, nor does what
is generated. Every id that is named anywhere must exist, and its link must lead to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from specs.clause import REGISTRY

ROOT = Path(__file__).parent.parent
LEFT_OUT = {
    "spec.md": "generated from the clauses", "guarantees.md": "generated", "kill-matrix.md": "generated",
    "verification.md": "about the checks, not about brokers", "benchmarks.md": "says what was measured, not what is promised",
}  # fmt: skip
MANUALS = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in LEFT_OUT)]
WORDS = re.compile(
    r"\b(never|always|whatever happens|guarantee[sd]?|promises?|at least once|no acknowledged|(?:is|are) not lost|is lost|loses|lose no"
    r"|survives?|within (?:about )?\d+ ?(?:s|ms|seconds)|at most \d+ ?(?:s|ms|seconds)|no queue can|nothing (?:is|else is) (?:lost|thrown)"
    r"|repaired by the next start|exactly where it was|costs nothing|byte for byte|nothing less|believed nothing|follows an fsync"
    r"|certainly not)\b", re.IGNORECASE,
)  # fmt: skip
LINK = re.compile(r"\[(P-[A-Z]+-R?\d+)\]\(([^)]*)\)")
NO_PROMISE: dict[str, str] = {
    "Python programs that talk to RocketMQ": "for whom it is; speaks of promises in general",
    "Stricter where Apache breaks its promise": "leads to the page that says how",
    "a simulated host: a disk that loses": "a room of the house, in which disks lose what they are told to lose",
    "the promises, as clauses that run": "a folder of the house",
    "What waits, waits for an offset": "how the code is built",
    "was never sent": "what an exception means: nothing was written to a connection",
    "[the table](docs/guarantees.md)": "leads to the table",
    "loses power": "the heading of a column",
    "loses its disk": "the heading of a column",
    "The old master may hold messages": "what may be there, not what is",
    "A slave that was never a master": "what is not done",
    "the next segment, made ahead of time": "how files are made; the layout is judged by `trmq store check` and P-LOG-2",
    "never goes back within a log": "a difference to Apache; tests/log judges it, and the search by time (P-TIME-1) stands on it",
}
"""The beginning of a sentence → why it promises nothing."""


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """(line, sentence): paragraphs, list items and table rows, cut at full stops, semicolons that end a table cell excepted."""
    block: list[str] = []
    start, code = 0, False

    def cut() -> Iterator[tuple[int, str]]:
        text = " ".join(block)
        for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z*`\[(])|\s\|\s", text):
            if sentence.strip(" |*-"):
                yield start, sentence.strip(" |*-")

    for number, line in enumerate([*path.read_text().splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            code = not code
            line = ""
        if code or not line.strip() or line.lstrip().startswith(("#", "* ", "- ", "|", "1.", "2.", "3.", "4.", "5.", "6.")):
            yield from cut()
            block, start = [], number
        if line.strip() and not code:
            block.append(line.strip())


def promises(path: Path) -> Iterator[tuple[int, str]]:
    return ((line, sentence) for line, sentence in sentences(path) if WORDS.search(sentence))


@pytest.mark.parametrize("path", MANUALS, ids=lambda path: path.name)
def test_every_promise_names_its_clause(path: Path) -> None:
    bare = []
    for line, sentence in promises(path):
        if not LINK.search(sentence) and not any(sentence.startswith(beginning) for beginning in NO_PROMISE):
            bare.append(f"{path.name}:{line}: {sentence}")
    assert not bare, "promises without a clause:\n" + "\n".join(bare)


@pytest.mark.parametrize("path", MANUALS, ids=lambda path: path.name)
def test_every_clause_that_is_named_exists_and_its_link_leads_to_it(path: Path) -> None:
    page = "docs/spec.md" if path.parent == ROOT else "spec.md"
    for id, target in LINK.findall(path.read_text()):
        assert id in REGISTRY, f"{path.name} names {id}, which does not exist"
        assert target == f"{page}#{id.lower()}", f"{path.name}: {id} leads to {target}"


def test_nothing_is_excused_that_is_not_there() -> None:
    every = [sentence for path in MANUALS for _, sentence in promises(path)]
    for beginning in NO_PROMISE:
        assert any(sentence.startswith(beginning) for sentence in every), f"no sentence begins with {beginning!r} any more"


def test_the_words_find_promises() -> None:
    assert all(WORDS.search(text) for text in ("It never answers.", "No acknowledged message is lost.", "A slave has it within 10 s."))
    assert not WORDS.search("Queues are files.")
