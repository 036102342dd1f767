#!/bin/sh
# Write .env with new keys, and metrics-key, the file that Prometheus reads. An existing .env is kept.
set -eu
cd "$(dirname "$0")"

key() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

if [ ! -e .env ]; then
  (
    umask 077
    cat >.env <<EOF
# Keys of clients, with commas between them.
API_KEYS=$(key)
# The key by which Prometheus reads /metrics; metrics-key has it too.
METRICS_KEY=$(key)
# Of Grafana's user admin.
GRAFANA_PASSWORD=$(key)
# Folders on this machine with bases (each in Hugging Face layout) and with adapters.
#MODELS=./models
#LORA_ADAPTERS=./lora_adapters
# Ports on 127.0.0.1.
#PORT=8000
#PROMETHEUS_PORT=9090
#GRAFANA_PORT=3000
EOF
  )
fi
# Prometheus runs as another user, which must be able to read the file.
sed -n 's/^METRICS_KEY=//p' .env | tr -d '\n' >metrics-key
chmod 0644 metrics-key
mkdir -p models lora_adapters
echo "Keys are in $(pwd)/.env. Next: docker compose up --build --detach"
