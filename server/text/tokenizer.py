"""A base's tokenizer: converts text to tokens and back, and conversations to prompts.

Reads a Hugging Face folder with the `tokenizers` library alone. Streamed answers are decoded by
`detokenizer`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from adapters.files.tokenizerfile import tokenizer_file
from adapters.spiece.gpt_sw3 import CHAT_TEMPLATE, is_gpt_sw3, read_definition, special_tokens
from server.text.chat_template import BREAK, NO_ARGUMENTS, ChatTemplate, Message, TemplateError, Tool
from server.text.pieces import Pieces
from server.text.tool_formats import MISTRAL, ToolFormat
from server.text.tool_syntax import TOOL_CALLS

__all__ = ["Message", "TemplateError", "Tokenizer", "Tool"]

_ANCHOR = "\n"


class Tokenizer:
    """The tokenizer of one base. Its methods may be called from any thread."""

    def __init__(
        self,
        definition: str,
        special: Mapping[str, str],
        eos_ids: frozenset[int],
        chat_template: str | None = None,
        tool_template: str | None = None,
        tool_parser: str | None = None,
    ) -> None:
        """Build a tokenizer from `definition`, the text of a tokenizer.json.

        `special` maps the names `bos_token`, `eos_token`… to the tokens' texts. `tool_template` is a separate
        chat template for conversations with tools, if the base has one. `tool_parser` names the format of
        tool calls; see `ChatTemplate`.
        """
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(definition)
        except Exception as error:  # the library raises nothing more exact
            raise ValueError(f"tokenizer.json cannot be read: {error}; save or download it again") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pieces = Pieces(json.loads(definition).get("decoder"))
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token for token, about in added.items() if about.special)
        self._added = {about.content: token for token, about in added.items()}
        self._texts = {token: text for text, token in self._tokenizer.get_vocab().items()}
        self._vocabulary_size = max(self._texts) + 1
        self._rows = self._vocabulary_size
        """Number of rows of the base's embedding, some of which may only pad it."""
        self._bytes: dict[int, bytes] = {}
        self._anchor = self._ids(_ANCHOR)
        self.eos_ids = eos_ids
        """Ids of the tokens that end an answer."""
        self.bos_id = self._id_of(special.get("bos_token"))
        """Id of the token that begins a text; None if the tokenizer has none."""
        self.pad_id = self._id_of(special.get("pad_token"))
        self._template: ChatTemplate | None = None
        self._tool_template: ChatTemplate | None = None
        self._control_ids = frozenset[int]()
        if chat_template is not None:
            sources = chat_template + (tool_template or "")
            control = {
                token: about.content
                for token, about in added.items()
                if about.special or _is_markup(about.content, sources)
            }
            words = list(control.values())
            self._template = ChatTemplate(chat_template, special, words, tool_parser)
            self._tool_template = _for_tools(self._template, tool_template, special, words, tool_parser)
            # An unknown word is no control token, though it is listed with them.
            self._control_ids = frozenset(control) - {self._id_of(special.get("unk_token"))}

    @classmethod
    def load(cls, model_dir: Path, *, tool_parser: str | None = None) -> Tokenizer:
        """Read the tokenizer of the model in the folder `model_dir`.

        `tool_parser` names the format in which the base writes tool calls; by default, the format is found
        from the chat template. Raises `FileNotFoundError` or `ValueError`, and `BaseModelError` for an
        unsupported spiece.model.
        """
        if tokenizer_file(model_dir) is None:
            raise FileNotFoundError(_missing(model_dir))
        gpt_sw3 = is_gpt_sw3(model_dir)
        config = _read(model_dir / "tokenizer_config.json")
        own_template, for_tools = _chat_templates(model_dir, config)
        template = own_template if own_template is not None or not gpt_sw3 else CHAT_TEMPLATE
        special = _special_tokens(_read(model_dir / "special_tokens_map.json") | config)
        if gpt_sw3:
            special = special_tokens(model_dir)
        base = _read(model_dir / "config.json")
        eos = _eos_ids(_read(model_dir / "generation_config.json"), base)
        definition = read_definition(model_dir)
        tokenizer = cls(definition, special, eos, template, for_tools, tool_parser)
        if tool_parser == MISTRAL.name and tokenizer.added_id(TOOL_CALLS) is None:
            raise ValueError(
                f"tool_parser {tool_parser!r} needs a tokenizer with the token {TOOL_CALLS}, which this base "
                "does not have; use another tool_parser, or remove the setting"
            )
        if gpt_sw3 and own_template is None and tokenizer.bos_id is not None:
            eos |= {tokenizer.bos_id}  # it begins the next turn
            tokenizer.eos_ids = eos
        tokenizer._check_rows(base.get("vocab_size"))
        own = tokenizer._id_of(special.get("eos_token"))
        if own is not None:
            tokenizer.eos_ids = eos | {own}
        return tokenizer

    def _check_rows(self, rows: object) -> None:
        """Note the rows of the base's embedding. Raises `ValueError` if the tokenizer has more tokens."""
        if not isinstance(rows, int):
            return
        if self._vocabulary_size <= rows:
            self._rows = rows
            return
        token = self._texts[self._vocabulary_size - 1]
        raise ValueError(
            f"the tokenizer has token {self._vocabulary_size - 1} ({token[:40]!r}), but the base's embedding "
            f"has only {rows} rows (vocab_size); use the tokenizer that was saved with the base, or a base "
            "with a resized embedding"
        )

    @property
    def definition(self) -> str:
        """The text of the tokenizer.json, with padding and truncation switched off."""
        return self._tokenizer.to_str()

    @property
    def vocabulary_size(self) -> int:
        """Size of the vocabulary: one more than the highest token id."""
        return self._vocabulary_size

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, which decoded text leaves out."""
        return self._special_ids

    @property
    def takes_tools(self) -> bool:
        """True if the base's chat template can show tools to the model."""
        return self._tool_template is not None and self._tool_template.takes_tools

    @property
    def tool_format(self) -> ToolFormat | None:
        """The format in which the base writes tool calls; None if the chat template uses no supported
        format.
        """
        form = None if self._tool_template is None else self._tool_template.tool_format
        if (form is MISTRAL or (form is None and self.takes_tools)) and self.added_id(TOOL_CALLS) is not None:
            return MISTRAL
        return None if form is MISTRAL else form

    def tool_tokens(self, form: ToolFormat) -> dict[str, int]:
        """Map the control tokens of the tool call format `form` to their token ids, if decoded text leaves
        them out.
        """
        known = {token: self.added_id(token) for token in form.control}
        return {
            token: number
            for token, number in known.items()
            if number is not None and (form is MISTRAL or number in self._special_ids)
        }

    @property
    def template_arguments(self) -> frozenset[str]:
        """Variables of the chat template that a request may set, such as `enable_thinking`."""
        return frozenset() if self._template is None else self._template.arguments

    def added_id(self, token: str) -> int | None:
        """Return the id of a token that was added to the vocabulary, such as a control token; None if it is
        unknown.
        """
        return self._added.get(token)

    @property
    def leading_spaces(self) -> int:
        """Maximum number of spaces that are dropped from the beginning of a decoded text."""
        return self._pieces.leading_spaces

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Tokenize a raw prompt. Special tokens that are spelled out in `text` become special tokens."""
        return self._ids(text, add_special_tokens)

    def encode_within(self, piece: str) -> list[int]:
        """Tokenize a piece from the middle of a text, without the space that some tokenizers put before a
        text.
        """
        ids = self._ids(_ANCHOR + piece)
        count = len(self._anchor)
        return ids[count:] if ids[:count] == self._anchor else self._ids(piece)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Decode `ids` to text. An id of a row that only pads the base's embedding adds no text; a base can
        generate such ids. Raises `ValueError` for an id outside the vocabulary and these rows.
        """
        # A request can have hundreds of thousands of ids, so only the rare cases loop over them.
        known, highest = list(ids), max(ids, default=0)
        if highest >= self._rows or min(ids, default=0) < 0:
            wrong = next(token for token in ids if not 0 <= token < self._rows)
            raise ValueError(f"token id {wrong} is not in the base's vocabulary; use 0 to {self._rows - 1}")
        if highest >= self._vocabulary_size:
            known = [token for token in known if token < self._vocabulary_size]
        return self._tokenizer.decode(known, skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that the token adds to a text, which may be a part of a character. Empty for an
        unknown id.
        """
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._pieces.of(self._texts.get(token_id, ""))
        return known

    def name_of(self, token_id: int) -> str:
        """Return the token's text as written in tokenizer.json; empty for an unknown id."""
        return self._texts.get(token_id, "")

    def first_bytes(self, token_id: int) -> bytes:
        """Return the bytes that the token adds if it begins a text."""
        return self._pieces.of(self._texts.get(token_id, ""), first=True)

    def token_text(self, token_id: int) -> str:
        """Return the text that the token adds, with U+FFFD for incomplete characters."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    def chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Tool] = (),
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> list[int]:
        """Tokenize a conversation as a prompt with the base's chat template. `arguments`: see
        `ChatTemplate.render`.

        A control token that is spelled out in a message or a tool is tokenized as ordinary letters, so a
        client can neither end a turn nor begin one. Raises `TemplateError` if the template refuses the
        messages, or if the base has no chat template.
        """
        if self._template is None:
            raise TemplateError(
                "this base has no chat template; use /v1/completions, or add a template to its folder"
            )
        about_tools = bool(tools) or any("tool_calls" in message for message in messages)
        template = self._tool_template if about_tools and self._tool_template else self._template
        text = template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            arguments=arguments,
        )
        first, *rest = text.split(BREAK)
        ids = self._ids(first)
        for piece in rest:
            ids += self.encode_within(piece)
        # A normaliser could turn text that spells no control token into a control token.
        written = sum(template.breaker.count(piece) for piece in (first, *rest))
        if sum(token in self._control_ids for token in ids) > written:
            raise TemplateError(
                "a message contains text that becomes a control token of this model when it is tokenized; "
                "remove it"
            )
        return ids

    def _ids(self, text: str, add_special_tokens: bool = False) -> list[int]:
        try:
            return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except TypeError:
            # JSON can spell half of a surrogate pair, which no UTF-8 can.
            whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            return self._tokenizer.encode(whole, add_special_tokens=add_special_tokens).ids

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._tokenizer.token_to_id(token)


def _for_tools(
    own: ChatTemplate,
    source: str | None,
    special: Mapping[str, str],
    control: Sequence[str],
    tool_parser: str | None,
) -> ChatTemplate:
    """Choose the chat template for conversations with tools.

    This is the template in `source` if it supports tools and the base's own chat template, `own`, does not;
    else `own`.
    """
    if source is None or own.takes_tools:
        return own
    try:
        other = ChatTemplate(source, special, control, tool_parser)
    except ValueError:  # a base is served by its own template, whatever others lie beside it
        return own
    return other if other.takes_tools else own


def _is_markup(word: str, chat_template: str) -> bool:
    """Return True if the chat template contains the added token `word`. Such a token counts as a control
    token.
    """
    return len(word) > 1 and not word.isspace() and word in chat_template


def _missing(model_dir: Path) -> str:
    name = model_dir.name
    if (model_dir / "tokenizer.model").is_file():
        return (
            f"the folder {name} has a SentencePiece tokenizer.model but no tokenizer.json; convert it once, "
            "where "
            "transformers and sentencepiece are installed, with AutoTokenizer.from_pretrained(FOLDER)"
            ".save_pretrained(FOLDER)"
        )
    return f"the folder {name} has no tokenizer.json; download it from the model's source"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path.name} in the base's folder is not JSON: {error}; download it again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} in the base's folder is not a JSON object; download it again")
    return content


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    special: dict[str, str] = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
        match config.get(name):
            case str(token) | {"content": str(token)}:
                special[name] = token
            case _:
                pass
    return special


def _eos_ids(*configs: Mapping[str, Any]) -> frozenset[int]:
    """Return the ids of end tokens, `eos_token_id`, from the first of `configs` that has any."""
    for config in configs:
        match config.get("eos_token_id"):
            case int(token):
                return frozenset({token})
            case list() as tokens if tokens:
                return frozenset(int(token) for token in tokens)
            case _:
                pass
    return frozenset()


def _chat_templates(model_dir: Path, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Read a folder's chat template and its separate template for conversations with tools, each None if
    missing.
    """
    path = model_dir / "chat_template.jinja"
    if path.is_file():
        for_tools = model_dir / "additional_chat_templates" / "tool_use.jinja"
        return path.read_text("utf-8"), for_tools.read_text("utf-8") if for_tools.is_file() else None
    match config.get("chat_template"):
        case None:
            return None, None
        case str(template):
            return template, None
        case list() as named:
            templates = {
                str(entry.get("name")): template
                for entry in named
                if isinstance(entry, dict) and isinstance(template := entry.get("template"), str)
            }
            if "default" in templates:
                return templates["default"], templates.get("tool_use")
            raise ValueError(
                f"tokenizer_config.json's chat_template lists {sorted(templates)}, but no 'default'; "
                "add a template of this name"
            )
        case other:
            raise ValueError(
                f"tokenizer_config.json's chat_template is {type(other).__name__}; it must be a string"
            )
