"""Generate OneSeek's Grafana dashboard: `python -m deploy.grafana` writes `oneseek.json`, which you import or
provision in Grafana.
"""
