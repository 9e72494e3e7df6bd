"""Number of tokens and facts from words, bigrams and subwords of a graph's texts, and the time.

python scripts/measure_tokens.py MKG-Y names.tsv captions.tsv
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import mocme
from mocme.encoders.base import EncodingJob
from mocme.encoders.catalog import encoder_of


def main() -> None:
    """Encode the texts with each unit into a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="graph, as for mocme.load")
    parser.add_argument("paths", nargs="+", help="tables of (entity, text), in the graph's folder")
    options = parser.parse_args()
    graph = mocme.load(options.data)
    with tempfile.TemporaryDirectory() as folder:
        for unit in ("words", "bigrams", "subwords"):
            table = {"kind": "words", "unit": unit, "paths": options.paths}
            job = EncodingJob(graph, unit, Path(graph.folder or "."), Path(folder))
            report = encoder_of(table, unit).encode(job)
            tokens, facts = (report.counts[k] for k in ("different tokens", "tokens of entities"))
            print(
                f"{unit}: {report.present:,} of {report.encoded:,} texts, {tokens:,} tokens, "
                f"{facts:,} facts, {report.seconds:.1f} s"
            )


if __name__ == "__main__":
    main()
