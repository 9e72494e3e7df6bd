"""How many tokens and facts words, bigrams and subwords of a graph's texts make, and how fast.

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
    """Encode the texts three ways, into a folder that goes afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="what mocme.load takes")
    parser.add_argument(
        "paths", nargs="+", help="tables of (entity, text), from the graph's folder"
    )
    arguments = parser.parse_args()
    graph = mocme.load(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        for unit in ("words", "bigrams", "subwords"):
            table = {"kind": "words", "unit": unit, "paths": arguments.paths}
            job = EncodingJob(graph, unit, Path(graph.folder or "."), Path(folder))
            made = encoder_of(table, unit).encode(job)
            tokens, facts = (made.counts[k] for k in ("different tokens", "tokens of entities"))
            print(
                f"{unit}: {made.present:,} of {made.encoded:,} texts, {tokens:,} tokens, {facts:,} "
                f"facts, {made.seconds:.1f} s"
            )


if __name__ == "__main__":
    main()
