"""The published benchmarks: where they are, how they are downloaded, verified and converted."""
