#!/bin/sh
# Write .env with new keys, and metrics-key, the file that Prometheus reads. An existing .env is kept, and gets the
# keys that it lacks.
set -eu
cd "$(dirname "$0")"

key() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

if [ ! -e .env ]; then
  (
    umask 077
    cat >.env <<EOF
# API keys of clients, separated by commas.
API_KEYS=$(key)
# Key with which Prometheus reads /metrics. The file metrics-key holds it too.
METRICS_KEY=$(key)
# Password of Grafana's user admin.
GRAFANA_PASSWORD=$(key)
# Folders on this machine with bases (each in Hugging Face layout) and with adapters.
#MODELS=./models
#LORA_ADAPTERS=./lora_adapters
# Ports on 127.0.0.1 of OneSeek, Prometheus and Grafana.
#PORT=8000
#PROMETHEUS_PORT=9090
#GRAFANA_PORT=3000
EOF
  )
fi
for name in API_KEYS METRICS_KEY GRAFANA_PASSWORD; do
  if ! grep -q "^$name=[^[:space:]]" .env; then
    if [ -n "$(tail -c 1 .env)" ]; then echo >>.env; fi
    echo "$name=$(key)" >>.env
  fi
done
# The last line counts, and quotes around the key do not belong to it, as in Docker Compose.
sed -n 's/^METRICS_KEY=//p' .env | tail -n 1 | tr -d '\r\n' | sed 's/^"\(.*\)"$/\1/; s/^'"'"'\(.*\)'"'"'$/\1/' >metrics-key
# Prometheus runs as another user, which must be able to read the file metrics-key.
chmod 0644 metrics-key
mkdir -p models lora_adapters
echo "The keys are in $(pwd)/.env. Next, run: docker compose up --build --detach"
