"""Throughput of reading N-Triples on one core, compared with a loop over pyoxigraph.parse.

    python benchmarks/rdf_throughput.py [--triples 1000000] [--literals 0.25] [--blank 0.02]
                                        [--rounds 5] [--scattered]

The file is generated; a share of its triples has a literal, another share a blank node. The
statements of an entity are adjacent, as in dumps, unless they are scattered: each name to look up
is then far from the previous one in memory. Rounds alternate between the ways; the table gives
triples per second of processor time, for the median and the best round.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyoxigraph

from common import alternate
from mocme.data.formats.kinds import ntriples, turtle
from mocme.data.formats.literals import Literals
from mocme.data.formats.report import Report
from mocme.data.ingest.indexer import FactIndexer

WIKIDATA = "http://www.wikidata.org"
XSD = "http://www.w3.org/2001/XMLSchema#"


def generate(path: Path, triples: int, literals: float, blank: float, scattered: bool) -> None:
    """Write triples in the shape of a Wikidata dump; a third of the literals has escapes."""
    source = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(triples):
            # Four statements per entity; most facts point to few entities.
            head = source.randrange(triples) // 4 if scattered else number // 4
            tail = int(triples / 4 * source.random() ** 2)
            relation = int(500 * source.random() ** 3)
            kind = source.random()
            if kind < literals:
                end = source.choice(
                    [
                        f'"name {number}"@en',
                        f'"\\u0438\\u043C\\u044F {number}"@ru',
                        f'"+{number}"^^<{XSD}decimal>',
                    ]
                )
            elif kind < literals + blank:
                end = f"_:b{tail}"
            else:
                end = f"<{WIKIDATA}/entity/Q{tail}>"
            file.write(
                f"<{WIKIDATA}/entity/Q{head}> <{WIKIDATA}/prop/direct/P{relation}> {end} .\n"
            )


def read(path: Path) -> int:
    """Read only."""
    report = Report(str(path))
    for _ in ntriples.statements(path, report):
        pass
    return report.rows


def read_turtle(path: Path) -> int:
    """Read the same file as Turtle."""
    report = Report(str(path))
    for _ in turtle.statements(path, report):
        pass
    return report.rows


def index(path: Path) -> int:
    """Read, and map names to ids."""
    report, indexer = Report(str(path)), FactIndexer()
    for block in ntriples.statements(path, report):
        indexer.add("train", block, report)
    return report.rows


def index_all(path: Path) -> int:
    """Read, map names to ids, and keep literals."""
    report, indexer = Report(str(path)), FactIndexer()
    with Literals() as literals:
        for block in ntriples.statements(path, report, literals):
            indexer.add("train", block, report)
    return report.rows


def oxigraph_names(path: Path) -> int:
    """A loop over pyoxigraph that keeps the names of facts."""
    facts = []
    for quad in pyoxigraph.parse(path=path, format=pyoxigraph.RdfFormat.N_TRIPLES):
        if not isinstance(quad.object, pyoxigraph.Literal):
            facts.append((quad.subject.value, quad.predicate.value, quad.object.value))
    return len(facts)


def oxigraph_empty(path: Path) -> int:
    """A loop over pyoxigraph that does nothing."""
    return sum(1 for _ in pyoxigraph.parse(path=path, format=pyoxigraph.RdfFormat.N_TRIPLES))


WAYS: dict[str, Callable[[Path], int]] = {
    "mocme, read": read,
    "mocme, read and index": index,
    "mocme, read and index, keep literals": index_all,
    "mocme, read as Turtle": read_turtle,
    "pyoxigraph, empty loop": oxigraph_empty,
    "pyoxigraph, loop that keeps names": oxigraph_names,
}


def main() -> None:
    """Print throughput, and the peak memory of the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--triples", type=int, default=1_000_000)
    parser.add_argument("--literals", type=float, default=0.25)
    parser.add_argument("--blank", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scattered", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "triples.nt"
        generate(path, options.triples, options.literals, options.blank, options.scattered)
        size = path.stat().st_size
        print(f"{options.triples:,} triples, {size / options.triples:.0f} bytes each")
        ways = {name: partial(way, path) for name, way in WAYS.items()}
        seconds = alternate(ways, options.rounds, time.process_time)
    print(f"{'triples per second':38} {'median':>12} {'best':>12}")
    for name, times in seconds.items():
        median, best = (options.triples / s for s in (statistics.median(times), min(times)))
        print(f"{name:38} {median:12,.0f} {best:12,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process: {peak:,.0f} MiB, for {size / 2**20:,.0f} MiB of text")


if __name__ == "__main__":
    main()
