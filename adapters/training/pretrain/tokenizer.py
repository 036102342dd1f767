"""Train a BPE tokenizer with byte fallback, in the style of Mistral's, and write it as `tokenizer.json`.

A space before a word becomes `▁`, as part of the word's token. Characters outside the vocabulary become the
byte tokens `<0x00>` to `<0xFF>`, so decoding returns every text in Unicode's composed form (NFC). `[INST]`
and `[/INST]` are single tokens that absorb the spaces next to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from adapters.training.loop.packing import BEGIN, END, END_INSTRUCTION, INSTRUCTION

UNKNOWN = "<unk>"

CHAT_TEMPLATE = """\
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] + '\\n\\n' -%}{%- set turns = messages[1:] -%}
{%- else -%}
{%- set system = '' -%}{%- set turns = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('After an optional system message the roles must alternate: user, assistant, user, ...') -}}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- '[INST] ' + (system if loop.first else '') + message['content'] + ' [/INST]' -}}
{%- elif message['role'] == 'assistant' -%}
{{- ' ' + message['content'] + eos_token -}}
{%- else -%}
{{- raise_exception('The roles are system (first alone), user and assistant.') -}}
{%- endif -%}
{%- endfor -%}
"""  # noqa: E501


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[^\p{L}\p{M}▁']"), "isolated"),
        ]
    )


def train_tokenizer(texts: Iterable[str], vocabulary: int, alphabet: int = 160) -> Tokenizer:
    """Train a tokenizer with a vocabulary of `vocabulary` tokens, of which at most `alphabet` are single
    characters learned from the texts.
    """
    normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fixed = [UNKNOWN, BEGIN, END, *(f"<0x{byte:02X}>" for byte in range(256)), INSTRUCTION, END_INSTRUCTION]
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    learner.pre_tokenizer = _pre_tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary - len(fixed), limit_alphabet=alphabet, min_frequency=2, show_progress=False
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    vocab = {piece: n for n, piece in enumerate([*fixed, *pieces])}
    merges = [tuple(pair) for pair in learned["merges"]]

    made = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = normalizer  # pyright: ignore[reportAttributeAccessIssue]
    made.pre_tokenizer = _pre_tokenizer()  # pyright: ignore[reportAttributeAccessIssue]
    made.decoder = decoders.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in (UNKNOWN, BEGIN, END)]
    )
    made.add_special_tokens(
        [
            AddedToken(INSTRUCTION, normalized=False, special=True, lstrip=True, rstrip=True),
            AddedToken(END_INSTRUCTION, normalized=False, special=True, lstrip=True, rstrip=True),
        ]
    )
    made.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN} $B", special_tokens=[(BEGIN, vocab[BEGIN])]
    )
    return made


def save(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json`, and `tokenizer_config.json` with the chat template, into `folder`. `context` is
    the maximum number of tokens of the model.
    """
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "pad_token": END,
        "padding_side": "left",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, ensure_ascii=False, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
