// Charts over time with uPlot, in the page's colours, with one crosshair through all of them.
import uPlot from "../vendor/uplot.js";
import { html, useEffect, useRef } from "./ui.js";
import { language, t } from "./words.js";

const HEIGHT = 192;
// Seconds that a chart shows: all 15 minutes, or less if the server is younger.
const MOST = 900;
const LEAST = 120;
const TOGETHER = "live";

function look() {
  const style = getComputedStyle(document.documentElement);
  // The names are light-dark() pairs, which a canvas does not read: let an element resolve them.
  const probe = document.createElement("i");
  document.body.append(probe);
  const resolved = (name) => {
    probe.style.color = style.getPropertyValue(name);
    return getComputedStyle(probe).color;
  };
  const found = { quiet: resolved("--quiet"), line: resolved("--line") };
  probe.remove();
  return found;
}

function axes({ quiet, line }, format) {
  const common = { stroke: quiet, font: "12px system-ui, sans-serif", ticks: { show: false }, grid: { stroke: line, width: 1 } };
  const clock = new Intl.DateTimeFormat(language.value, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  return [
    { ...common, grid: { show: false }, size: 24, space: 64, values: (_plot, ticks) => ticks.map((at) => clock.format(at * 1000)) },
    { ...common, size: 56, space: 32, values: (_plot, ticks) => ticks.map(format) },
  ];
}

// Series on top of each other: each one's values with those below it added, the last first.
function stacked(series) {
  const sums = [];
  for (const one of series) {
    const below = sums.at(-1);
    sums.push(one.values.map((value, at) => value + (below?.[at] ?? 0)));
  }
  return sums;
}

// `series` is [{ name, colour, values, dash }]; `times` are Unix seconds. `stack` fills them on top of each other.
export function Chart({ title, unit, times, series, format, stack = false, max = null }) {
  const box = useRef(null);
  const plot = useRef(null);
  const shape = JSON.stringify([series.map((one) => [one.name, one.colour, one.dash]), language.value, matchMedia("(prefers-color-scheme: dark)").matches]);
  const values = stack ? stacked(series) : series.map((one) => one.values);
  const data = [times, ...(stack ? [...values].reverse() : values)];
  const empty = !series.some((one) => one.values.some((value) => value > 0));
  useEffect(() => {
    if (empty) return undefined;
    const place = box.current;
    const drawn = stack ? [...series].reverse() : series;
    const options = {
      width: place.clientWidth, height: HEIGHT, axes: axes(look(), format), legend: { show: false }, pxAlign: 0, padding: [12, 8, 0, 0],
      cursor: { sync: { key: TOGETHER }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { range: (_plot, low, high) => [high - Math.min(MOST, Math.max(LEAST, high - low)), high] }, y: { range: (_plot, _low, high) => [0, max ?? (high || 1) * 1.1] } },
      series: [{}, ...drawn.map((one) => ({ label: one.name, stroke: one.colour, width: 1.5, dash: one.dash, points: { show: false }, fill: stack ? one.colour : undefined }))],
      hooks: { setCursor: [(self) => point(self, place, drawn, format, stack)] },
    };
    plot.current = new uPlot(options, data, place);
    const watch = new ResizeObserver(() => plot.current?.setSize({ width: place.clientWidth, height: HEIGHT }));
    watch.observe(place);
    return () => {
      watch.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [shape, empty]);
  useEffect(() => {
    plot.current?.setData(data);
  }, [times, shape, empty]);
  const now = series.map((one) => [one.name, one.values.at(-1)]);
  const said = now.map(([name, value]) => `${name} ${value === null || value === undefined ? "–" : format(value)}`).join(", ");
  return html`<figure class="chart"><figcaption><h2>${title} ${unit && html`<span class="quiet">${unit}</span>`}</h2>
      <ul class="key">${!empty && series.map((one) => html`<li key=${one.name}><i class=${`swatch ${one.dash ? "dashed" : ""}`} style=${{ background: one.colour }}></i>${one.name} <b data-name=${one.name}>${one.values.at(-1) === null || one.values.at(-1) === undefined ? "–" : format(one.values.at(-1))}</b></li>`)}</ul></figcaption>
    ${empty ? html`<p class="nothing">${t("nothingYet")}</p>`
      : html`<div class="plot" ref=${box} role="img" aria-label=${t("chartSays", { name: title, values: said })}></div>`}</figure>`;
}

// Put the values under the crosshair into the key; without one, the last.
function point(self, box, drawn, format, stack) {
  const at = self.cursor.idx ?? self.data[0].length - 1;
  const key = box.parentElement.querySelector(".key");
  drawn.forEach((one, place) => {
    const whole = self.data[place + 1][at];
    const below = stack ? self.data[place + 2]?.[at] ?? 0 : 0;
    const value = whole === null || whole === undefined ? null : whole - below;
    const cell = key.querySelector(`[data-name="${CSS.escape(one.name)}"]`);
    if (cell) cell.textContent = value === null ? "–" : format(value);
  });
}
