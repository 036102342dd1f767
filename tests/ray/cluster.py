"""A Ray cluster on this machine that serves OneSeek until its standard input ends.

    python -m tests.ray.cluster oneseek.yaml 8123 --replicas 2

It says `ready` once it answers. Run it in the environment of `tests.ray.environment`.
"""

# Ray is not installed where types are checked, so everything of its is unknown there.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Start, say so, wait, and take everything down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("port", type=int)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument(
        "--most", type=int, default=0, help="replicas up to which it scales; default: none more"
    )
    parser.add_argument("--scale-after", type=float, default=0, help="seconds of load; default: as it is")
    arguments = parser.parse_args()
    # The processes that Ray starts have this environment: before it is imported.
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Else 15, and whatever else runs here comes first.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own spelling
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    import ray
    from ray import serve

    from deploy.ray.app import build

    # Ray's sockets lie beneath it, and their paths may have some hundred characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        ray.init(num_cpus=8, include_dashboard=False, _temp_dir=folder, object_store_memory=100 * 2**20)
        serve.start(http_options={"host": "127.0.0.1", "port": arguments.port})
        given = {
            "config": arguments.config,
            "min_replicas": arguments.replicas,
            "max_replicas": max(arguments.replicas, arguments.most),
        }
        if arguments.scale_after:
            given |= dict.fromkeys(("upscale_seconds", "downscale_seconds"), arguments.scale_after)
        application = build(given)
        serve.run(application, name="oneseek")
        print("ready", flush=True)
        sys.stdin.read()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
