"""Judging the router on labelled text (`python -m routing.evaluate`); only tests import it."""

from __future__ import annotations

from routing.evaluate.judge import RoutedText, percentages, route_texts
from routing.evaluate.report import main
from routing.evaluate.texts import LabelledText, read

__all__ = ["LabelledText", "RoutedText", "main", "percentages", "read", "route_texts"]
