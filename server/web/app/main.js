// The page: a rail of views, the one that is open, and what stands above all of them.
import { Component, html, Icon, render, signal, useEffect } from "./ui.js";
import { asked, online } from "./api.js";
import { Adapters } from "./adapters.js";
import { Ask } from "./ask.js";
import { Compare } from "./compare.js";
import { KeyDialog } from "./keys.js";
import { Live } from "./live.js";
import { refresh } from "./server.js";
import { language, speak, t } from "./words.js";

const VIEWS = { ask: Ask, compare: Compare, adapters: Adapters, live: Live };
const here = signal(read());

// "#/adapters/sv" as ["adapters", "sv"]. Any other address is the view Ask.
function read() {
  const [view, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  if (!Object.hasOwn(VIEWS, view)) return ["ask", ""];
  try {
    return [view, decodeURIComponent(rest.join("/"))];
  } catch {
    return [view, ""];
  }
}

addEventListener("hashchange", () => {
  here.value = read();
});

// A view that fails says so, and the others still open.
class Guard extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ failed: error.message });
  }

  render() {
    const { failed } = this.state;
    return failed ? html`<div class="wide"><p class="failure" role="alert">${t("broke")} ${failed}</p></div>` : this.props.children;
  }
}

function Page() {
  const [view, rest] = here.value;
  const View = VIEWS[view];
  useEffect(() => {
    document.title = `${t(view)} · OneSeek`;
  }, [view, language.value]);
  return html`<a class="skip" href="#content" onClick=${(event) => { event.preventDefault(); document.getElementById("content").focus(); }}>${t("skip")}</a>
    <nav class="rail" aria-label=${t("views")}>
      <span class="name" translate="no">OneSeek</span>
      ${Object.keys(VIEWS).map((name) => html`<a key=${name} href=${`#/${name}`} aria-current=${name === view ? "page" : undefined}><${Icon} name=${name} />${t(name)}</a>`)}
      <span class="space"></span>
      <button type="button" class="plain" onClick=${() => { asked.value = { why: "own", said: "" }; }}><${Icon} name="key" />${t("keyButton")}</button>
      <button type="button" class="plain other" lang=${language.value === "en" ? "sv" : "en"} onClick=${() => speak(language.value === "en" ? "sv" : "en")}>${t("otherLanguage")}</button>
      <a class="other" href="docs">${t("api")}</a>
    </nav>
    <main id="content" tabindex="-1" class=${online.value ? "" : "stale"}>
      <p class="gone" role="status">${online.value ? "" : t("retrying")}</p>
      <${Guard} key=${view}><${View} rest=${rest} /><//>
    </main>
    <${KeyDialog} />`;
}

render(html`<${Page} />`, document.getElementById("app"));
refresh();
