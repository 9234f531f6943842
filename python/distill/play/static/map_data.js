// What the map shows: a dot for each training sound, its place, its colour and its name.

import { categories, colourAt, ramps, styled } from "./colours.js";

const FOLDERS = 9;
const EDGE = 18;

const words = (name) => name.replaceAll("_", " ");
const digits = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3)).replace("-", "−");

/** A feature with its unit; logarithms are shown as what they are of. */
function inUnit(value, unit, hasUnit = true) {
  const [number, name] = unit.startsWith("log2 ") ? [2 ** value, unit.slice(5)] : [value, unit];
  return digits(number) + (hasUnit ? ` ${name}` : "");
}

/** From the 3rd to the 97th percentile: a few extreme sounds would leave one colour for all others. */
function span(values) {
  const sorted = values.filter((value) => value !== null && Number.isFinite(value)).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  return [sorted[Math.floor(0.03 * (sorted.length - 1))], sorted[Math.ceil(0.97 * (sorted.length - 1))]];
}

export class MapData {
  /** @param reply what the server says of the map */
  constructor(reply) {
    Object.assign(this, { files: reply.files, file: reply.file, offset: reply.offset, features: reply.features });
    this.of = reply.of;
    this.chunkS = reply.chunk_s;
    this.count = reply.shown;
    [this.x, this.y] = [reply.coordinates[0], reply.coordinates[1] ?? reply.coordinates[0].map(() => 0)];
    this.folders = this.file.map((file) => this.folderOf(file));
    this.names = [...new Set(this.folders)];
  }

  folderOf(file) {
    const parts = this.files[file].split("/");
    return parts.length > 1 ? parts[0] : "";
  }

  /** What dots can be coloured by, as [value, label]. */
  get choices() {
    const features = Object.keys(this.features).map((name) => [name, words(name)]);
    // One folder says nothing.
    return this.names.length > 1 ? [["folder", "folder"], ...features] : [...features, ["folder", "folder"]];
  }

  source(i) {
    return { kind: "dataset", name: this.files[this.file[i]], offset: this.offset[i] };
  }

  /** The number of the dot of a source, or -1. */
  find(source) {
    if (source?.kind !== "dataset") return -1;
    const file = this.files.indexOf(source.name);
    if (file < 0) return -1;
    let best = -1;
    for (let i = 0; i < this.count; i++) {
      if (this.file[i] !== file || Math.abs(this.offset[i] - source.offset) > this.chunkS / 2) continue;
      best = i;
      if (this.offset[i] === source.offset) break;
    }
    return best;
  }

  name(i) {
    const offset = this.offset[i] ? ` @ ${Math.round(100 * this.offset[i]) / 100} s` : "";
    return this.files[this.file[i]] + offset;
  }

  /** A line about a dot: its name, and the feature that dots are coloured by. */
  describe(i, by) {
    const feature = this.features[by];
    const value = feature?.values[i];
    return value == null ? this.name(i) : `${this.name(i)} · ${inUnit(value, feature.unit)}`;
  }

  /** The colour of each dot as a number, and the list of colours, last one for dots without a value; with a legend. */
  colours(by) {
    return this.features[by] ? this.byFeature(this.features[by]) : this.byFolder();
  }

  byFeature({ values, unit }) {
    const table = ramps("feature");
    const [low, high] = span(values);
    const steps = 64;
    const list = Array.from({ length: steps }, (_, i) => colourAt(table, i / (steps - 1)));
    list.push(styled("--dim"));
    const of = values.map((value) => {
      if (value === null || !Number.isFinite(value)) return steps;
      return Math.round((steps - 1) * Math.max(0, Math.min(1, (value - low) / (high - low || 1))));
    });
    return { of, list, legend: { table, low: inUnit(low, unit, false), high: inUnit(high, unit) } };
  }

  byFolder() {
    const counts = new Map();
    for (const folder of this.folders) counts.set(folder, (counts.get(folder) ?? 0) + 1);
    const largest = [...counts].sort((a, b) => b[1] - a[1]).slice(0, FOLDERS).map(([folder]) => folder);
    const list = categories(largest.length);
    list.push(styled("--dim"));
    const number = new Map(largest.map((folder, i) => [folder, i]));
    const of = this.folders.map((folder) => number.get(folder) ?? largest.length);
    const entries = largest.map((folder, i) => [folder || "no folder", list[i]]);
    if (counts.size > largest.length) entries.push([`${counts.size - largest.length} more`, list[largest.length]]);
    return { of, list, legend: { entries } };
  }
}

/** Where coordinates are on a canvas: the whole map fits, then it is zoomed and moved. */
export class MapView {
  constructor() {
    this.home();
  }

  home() {
    [this.zoom, this.dx, this.dy] = [1, 0, 0];
  }

  fit(data, width, height) {
    const ends = (values) => values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const [left, right] = ends(data.x);
    const [low, high] = ends(data.y);
    this.scaleX = (width - 2 * EDGE) / (right - left || 1);
    this.scaleY = (height - 2 * EDGE) / (high - low || 1);
    this.originX = EDGE - left * this.scaleX;
    this.originY = EDGE + high * this.scaleY;
    this.xs = Float32Array.from(data.x, (x) => this.originX + x * this.scaleX);
    this.ys = Float32Array.from(data.y, (y) => this.originY - y * this.scaleY);
  }

  /** The place on the canvas of a place on the map that is not zoomed. */
  toCanvas = (x, y) => [x * this.zoom + this.dx, y * this.zoom + this.dy];
  fromCanvas = (x, y) => [(x - this.dx) / this.zoom, (y - this.dy) / this.zoom];
  ofDot = (i) => this.toCanvas(this.xs[i], this.ys[i]);
  ofCoordinates = (x, y) => this.toCanvas(this.originX + x * this.scaleX, this.originY - y * this.scaleY);

  toCoordinates(x, y) {
    const [u, v] = this.fromCanvas(x, y);
    return [(u - this.originX) / this.scaleX, (this.originY - v) / this.scaleY];
  }

  /** Zoom about a place of the canvas, which stays where it is. */
  zoomBy(factor, x, y) {
    const zoom = Math.max(1, Math.min(60, this.zoom * factor));
    const [u, v] = this.fromCanvas(x, y);
    this.zoom = zoom;
    [this.dx, this.dy] = [x - u * zoom, y - v * zoom];
  }

  /** Move the map, but never out of view. */
  panBy(dx, dy, width, height) {
    this.dx = Math.min(0, Math.max(width * (1 - this.zoom), this.dx + dx));
    this.dy = Math.min(0, Math.max(height * (1 - this.zoom), this.dy + dy));
  }
}
