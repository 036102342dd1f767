"""Evaluate the router on texts of known language (`python -m routing.evaluate`). Only tests import this
package.
"""

from __future__ import annotations

from routing.evaluate.judge import RoutedText, percentages, route_texts
from routing.evaluate.report import main
from routing.evaluate.texts import LabelledText, read

__all__ = ["LabelledText", "RoutedText", "main", "percentages", "read", "route_texts"]
