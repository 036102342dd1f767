"""From records to figures (percentiles, goodput, fairness, intervals) without I/O; `bench` imports it."""
