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
  renderer: { html: ({ text }) => escaped(text), image: ({ text, href }) => escaped(text || href) },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "p", "br", "strong", "em", "del", "code", "pre", "blockquote", "ul", "ol", "li", "hr", "a",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
  ],
  ALLOWED_ATTR: ["href", "align", "start", "target", "rel"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_TRUSTED_TYPE: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

// Longer than this, an answer is shown as plain text: it is parsed again with every piece that comes.
const MOST = 200_000;

export function Markdown({ text, lang }) {
  const markup = useMemo(() => (text.length > MOST ? null : DOMPurify.sanitize(marked.parse(text), ALLOWED)), [text]);
  if (markup === null) return html`<div class="markdown" lang=${lang}><pre>${text}</pre></div>`;
  return html`<div class="markdown" lang=${lang} dangerouslySetInnerHTML=${{ __html: markup }}></div>`;
}
