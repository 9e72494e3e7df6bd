"""How fast N-Triples are read, on one core, beside a plain loop over pyoxigraph.parse.

    python benchmarks/rdf.py [--triples 1000000] [--literals 0.25] [--blank 0.02] [--rounds 5]
                             [--scattered]

The file is generated; a share of its triples has a literal, another a blank node. The statements of
an entity stand together, as in dumps, unless they are scattered: then every name that is looked for
is far from the last one in memory. Rounds alternate between the ways; the table gives triples a
second of processor time, by the median and by the best round.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyoxigraph

from mocme.data.formats import ntriples, turtle
from mocme.data.formats.literals import Literals
from mocme.data.formats.report import Report
from mocme.data.ingest.indexer import FactIndexer

WIKIDATA = "http://www.wikidata.org"
XSD = "http://www.w3.org/2001/XMLSchema#"


def generate(path: Path, triples: int, literals: float, blank: float, scattered: bool) -> None:
    """Write triples in the shape of a Wikidata dump, a third of their texts with an escape."""
    source = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(triples):
            # Four statements about an entity; most facts lead to few entities.
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
    """Read alone."""
    report = Report(str(path))
    for _ in ntriples.facts(path, report):
        pass
    return report.rows


def read_turtle(path: Path) -> int:
    """Read the same file as Turtle."""
    report = Report(str(path))
    for _ in turtle.facts(path, report):
        pass
    return report.rows


def index(path: Path) -> int:
    """Read, and give names their ids."""
    report, collector = Report(str(path)), FactIndexer()
    for block in ntriples.facts(path, report):
        collector.add("train", block, report)
    return report.rows


def index_all(path: Path) -> int:
    """Read, give names their ids, and keep literals."""
    report, collector = Report(str(path)), FactIndexer()
    with Literals() as literals:
        for block in ntriples.facts(path, report, literals):
            collector.add("train", block, report)
    return report.rows


def plain(path: Path) -> int:
    """A loop over pyoxigraph that keeps the names of facts."""
    facts = []
    for quad in pyoxigraph.parse(path=path, format=pyoxigraph.RdfFormat.N_TRIPLES):
        if not isinstance(quad.object, pyoxigraph.Literal):
            facts.append((quad.subject.value, quad.predicate.value, quad.object.value))
    return len(facts)


def bare(path: Path) -> int:
    """A loop over pyoxigraph that does nothing."""
    return sum(1 for _ in pyoxigraph.parse(path=path, format=pyoxigraph.RdfFormat.N_TRIPLES))


WAYS: dict[str, Callable[[Path], int]] = {
    "mocme, read alone": read,
    "mocme, read and index": index,
    "mocme, read and index, literals kept": index_all,
    "mocme, read alone, as Turtle": read_turtle,
    "pyoxigraph, empty loop": bare,
    "pyoxigraph, loop that keeps names": plain,
}


def main() -> None:
    """Print rates, and the peak of memory of the whole."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--triples", type=int, default=1_000_000)
    parser.add_argument("--literals", type=float, default=0.25)
    parser.add_argument("--blank", type=float, default=0.02)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scattered", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "triples.nt"
        generate(path, given.triples, given.literals, given.blank, given.scattered)
        size = path.stat().st_size
        print(f"{given.triples:,} triples, {size / given.triples:.0f} bytes each")
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(given.rounds):
            for name, way in WAYS.items():
                started = time.process_time()
                way(path)
                seconds[name].append(time.process_time() - started)
    print(f"{'triples a second':38} {'median':>12} {'best':>12}")
    for name, times in seconds.items():
        rates = (given.triples / taken for taken in (statistics.median(times), min(times)))
        print(f"{name:38} {next(rates):12,.0f} {next(rates):12,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of all this: {peak:,.0f} MiB beside {size / 2**20:,.0f} MiB of text")


if __name__ == "__main__":
    main()
