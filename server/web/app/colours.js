// Voices have colours, the same everywhere: Okabe–Ito's, told apart by colour-blind people too.
import { aliases } from "./server.js";

const HUES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#7a5195"];
const GREY = "#8a8f98";
const BLEND = "#6574b5";

// The colour of `alias`, `alias@version`, `base:alias` or `base`. Versions but the active one are paler.
export function colour(name) {
  if (name === "blend") return BLEND;
  if (!name || name === "base") return GREY;
  const [alias, version] = name.slice(name.indexOf(":") + 1).split("@");
  const known = aliases.value;
  const place = known.findIndex((one) => one.alias.toLowerCase() === alias.toLowerCase());
  if (place < 0) return GREY;
  const hue = HUES[place % HUES.length];
  const { active, versions } = known[place];
  if (!version || version === active) return hue;
  const step = versions.findIndex((one) => one.version === version);
  return `color-mix(in oklab, ${hue} ${Math.max(35, 75 - 12 * step)}%, var(--mixed))`;
}

// "sv=0.7,en=0.3" as [["sv", 0.7], ["en", 0.3]]; a name alone has the weight 1.
export function parts(name) {
  return name.split(",").map((term) => {
    const [voice, weight] = term.split("=");
    return [voice.trim(), weight === undefined ? 1 : Number(weight)];
  });
}
