// A slider for each axis that the analysis found, in standard deviations to move along it.

import { FARTHEST } from "./form.js";
import { stepWithKeys } from "./keys.js";
import { say } from "./notices.js";

const FIRST = 6;
const SPAN = 5;
const STEP = 0.1;
const COARSE = 1;
const FINE = 0.01;

const title = (name) => name.replaceAll("_", " ").replace(/^axis(\d+)$/, "axis $1");
const percent = (share) => `${(100 * share).toFixed(share < 0.0095 ? 1 : 0)} %`;
const signed = (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(2)}`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** One axis: its name, share of the variance, value, reset button and slider. */
class Slider {
  constructor(axis, handlers) {
    this.axis = axis;
    this.handlers = handlers;
    this.value = 0;
    this.isHeld = false;
    this.ends = [0, 0];
    const { name } = axis;
    this.range = element("input", { type: "range", name, min: -SPAN, max: SPAN, step: FINE, value: 0 });
    this.range.setAttribute("aria-label", name);
    this.number = element("button", { type: "button", className: "value", title: "Double-click to type" });
    this.reset = element("button", { type: "button", className: "reset icon", textContent: "↺", title: "Reset" });
    this.reset.setAttribute("aria-label", `Reset ${name}`);
    this.band = element("span", { className: "band" });
    const label = element("span", { className: "name", textContent: title(name), title: this.explanation() });
    const share = element("span", { className: "share muted", textContent: percent(axis.share) });
    if (axis.is_course) share.append(" · over time");
    share.title = "Share of the variance of the training sounds";
    const rail = element("div", { className: "rail" }, this.band, element("span", { className: "tick" }), this.range);
    this.root = element("div", { className: "slider" }, label, share, this.number, this.reset, rail);
    this.listen();
    this.show(0);
  }

  explanation() {
    const found = Object.entries(this.axis.correlations).map(([feature, r]) => `${title(feature)} ${r.toFixed(2)}`);
    const course = this.axis.is_course ? "Changes the course of the sound in time, not its mean. " : "";
    return course + (found.length ? `Correlations: ${found.join(", ")}` : "");
  }

  listen() {
    const { range } = this;
    range.addEventListener("input", () => this.move(Number(range.value)));
    range.addEventListener("change", () => this.handlers.onCommit());
    range.addEventListener("pointerdown", () => (this.isHeld = true));
    for (const type of ["pointerup", "pointercancel"]) range.addEventListener(type, () => (this.isHeld = false));
    stepWithKeys(range, STEP, COARSE);
    this.reset.addEventListener("click", () => this.put(0));
    this.number.addEventListener("dblclick", () => this.type());
    // A click of the keyboard or of a screen reader.
    this.number.addEventListener("click", (event) => event.detail === 0 && this.type());
  }

  move(value) {
    this.show(value);
    this.handlers.onInput(this.axis.number, value);
  }

  put(value) {
    this.move(value);
    this.handlers.onCommit();
  }

  /** Let the value be typed, in place of the button that shows it. */
  type() {
    if (this.field) return;
    const field = element("input", { type: "number", className: "value", min: -FARTHEST, max: FARTHEST, step: "any" });
    field.setAttribute("aria-label", `${this.axis.name}, value`);
    field.value = String(this.value);
    this.field = field;
    this.number.replaceWith(field);
    field.focus();
    field.select();
    const close = (isKept, isFocused) => {
      if (!this.field) return;
      this.field = null;
      const typed = field.valueAsNumber;
      field.replaceWith(this.number);
      if (isFocused) this.number.focus();
      if (!isKept || !Number.isFinite(typed)) return;
      if (Math.abs(typed) > FARTHEST) say(`An axis moves by at most ${FARTHEST} standard deviations.`);
      this.put(Math.max(-FARTHEST, Math.min(FARTHEST, typed)));
    };
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      close(event.key === "Enter", true);
    });
    field.addEventListener("blur", () => close(true, false));
  }

  show(value) {
    this.value = value;
    if (Math.abs(value) > Number(this.range.max)) this.setSpan(Math.ceil(Math.abs(value)));
    if (Number(this.range.value) !== value) this.range.value = String(value);
    this.range.setAttribute("aria-valuetext", `${signed(value)} standard deviations`);
    this.number.textContent = signed(value);
    this.number.setAttribute("aria-label", `${this.axis.name}: ${signed(value)}, type a value`);
    this.reset.disabled = value === 0;
    this.root.classList.toggle("moved", value !== 0);
    this.layOut();
  }

  /** Mark the range of the training sounds, seen from where the sound is without moves. */
  mark(base) {
    const [low, high] = [this.axis.low - base, this.axis.high - base];
    const needed = Math.max(SPAN, Math.ceil(Math.max(Math.abs(low), Math.abs(high), Math.abs(this.value))));
    if (!this.isHeld) this.setSpan(Math.min(FARTHEST, needed));
    this.ends = [low, high];
    this.layOut();
    this.band.title = `The training sounds are between ${signed(low)} and ${signed(high)}`;
  }

  setSpan(span) {
    if (Number(this.range.max) === span) return;
    Object.assign(this.range, { min: -span, max: span, value: this.value });
    this.layOut();
  }

  /** Tell the style sheet where value and band are, as shares of the slider. */
  layOut() {
    const share = (value) => Math.max(0, Math.min(1, (value / Number(this.range.max) + 1) / 2)).toFixed(4);
    this.root.style.setProperty("--at", share(this.value));
    this.root.style.setProperty("--low", share(this.ends[0]));
    this.root.style.setProperty("--high", share(this.ends[1]));
  }
}

/** The sliders of all axes. */
export class Sliders {
  /** @param {{onInput: (number: number, value: number) => void, onCommit: () => void}} handlers */
  constructor(root, more, handlers) {
    this.root = root;
    this.more = more;
    this.handlers = handlers;
    this.sliders = [];
    this.isLong = false;
    this.moves = {};
    this.base = null;
    more.addEventListener("click", () => {
      this.isLong = !this.isLong;
      this.fold();
    });
  }

  setAxes(axes) {
    this.sliders = axes.map((axis) => new Slider(axis, this.handlers));
    this.root.replaceChildren(...this.sliders.map((slider) => slider.root));
    this.fold();
    this.show(this.moves);
    if (this.base) this.mark(this.base, {});
  }

  fold() {
    // An axis that was moved is not hidden.
    this.sliders.forEach((slider, i) => (slider.root.hidden = !this.isLong && i >= FIRST && slider.value === 0));
    this.more.hidden = this.sliders.length <= FIRST;
    this.more.textContent = this.isLong ? "Fewer axes" : "More axes";
    this.more.setAttribute("aria-expanded", String(this.isLong));
  }

  show(/** @type {Record<string, number>} */ moves) {
    this.moves = moves;
    for (const slider of this.sliders) {
      const value = moves[slider.axis.number] ?? 0;
      if (value !== slider.value) slider.show(value);
      if (value !== 0) slider.root.hidden = false;
    }
  }

  /** Mark where the training sounds are, from the coordinates of a sound and the moves that are in them. */
  mark(/** @type {number[]} */ coordinates, moves) {
    this.base = coordinates.map((value, i) => value - (moves[i + 1] ?? 0));
    for (const slider of this.sliders) {
      const base = this.base[slider.axis.number - 1];
      if (base !== undefined) slider.mark(base);
    }
  }
}
