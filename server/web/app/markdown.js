// An answer's Markdown as markup that cannot run: marked makes it, DOMPurify alone lets it through.
import { Marked } from "../vendor/marked.js";
import DOMPurify from "../vendor/dompurify.js";
import { html, useMemo } from "./ui.js";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (text) => text.replace(/[&<>"']/g, (one) => ESCAPES[one]);

// Markup in an answer is shown as the text that it is, and a picture as its description: nothing is fetched.
const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ text, href }) => escaped(text || href),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "p", "br", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "hr", "a",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
  ],
  ALLOWED_ATTR: ["href", "align", "start", "target", "rel"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  // The others have to look like an address.
  ADD_URI_SAFE_ATTR: ["align", "start"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_TRUSTED_TYPE: true,
};

// Each of these is read from the side where its first letter begins.
const BLOCKS = /^(?:P|UL|OL|BLOCKQUOTE|H\d|TABLE|TH|TD)$/;

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (BLOCKS.test(node.tagName)) node.setAttribute("dir", "auto");
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

// An answer that is longer than this, or has so long a word, is shown as plain text: it would take long to parse.
const MOST = 200_000;
const LONG_WORD = /\S{2000}/;

// The markup of an answer; null if it is shown as plain text, as is one that is nested too deep.
function markupOf(text) {
  if (text.length > MOST || LONG_WORD.test(text)) return null;
  try {
    return DOMPurify.sanitize(marked.parse(text), ALLOWED);
  } catch {
    return null;
  }
}

export function Markdown({ text, lang }) {
  const markup = useMemo(() => markupOf(text), [text]);
  if (markup === null) return html`<div class="markdown" lang=${lang}><p class="raw" dir="auto">${text}</p></div>`;
  return html`<div class="markdown" lang=${lang} dangerouslySetInnerHTML=${{ __html: markup }}></div>`;
}
