"""The published benchmarks: where they lie, how they are fetched, verified and unpacked."""
