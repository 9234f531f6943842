// Colour maps that are perceptually even: they are interpolated in OKLab.

export const scheme = matchMedia("(prefers-color-scheme: dark)");

const toLinear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const toEncoded = (value) => (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055);

function fromHex(hex) {
  const [r, g, b] = [1, 3, 5].map((at) => toLinear(parseInt(hex.slice(at, at + 2), 16) / 255));
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function toRgb([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((value) => Math.round(255 * toEncoded(Math.max(0, Math.min(1, value)))));
}

/** A colour map of 256 colours through the given ones, [256 × 3] bytes. */
function ramp(hexes) {
  const stops = hexes.map(fromHex);
  const table = new Uint8ClampedArray(256 * 3);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const k = Math.min(Math.floor(at), stops.length - 2);
    table.set(toRgb(stops[k].map((value, c) => value + (at - k) * (stops[k + 1][c] - value))), 3 * i);
  }
  return table;
}

const RAMPS = {
  level: {
    light: ramp(["#fbf9f4", "#d6e6dc", "#8cc0ae", "#2f827a", "#1c4857", "#171c2c"]),
    dark: ramp(["#101417", "#15323b", "#1f6c6c", "#74b184", "#f0d48c", "#fffaf0"]),
  },
  deviation: {
    light: ramp(["#8f4a12", "#d9a066", "#fbf9f4", "#74a9c9", "#1c4f78"]),
    dark: ramp(["#ffc98a", "#a8632a", "#101417", "#2d6d96", "#a9d9f5"]),
  },
  feature: {
    light: ramp(["#440154", "#3b528b", "#21918c", "#4fae5c", "#b3b52b"]),
    dark: ramp(["#6a4fa3", "#4a76b8", "#2fa79f", "#6fcf6d", "#fde725"]),
  },
};

/** The colour map of that name for the present scheme, [256 × 3] bytes. */
export const ramps = (/** @type {"level" | "deviation" | "feature"} */ name) =>
  RAMPS[name][scheme.matches ? "dark" : "light"];

/** The colour of a colour map at 0 … 1. */
export function colourAt(table, share) {
  const i = 3 * Math.round(255 * Math.max(0, Math.min(1, share)));
  return `rgb(${table[i]} ${table[i + 1]} ${table[i + 2]})`;
}

/** Colours of equal lightness that are easily told apart. */
export function categories(/** @type {number} */ count) {
  const [lightness, chroma] = scheme.matches ? [0.76, 0.13] : [0.56, 0.14];
  return Array.from({ length: count }, (_, i) => {
    const hue = (2 * Math.PI * ((i * 0.381966) % 1)) + 3.1;
    return `rgb(${toRgb([lightness, chroma * Math.cos(hue), chroma * Math.sin(hue)]).join(" ")})`;
  });
}

/** The value of a custom property of the style sheet. */
export const styled = (/** @type {string} */ name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();
