// The spectrogram of the sound that plays, with its axes, a legend of the level, and the playback cursor.

import { FONT, onCanvas } from "./canvas.js";
import { ramps, styled } from "./colours.js";

const LEFT = 46;
const BOTTOM = 22;
const TOP = 8;
const RIGHT = 68;
const GAP = 8;
const HZ_TICKS = [50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];

const inDb = (level) => `${level.toFixed(0)} dB`.replace("-", "−");
const hz = (value) => (value >= 1000 ? `${value / 1000}k` : `${value}`);

/** Steps of 1, 2 or 5 that leave room for the labels. */
export function niceStep(length, most) {
  const rough = length / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

/** A picture of one channel, [bands × frames] bytes with band 0 at the bottom. */
function picture(values, bands, frames, table) {
  const canvas = document.createElement("canvas");
  canvas.width = frames;
  canvas.height = bands;
  const image = new ImageData(frames, bands);
  for (let band = 0; band < bands; band++) {
    let to = 4 * frames * (bands - 1 - band);
    for (let frame = 0; frame < frames; frame++, to += 4) {
      const from = 3 * values[band * frames + frame];
      image.data[to] = table[from];
      image.data[to + 1] = table[from + 1];
      image.data[to + 2] = table[from + 2];
      image.data[to + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

export class Spectrogram {
  constructor(/** @type {HTMLCanvasElement} */ canvas, /** @type {HTMLElement} */ cursor) {
    this.canvas = canvas;
    this.cursor = cursor;
    this.reply = null;
    this.pictures = [];
    this.redraw = onCanvas(canvas, (context, width, height, isNew) => {
      if (isNew) this.pictures = [];
      this.draw(context, width, height);
    });
  }

  /** What the axes need: centres of the bands in Hz, and seconds from frame to frame. */
  setScales(bandsHz, hopS) {
    this.bandsHz = bandsHz;
    this.hopS = hopS;
  }

  show(reply) {
    this.reply = reply;
    this.pictures = [];
    const seconds = reply.samples.length / reply.sample_rate;
    const kind = reply.kind === "original" ? "the original" : "the model's sound";
    this.canvas.setAttribute("aria-label", `Spectrogram of ${kind}, ${seconds.toFixed(2)} seconds`);
    this.redraw();
  }

  /** Put the cursor at a time in seconds; null hides it. */
  moveCursor(position) {
    this.cursor.hidden = position === null || !this.reply;
    if (this.cursor.hidden) return;
    const duration = this.reply.samples.length / this.reply.sample_rate;
    const width = this.canvas.clientWidth - LEFT - RIGHT;
    this.cursor.style.transform = `translateX(${LEFT + (width * position) / duration}px)`;
  }

  draw(context, width, height) {
    if (!this.reply) return;
    const { channels, bands, frames, values, low_db, high_db } = this.reply.spectrogram;
    const area = { x: LEFT, width: width - LEFT - RIGHT };
    const each = (height - TOP - BOTTOM - GAP * (channels - 1)) / channels;
    context.font = FONT;
    context.textBaseline = "middle";
    for (let channel = 0; channel < channels; channel++) {
      const table = ramps(channel ? "deviation" : "level");
      const part = values.subarray(channel * bands * frames, (channel + 1) * bands * frames);
      this.pictures[channel] ??= picture(part, bands, frames, table);
      const box = { ...area, y: TOP + channel * (each + GAP), height: each };
      this.drawPicture(context, box, this.pictures[channel], frames);
      this.drawHz(context, box, bands);
      const labels = channel ? ["+2 bd", "0", "−2 bd"] : [0, low_db - high_db].map(inDb);
      drawLegend(context, box, table, labels);
    }
    this.drawSeconds(context, area, height);
  }

  drawPicture(context, box, image, frames) {
    context.save();
    context.beginPath();
    context.roundRect(box.x, box.y, box.width, box.height, 6);
    context.clip();
    context.imageSmoothingQuality = "high";
    const duration = this.reply.samples.length / this.reply.sample_rate;
    // The last frame may reach beyond the end of the sound.
    const shown = Math.min(frames, Math.max(1, duration / this.hopS));
    context.drawImage(image, 0, 0, shown, image.height, box.x, box.y, box.width, box.height);
    context.restore();
  }

  drawHz(context, box, bands) {
    context.fillStyle = styled("--muted");
    context.textAlign = "right";
    const centres = this.bandsHz;
    let last = Infinity;
    for (const tick of HZ_TICKS) {
      const above = centres.findIndex((centre) => centre >= tick);
      if (above < 1) continue;
      const band = above - (centres[above] - tick) / (centres[above] - centres[above - 1]);
      const y = box.y + box.height * (1 - (band + 0.5) / bands);
      if (last - y < 17 || y < box.y + 18) continue;
      last = y;
      context.fillText(hz(tick), box.x - 8, y);
      context.fillRect(box.x - 5, y - 0.5, 4, 1);
    }
    context.fillText("Hz", box.x - 8, box.y + 6);
  }

  drawSeconds(context, area, height) {
    const duration = this.reply.samples.length / this.reply.sample_rate;
    const step = niceStep(duration, area.width / 70);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    context.fillStyle = styled("--muted");
    context.textAlign = "center";
    for (let tick = 0; tick <= duration * 1.0001; tick += step) {
      const x = area.x + (area.width * tick) / duration;
      context.fillRect(x - 0.5, height - BOTTOM + 2, 1, 4);
      context.fillText(`${tick.toFixed(digits)}${tick ? "" : " s"}`, x, height - 8);
    }
  }
}

function drawLegend(context, box, table, labels) {
  const x = box.x + box.width + 10;
  for (let i = 0; i < box.height; i++) {
    const at = 3 * Math.round(255 * (1 - i / box.height));
    context.fillStyle = `rgb(${table[at]} ${table[at + 1]} ${table[at + 2]})`;
    context.fillRect(x, box.y + i, 6, 1.5);
  }
  context.fillStyle = styled("--muted");
  context.textAlign = "left";
  labels.forEach((label, i) => {
    const share = i / (labels.length - 1);
    context.fillText(label, x + 10, box.y + 6 + share * (box.height - 12));
  });
}
