"""The engine whose replicas run on a Ray cluster, without HTTP; only composition imports it."""
