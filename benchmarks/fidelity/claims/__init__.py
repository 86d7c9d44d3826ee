"""One file for each claim, with a `CLAIM`; `benchmarks.fidelity.registry` lists them."""
