"""`mocme audit`: defects of a graph."""

from __future__ import annotations

from pathlib import Path

import click

from mocme.cli.options import common, echo_json
from mocme.core.console import echo, show


@click.command()
@click.argument("data")
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the audit to this HTML file.",
)
@click.option(
    "--repair",
    "out",
    type=click.Path(path_type=Path),
    help="Write the repaired splits to this new folder.",
)
@click.option(
    "--floors/--no-floors",
    default=True,
    show_default=True,
    help="Rank by frequency and by a lookup table, as baselines.",
)
@common("features", "threads", "json", "trust")
def audit(
    data: str,
    features: Path | None,
    page: Path | None,
    out: Path | None,
    floors: bool,
    threads: int | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """Count the defects of the graph DATA: repeated rows, leakage, unseen names, coverage."""
    from mocme.audit.audit import audit as audit_graph
    from mocme.audit.page import write_page
    from mocme.audit.table import summary_table
    from mocme.core.device import use_threads
    from mocme.data.load import load_raw
    from mocme.data.quality.repair import repair

    use_threads(threads)
    released = load_raw(data)
    result = audit_graph(released, features, ranked=floors, trust_code=trust_code)
    changes = None if out is None else repair(released, out)
    if page is not None:
        write_page(result, page)
    if as_json:
        changes_text = None if changes is None else [str(change) for change in changes]
        echo_json({**result.as_dict(), "changes": changes_text})
        return
    show(summary_table(result))
    if result.not_encoded:
        names = ", ".join(result.not_encoded)
        echo(f"not encoded yet: {names}; run: mocme encode all {released.graph.folder}")
    if page is not None:
        echo(f"page written to {page}")
    if changes is not None:
        echo("\n".join(map(str, changes)) or "nothing to repair")
        echo(f"repaired graph written to {out}")
