"""Simulate a fleet of servers with measured step times: how many replicas a load needs, and its latency and
cost.
"""
