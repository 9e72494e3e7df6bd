"""Benchmarks: experiments over graphs and seeds under one protocol, their results, and reports.

`spec` reads a benchmark's TOML file, `plan` lists its runs, `runner` starts what is missing, each
run in a `worker` process. `results` stores one archive per benchmark, from which `markdown` and
`plot` render tables and bars; `bootstrap` gives the intervals of the differences.
"""
