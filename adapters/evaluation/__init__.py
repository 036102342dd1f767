"""Evaluate adapters: identity questions, a judge of the answers, scores and confidence intervals. It does not
import torch, so every package may import it.
"""
