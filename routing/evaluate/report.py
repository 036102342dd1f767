"""Print each evaluation figure with its confidence interval and number of texts, and then all figures as one
line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from routing.evaluate.conversations import JUNK, judge_conversations
from routing.evaluate.judge import FIGURES, Judge, Proportion, RoutedText, percentages, route_texts, shares
from routing.evaluate.kinds import PARTS, made_kinds, plain_letters, share_right
from routing.evaluate.speed import langdetect_percentiles, percentiles
from routing.evaluate.texts import KEPT_BACK, OWN, LabelledText, read
from routing.evaluate.topics import judge_topics

SWEDISH_BROWSER = "sv-SE,sv;q=0.9,en-US;q=0.8,en;q=0.7"
CHAT = frozenset({"chat", "messages", "tatoeba", "home-assistant"})
"""Names of the text files, without .tsv, that hold chat messages. If none of them is evaluated, all texts
count as chat.
"""

Rows = dict[str, dict[str, Proportion]]


def judge_texts(texts: Sequence[LabelledText], judged: Sequence[RoutedText]) -> Rows:
    """Compute the routing figures for each source of texts, and for all chat messages together."""
    rows: Rows = {}
    for source in dict.fromkeys(text.source for text in texts):
        rows[source] = shares([j for j in judged if j.labelled.source == source])
    chat = chat_of(texts)
    rows["chat, cold"] = shares([j for j in judged if j.labelled.source in {text.source for text in chat}])
    rows["chat behind a Swedish browser"] = shares(route_texts(chat, SWEDISH_BROWSER))
    shipped = Judge(without_evidence="en")
    rows["chat, as shipped"] = _to_english(chat, shipped) | {"nothing_said_to_english": _junk(shipped)}
    rows["chat, default: en"] = _to_english(chat, Judge(default="en"))
    rows["chat, plain letters"] = shares(route_texts(plain_letters(chat)))
    return {name: row for name, row in rows.items() if row}


def chat_of(texts: Sequence[LabelledText]) -> list[LabelledText]:
    """Return the texts from the files of chat messages, which `CHAT` names; all texts if there are none."""
    return [text for text in texts if text.source in CHAT] or list(texts)


def judge_kinds(folders: Sequence[Path], half: int | None, chat: Sequence[LabelledText]) -> Rows:
    """Compute the proportion of correct routes for constructed messages: with pasted text, code or names, and
    in conversations.
    """
    judge = Judge()
    rows: Rows = {}
    for folder in folders:
        if folder.joinpath(PARTS).is_dir():
            made = made_kinds(folder, half, chat)
            rows |= {name: share_right(judge, make()) for name, make in made.items()}
        topics = judge_topics(folder, half)
        rows |= {"topics": topics} if topics else {}
    conversations = judge_conversations(judge, chat)
    return rows | ({"conversations": conversations} if conversations else {})


def _to_english(chat: Sequence[LabelledText], judge: Judge) -> dict[str, Proportion]:
    judged = route_texts(chat, judge=judge)
    nordic = [j.adapter == "en" for j in judged if j.labelled.language in ("da", "nb", "nn", "no")]
    found = {name: share for name, share in shares(judged).items() if name.startswith("english_found")}
    return found | ({"nordic_to_english": Proportion(sum(nordic), len(nordic))} if nordic else {})


def _junk(judge: Judge) -> Proportion:
    return Proportion(sum(judge.adapter(text) == "en" for text in JUNK), len(JUNK))


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate the router with the command line's `arguments`. Print a line for each figure, and all figures
    as JSON.
    """
    parser = argparse.ArgumentParser(prog="python -m routing.evaluate", description="Judge the router.")
    text = "folders of .tsv files with labelled texts (default: the project's own)"
    parser.add_argument("folders", type=Path, nargs="*", default=[OWN], help=text)
    parser.add_argument("--half", choices=("0", "1", "all"), default=str(KEPT_BACK), help="half (default 1)")
    options = parser.parse_args(arguments)
    half = None if options.half == "all" else int(options.half)
    folders: list[Path] = options.folders
    texts = [text for folder in folders for text in read(folder, half)]
    if not texts:
        parser.error(
            f"no labelled text was found in {', '.join(map(str, folders))}; "
            "give folders of .tsv files with a label, a tab and a text on each line"
        )
    judged = route_texts(texts)
    rows = judge_texts(texts, judged) | judge_kinds(folders, half, chat_of(texts))
    print(f"half {options.half} of the texts: weights were fitted on half 0, and half 1 was kept back\n")
    print_rows(rows)
    print(json.dumps(summary(judged, rows)))


def print_rows(rows: Mapping[str, Mapping[str, Proportion]]) -> None:
    """Print a table with a line for each figure in `rows`: percentage, 95% interval and number of texts."""
    print(f"{'texts':34}{'figure':34}{'%':>7}   {'95% interval':18}{'N':>6}")
    for kind, row in rows.items():
        for name, share in row.items():
            low, high = share.interval
            figure = name.replace("_", " ")
            print(f"{kind:34}{figure:34}{share.percent:>7}   {f'{low} to {high}':18}{share.of:>6}")


def summary(judged: Sequence[RoutedText], rows: Mapping[str, Mapping[str, Proportion]]) -> dict[str, Any]:
    """Return the figures for JSON: percentages by source, hits and totals by kind, and the times."""
    by_source = {
        source: percentages([j for j in judged if j.labelled.source == source])
        for source in dict.fromkeys(j.labelled.source for j in judged)
    }
    times, beside = percentiles(judged), langdetect_percentiles(judged)
    print(
        f"\nroute: p50 {times['p50_ms']} ms, p99 {times['p99_ms']} ms; langdetect in the same run: {beside}"
    )
    sure = [j.right for j in judged if j.sure]
    return {
        "figures": FIGURES,
        "sources": by_source,
        "kinds": {
            kind: {name: [share.hits, share.of] for name, share in row.items()} for kind, row in rows.items()
        },
        **times,
        "langdetect": beside,
        "sure_share": Proportion(len(sure), len(judged)).percent,
        "sure_right": Proportion(sum(sure), max(len(sure), 1)).percent,
    }
