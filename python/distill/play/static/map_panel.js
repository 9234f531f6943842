// The panel of the map: its data, colours, legend, and the name of the dot under the pointer.

import { requestJson, runPath } from "./api.js";
import { onCanvas } from "./canvas.js";
import { SoundMap } from "./map.js";
import { MapData } from "./map_data.js";

const byId = (id) => document.getElementById(id);

export class MapPanel {
  /**
   * @param {{onPick: (source: object, how: boolean | "toggle") => void, onCommit: () => void,
   *   onDrag: (source: object, axes: Record<string, number>) => void}} handlers
   */
  constructor(run, handlers) {
    this.run = run;
    this.data = null;
    this.map = new SoundMap(byId("map"), {
      onPick: (i, how) => handlers.onPick(this.data.source(i), how),
      onDrag: (i, [x, y]) => handlers.onDrag(this.data.source(i), { 1: x, 2: y }),
      onCommit: handlers.onCommit,
      onHover: (i, x, y) => this.showTip(i, x, y),
      onFocusDot: (i) => this.focusDot(i),
      onColours: (legend) => this.showLegend(legend),
    });
    window.soundMap = { pixelOf: (i) => this.map.pixelOf(i) };
    byId("colour-by").addEventListener("change", (event) => this.map.colourBy(event.target.value));
    byId("zoom-in").addEventListener("click", () => this.map.zoom(1.5));
    byId("zoom-out").addEventListener("click", () => this.map.zoom(1 / 1.5));
    byId("zoom-all").addEventListener("click", () => this.map.zoom(0));
  }

  /** Load the map; `names` are those of the axes across and up. */
  async load(/** @type {string[]} */ names) {
    this.data = new MapData(await requestJson(runPath(this.run, "/map")));
    const { choices, count, of } = this.data;
    const select = byId("colour-by");
    const chosen = choices.some(([value]) => value === select.value) ? select.value : choices[0][0];
    select.replaceChildren(...choices.map(([value, label]) => new Option(label, value)));
    select.value = this.map.by = chosen;
    const chunks = count < of ? `${count} of ${of} chunks` : `${count} chunks`;
    const [across, up] = names.map((name) => name.replaceAll("_", " "));
    byId("map-count").textContent = `${chunks} · across: ${across}${up ? ` · up: ${up}` : ""}`;
    this.showWhether(true);
    this.map.colours = null;
    this.map.show(this.data);
  }

  /** There is no map without an analysis. */
  clear() {
    this.data = null;
    this.map.show(null);
    byId("map-count").textContent = "";
    byId("map-empty").textContent = "The map comes with the analysis.";
    this.showWhether(false);
  }

  showWhether(hasMap) {
    for (const id of ["map-zoom", "map-foot", "map-help"]) byId(id).hidden = !hasMap;
    byId("map-empty").hidden = hasMap;
    byId("map").tabIndex = hasMap ? 0 : -1;
  }

  mark(coordinates, sources) {
    this.map.mark([coordinates[0], coordinates[1] ?? 0], sources);
  }

  showTip(i, x, y) {
    const tip = byId("map-tip");
    tip.hidden = i < 0;
    if (i < 0) return;
    tip.textContent = this.data.describe(i, this.map.by);
    const isRight = x > byId("map").clientWidth / 2;
    tip.style.transform = `translate(${x}px, ${y}px) translate(${isRight ? "calc(-100% - 12px)" : "12px"}, -50%)`;
  }

  focusDot(i) {
    this.showTip(i, ...this.map.view.ofDot(i));
    byId("map-said").textContent = this.data.describe(i, this.map.by);
  }

  showLegend({ entries, table, low, high }) {
    const root = byId("map-legend");
    if (entries) {
      const made = entries.map(([name, colour]) => {
        const entry = Object.assign(document.createElement("span"), { className: "entry", textContent: name });
        entry.style.setProperty("--colour", colour);
        return entry;
      });
      root.replaceChildren(...made);
      return;
    }
    const canvas = Object.assign(document.createElement("canvas"), { className: "scale" });
    canvas.setAttribute("aria-hidden", "true");
    root.replaceChildren(low, canvas, high);
    onCanvas(canvas, (context, width, height) => {
      for (let x = 0; x < width; x++) {
        const at = 3 * Math.round((255 * x) / Math.max(1, width - 1));
        context.fillStyle = `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
        context.fillRect(x, 0, 1.5, height);
      }
    });
  }
}
