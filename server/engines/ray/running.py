"""The replicas that this process may route to, as reported to Ray's router.

This must be a separate module: Ray copies the router's class together with its module's variables, but
imports this module normally, so that all users share one `REPLICAS`.
"""

from __future__ import annotations

REPLICAS: dict[tuple[str, str], frozenset[str]] = {}
"""Maps each (application, deployment) to the ids of replicas. Sets are replaced, not changed: threads share
them.
"""
