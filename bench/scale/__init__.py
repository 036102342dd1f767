"""A model of a fleet, driven by measured step times: what a load needs, at what latency and cost."""
