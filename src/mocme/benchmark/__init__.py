"""Benches: experiments over graphs and seeds by one protocol, their results, and pages of them."""
