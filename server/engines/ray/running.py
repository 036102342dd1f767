"""Holds the ids of the replicas that this process may send requests to, as Ray reports them to its router.

This must be a separate module: Ray copies the router's class together with its module's variables, but
imports this module normally, so that all users share one `REPLICAS`.
"""

from __future__ import annotations

REPLICAS: dict[tuple[str, str], frozenset[str]] = {}
"""Maps each (application name, deployment name) of Ray Serve to the ids of its replicas. Each set is
replaced, never changed, since several threads read it.
"""
