// The map of the training sounds: draws it, and turns clicks, drags and keys into sounds to play.

import { onCanvas } from "./canvas.js";
import { styled } from "./colours.js";
import { MapView } from "./map_data.js";
import { Nearest } from "./nearest.js";

const CLICK_PX = 4;
const REACH_PX = 16;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class SoundMap {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{onPick: (i: number, isOriginal: boolean) => void, onCommit: () => void,
   *   onDrag: (i: number, along: [number, number]) => void, onHover: (i: number, x: number, y: number) => void,
   *   onFocusDot: (i: number) => void, onColours: (legend: object) => void}} handlers
   */
  constructor(canvas, handlers) {
    this.canvas = canvas;
    this.handlers = handlers;
    this.view = new MapView();
    this.data = null;
    this.by = "folder";
    this.hovered = -1;
    this.focused = -1;
    this.present = null;
    this.sources = [];
    this.pointers = new Map();
    this.layer = document.createElement("canvas");
    this.isStale = true;
    this.redraw = onCanvas(canvas, (context, width, height, isNew) => this.draw(context, width, height, isNew));
    this.listen();
  }

  show(/** @type {import("./map_data.js").MapData | null} */ data) {
    this.data = data;
    this.focused = this.hovered = -1;
    this.index = null;
    this.view.home();
    this.refresh();
  }

  colourBy(/** @type {string} */ name) {
    this.by = name;
    this.colours = null;
    this.refresh();
  }

  /** Mark where the present sound is, and the sounds that it starts from. */
  mark(coordinates, sources) {
    this.present = coordinates;
    this.sources = this.data ? sources.map((source) => this.data.find(source)) : [];
    this.redraw();
  }

  /** Where a dot is in the window; null if it is not in view. */
  pixelOf(i) {
    if (!this.data || !(i >= 0 && i < this.data.count)) return null;
    this.layOut();
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = this.view.ofDot(i);
    return x < 0 || y < 0 || x > box.width || y > box.height ? null : { x: box.left + x, y: box.top + y };
  }

  zoom(factor) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.zoomAt(factor, width / 2, height / 2);
  }

  zoomAt(factor, x, y) {
    if (!this.data) return;
    if (factor === 0) this.view.home();
    else this.view.zoomBy(factor, x, y);
    this.panBy(0, 0);
  }

  panBy(dx, dy) {
    this.view.panBy(dx, dy, this.canvas.clientWidth, this.canvas.clientHeight);
    this.refresh();
  }

  /** The dots are drawn again, not only what lies over them. */
  refresh() {
    this.isStale = true;
    this.hover(-1, 0, 0);
  }

  layOut() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.index && this.size === `${width} ${height}`) return;
    this.size = `${width} ${height}`;
    this.view.fit(this.data, width, height);
    this.index = new Nearest(this.view.xs, this.view.ys);
    this.isStale = true;
  }

  draw(context, width, height, isNew) {
    if (!this.data) return;
    this.layOut();
    if (isNew) this.colours = null;
    if (isNew || this.isStale) this.drawDots(width, height);
    context.drawImage(this.layer, 0, 0, width, height);
    this.drawMarks(context);
    if (this.present) this.drawPresent(context, width, height);
  }

  drawDots(width, height) {
    this.isStale = false;
    if (!this.colours) {
      this.colours = this.data.colours(this.by);
      this.handlers.onColours(this.colours.legend);
    }
    const ratio = devicePixelRatio || 1;
    [this.layer.width, this.layer.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = this.layer.getContext("2d");
    const crowd = Math.sqrt((width * height) / this.data.count);
    this.radius = Math.max(1.6, Math.min(5, 0.2 * crowd * Math.sqrt(this.view.zoom)));
    const stamps = this.stamps(ratio);
    const size = stamps.height;
    context.globalAlpha = 0.85;
    for (let i = 0; i < this.data.count; i++) {
      const [x, y] = this.view.ofDot(i);
      if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
      const at = this.colours.of[i] * size;
      context.drawImage(stamps, at, 0, size, size, x * ratio - size / 2, y * ratio - size / 2, size, size);
    }
  }

  /** A dot in each colour, side by side: stamping them is much faster than drawing arcs. */
  stamps(ratio) {
    const size = 2 * Math.ceil(this.radius * ratio + 1);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [size * this.colours.list.length, size];
    const context = canvas.getContext("2d");
    this.colours.list.forEach((colour, i) => {
      context.fillStyle = colour;
      context.beginPath();
      context.arc((i + 0.5) * size, size / 2, this.radius * ratio, 0, 2 * Math.PI);
      context.fill();
    });
    return canvas;
  }

  drawMarks(context) {
    context.strokeStyle = context.fillStyle = styled("--ink");
    this.sources.forEach((i, k) => i >= 0 && this.drawSource(context, i, this.sources.length > 1 ? "AB"[k] : ""));
    if (this.hovered >= 0) this.ring(context, this.hovered, this.radius + 3, 1);
    const isFocused = this.focused >= 0 && document.activeElement === this.canvas;
    if (isFocused) this.ring(context, this.focused, this.radius + 7, 2);
  }

  ring(context, i, radius, width) {
    const [x, y] = this.view.ofDot(i);
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }

  /** A sound that the present one starts from. */
  drawSource(context, i, letter) {
    this.ring(context, i, this.radius + 4, 1.5);
    const [x, y] = this.view.ofDot(i);
    context.font = "bold 13px system-ui, sans-serif";
    context.fillText(letter, x + this.radius + 8, y + 5);
  }

  /** Where the present sound is: a dot with a halo, or a ring at the edge of the map if it is beyond. */
  drawPresent(context, width, height) {
    const [x, y] = this.view.ofCoordinates(...this.present);
    const [u, v] = [Math.max(9, Math.min(width - 9, x)), Math.max(9, Math.min(height - 9, y))];
    const isBeyond = u !== x || v !== y;
    const disc = (radius) => {
      context.beginPath();
      context.arc(u, v, radius, 0, 2 * Math.PI);
    };
    context.fillStyle = styled("--halo");
    disc(16);
    context.fill();
    context.fillStyle = styled(isBeyond ? "--panel" : "--present");
    context.strokeStyle = styled(isBeyond ? "--present" : "--panel");
    context.lineWidth = 2;
    disc(6);
    context.fill();
    context.stroke();
  }

  listen() {
    const on = (type, listener) => this.canvas.addEventListener(type, (event) => this.data && listener(event));
    on("pointerdown", (event) => this.press(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.lift(event));
    on("pointercancel", (event) => this.lift(event));
    on("pointerleave", () => this.hover(-1, 0, 0));
    on("keydown", (event) => this.onKey(event));
    on("focus", () => this.redraw());
    on("blur", () => this.hover(-1, 0, 0));
    this.canvas.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  nearest(x, y) {
    this.layOut();
    const { number, distance } = this.index.find(...this.view.fromCanvas(x, y));
    return { number, distance: distance * this.view.zoom };
  }

  press(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.place(event);
    this.pointers.set(event.pointerId, { x, y });
    this.gesture = this.pointers.size > 1 ? "pinch" : event.altKey ? "pan" : "press";
    this.start = [x, y];
  }

  move(event) {
    const [x, y] = this.place(event);
    const last = this.pointers.get(event.pointerId);
    if (!last) return this.hoverAt(x, y);
    if (this.gesture === "pinch") this.pinch(event.pointerId, x, y);
    else if (this.gesture === "pan") this.panBy(x - last.x, y - last.y);
    else if (this.gesture === "drag") this.drag(x, y);
    else if (Math.hypot(x - this.start[0], y - this.start[1]) > CLICK_PX) {
      this.gesture = "drag";
      this.hover(-1, 0, 0);
      this.drag(x, y);
    }
    this.pointers.set(event.pointerId, { x, y });
    return undefined;
  }

  lift(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.gesture === "drag") this.handlers.onCommit();
    else if (this.gesture === "press" && event.type === "pointerup") this.click(event);
    // What is left of a pinch is no drag.
    this.gesture = this.pointers.size ? "none" : null;
  }

  click(event) {
    const [x, y] = this.place(event);
    const { number, distance } = this.nearest(x, y);
    this.focused = number;
    if (event.shiftKey || distance <= REACH_PX) this.handlers.onPick(number, event.shiftKey);
    else {
      this.drag(x, y);
      this.handlers.onCommit();
    }
  }

  /** What lies at a place is the nearest sound, moved there along both axes. */
  drag(x, y) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    [x, y] = [Math.max(0, Math.min(width, x)), Math.max(0, Math.min(height, y))];
    const { number } = this.nearest(x, y);
    const [u, v] = this.view.toCoordinates(x, y);
    this.handlers.onDrag(number, [u - this.data.x[number], v - this.data.y[number]]);
  }

  pinch(id, x, y) {
    const other = [...this.pointers].find(([pointer]) => pointer !== id)?.[1];
    const last = this.pointers.get(id);
    if (!other) return;
    const apart = (a, b) => Math.max(10, Math.hypot(a.x - b.x, a.y - b.y));
    this.view.zoomBy(apart({ x, y }, other) / apart(last, other), (x + other.x) / 2, (y + other.y) / 2);
    this.panBy((x - last.x) / 2, (y - last.y) / 2);
  }

  hoverAt(x, y) {
    const { number, distance } = this.nearest(x, y);
    this.hover(distance <= REACH_PX ? number : -1, x, y);
  }

  hover(number, x, y) {
    if (number === this.hovered && number >= 0) return;
    this.hovered = number;
    this.handlers.onHover(number, x, y);
    this.redraw();
  }

  onWheel(event) {
    // A wheel alone scrolls the page; pinching on a touchpad comes with ctrlKey.
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    this.zoomAt(Math.exp(-Math.max(-60, Math.min(60, pixels)) / 120), ...this.place(event));
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const zoom = { "+": 1.5, "=": 1.5, "-": 1 / 1.5, 0: 0 }[event.key];
    if (ARROWS[event.key]) this.step(...ARROWS[event.key]);
    else if (event.key === "Enter") this.handlers.onPick(this.focusedDot(), event.shiftKey);
    else if (event.key.toLowerCase() === "b" && this.focused >= 0) this.handlers.onPick(this.focused, "toggle");
    else if (zoom !== undefined) this.zoom(zoom);
    else return;
    event.preventDefault();
  }

  /** The dot that keys act on: the first one is that of the present sound. */
  focusedDot() {
    if (this.focused < 0) {
      const { clientWidth: width, clientHeight: height } = this.canvas;
      this.layOut();
      const place = this.present ? this.view.ofCoordinates(...this.present) : [width / 2, height / 2];
      this.focused = this.nearest(...place).number;
    }
    return this.focused;
  }

  step(dx, dy) {
    const from = this.focused;
    const next = from < 0 ? this.focusedDot() : this.index.next(from, dx, dy);
    if (next < 0) return;
    this.focused = next;
    const [x, y] = this.view.ofDot(next);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const beyond = (value, end) => (value < 20 ? 20 - value : value > end - 20 ? end - 20 - value : 0);
    if (this.view.zoom > 1) this.panBy(beyond(x, width), beyond(y, height));
    this.handlers.onFocusDot(next);
    this.redraw();
  }
}
