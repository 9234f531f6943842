// The level meter: RMS and peak of what is heard, in dBFS.

import { onCanvas } from "./canvas.js";
import { styled } from "./colours.js";

const LOWEST_DB = -60;
const WINDOW_S = 0.05;
const FALL_DB_S = 24;

const db = (value) => 20 * Math.log10(Math.max(value, 1e-6));
const share = (level) => Math.max(0, Math.min(1, 1 - level / LOWEST_DB));

/** RMS and peak of samples from `start` to `end`, in dBFS. */
export function levels(/** @type {Float32Array} */ samples, start = 0, end = samples.length) {
  let sum = 0;
  let peak = 0;
  for (let i = start; i < end; i++) {
    const value = Math.abs(samples[i]);
    sum += value * value;
    if (value > peak) peak = value;
  }
  return { rms: db(Math.sqrt(sum / Math.max(1, end - start))), peak: db(peak) };
}

export const inWords = ({ rms, peak }) =>
  peak <= -120 ? "silence" : `RMS ${rms.toFixed(1)}, peak ${peak.toFixed(1)} dBFS`.replaceAll("-", "−");

export class Meter {
  constructor(/** @type {HTMLCanvasElement} */ canvas) {
    this.canvas = canvas;
    this.shown = { rms: -120, peak: -120 };
    this.time = 0;
    this.told = 0;
    this.redraw = onCanvas(canvas, (context, width, height) => this.draw(context, width, height));
  }

  /** Show the level of a sound at a time in seconds; null lets the meter fall. Returns whether it is still moving. */
  update(sound, position) {
    const now = performance.now() / 1000;
    const fall = FALL_DB_S * Math.min(0.1, now - this.time);
    this.time = now;
    let heard = { rms: -120, peak: -120 };
    if (sound && position !== null) {
      const end = Math.min(sound.samples.length, Math.round((position + WINDOW_S / 2) * sound.sampleRate));
      heard = levels(sound.samples, Math.max(0, end - Math.round(WINDOW_S * sound.sampleRate)), end);
    }
    this.shown.rms = Math.max(heard.rms, this.shown.rms - fall);
    this.shown.peak = Math.max(heard.peak, this.shown.peak - fall / 2);
    const isMoving = this.shown.peak > LOWEST_DB;
    if (!isMoving || now - this.told > 0.25) this.tell(now);
    this.redraw();
    return isMoving;
  }

  tell(now) {
    this.told = now;
    const kept = Math.max(LOWEST_DB, Math.min(0, this.shown.rms));
    this.canvas.setAttribute("aria-valuenow", kept.toFixed(1));
    this.canvas.setAttribute("aria-valuetext", this.shown.peak < LOWEST_DB ? "silence" : inWords(this.shown));
  }

  draw(context, width, height) {
    const top = 8;
    const bottom = height - 22;
    const y = (level) => bottom - share(level) * (bottom - top);
    context.fillStyle = styled("--well");
    context.beginPath();
    context.roundRect(0, top, 10, bottom - top, 5);
    context.fill();
    context.save();
    context.clip();
    context.fillStyle = styled("--accent");
    context.fillRect(0, y(this.shown.rms), 10, bottom - y(this.shown.rms));
    context.fillStyle = styled(this.shown.peak > -0.1 ? "--alert" : "--ink");
    if (this.shown.peak > LOWEST_DB) context.fillRect(0, y(this.shown.peak) - 1, 10, 2);
    context.restore();
    context.font = "10px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.fillStyle = styled("--muted");
    for (const tick of [0, -12, -24, -36, -48]) {
      context.fillText(`${tick}`.replace("-", "−"), 15, Math.max(top + 4, y(tick)));
    }
    context.fillText("dBFS", 0, height - 8);
  }
}
