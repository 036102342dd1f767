"""Health check of the Docker image: exit with 0 if the server in this container is ready, else with 1. It
needs no curl.

The check uses the port in the environment variable `ONESEEK_PORT`. If you set the port in a configuration
file instead, provide your own health check.
"""

import os
import sys
import urllib.request
from urllib.error import URLError


def main() -> int:
    """Return 0 if the server's `/ready` answers with status 200, else 1."""
    url = f"http://127.0.0.1:{os.environ.get('ONESEEK_PORT') or 8000}/ready"
    # No proxy stands between a container and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=4):
            return 0
    except (URLError, OSError) as error:
        print(f"{url}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
