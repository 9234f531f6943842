// A small line chart of measures by epoch.

import { FONT, onCanvas } from "./canvas.js";
import { styled } from "./colours.js";
import { niceStep } from "./spectrogram.js";

const BOX = { left: 44, right: 12, top: 10, bottom: 22 };

export class Chart {
  /** @param {{key: string, colour: string, label: string}[]} lines `colour` is a custom property of the style sheet */
  constructor(/** @type {HTMLCanvasElement} */ canvas, lines, name) {
    this.canvas = canvas;
    this.lines = lines;
    this.name = name;
    this.rows = [];
    this.redraw = onCanvas(canvas, (context, width, height) => this.draw(context, width, height));
  }

  show(/** @type {Record<string, number>[]} */ rows) {
    this.rows = rows;
    const last = rows.at(-1);
    const latest = this.lines.filter(({ key }) => Number.isFinite(last?.[key]));
    const said = latest.map(({ key, label }) => `${label} ${last[key].toPrecision(3)}`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.name} by epoch${said ? `; last: ${said}` : ""}`);
    this.redraw();
  }

  /** The lowest and the highest value, with a little room; wide ranges end at the 98th percentile. */
  range() {
    const values = this.rows.flatMap((row) => this.lines.map(({ key }) => row[key])).filter(Number.isFinite);
    if (!values.length) return [0, 1];
    values.sort((a, b) => a - b);
    const at = (share) => values[Math.round(share * (values.length - 1))];
    const [low, high] = [at(values.length > 40 ? 0.02 : 0), at(values.length > 40 ? 0.98 : 1)];
    const room = 0.06 * (high - low) || 0.1 * Math.abs(high) || 1;
    return [low - room, high + room];
  }

  draw(context, width, height) {
    if (!this.rows.length) return;
    const [low, high] = this.range();
    const first = this.rows[0].epoch;
    const last = Math.max(this.rows.at(-1).epoch, first + 1);
    const x = (epoch) => BOX.left + ((epoch - first) / (last - first)) * (width - BOX.left - BOX.right);
    const y = (value) => BOX.top + ((high - value) / (high - low)) * (height - BOX.top - BOX.bottom);
    this.drawGrid(context, { low, high, first, last, x, y, width, height });
    context.save();
    context.beginPath();
    context.rect(BOX.left - 4, BOX.top - 4, width - BOX.left - BOX.right + 8, height - BOX.top - BOX.bottom + 8);
    context.clip();
    for (const { key, colour } of this.lines) {
      const rows = this.rows.filter((row) => Number.isFinite(row[key]));
      context.strokeStyle = context.fillStyle = styled(colour);
      context.lineWidth = 2;
      context.lineJoin = "round";
      context.beginPath();
      for (const row of rows) context.lineTo(x(row.epoch), y(row[key]));
      context.stroke();
      if (!rows.length) continue;
      context.beginPath();
      context.arc(x(rows.at(-1).epoch), y(rows.at(-1)[key]), 3, 0, 2 * Math.PI);
      context.fill();
    }
    context.restore();
  }

  drawGrid(context, { low, high, first, last, x, y, width, height }) {
    context.font = FONT;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const step = niceStep(high - low, (height - BOX.top - BOX.bottom) / 36);
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      context.fillStyle = styled("--line");
      context.fillRect(BOX.left, y(value), width - BOX.left - BOX.right, 1);
      context.fillStyle = styled("--muted");
      context.fillText(value.toFixed(digits).replace("-", "−"), BOX.left - 8, y(value));
    }
    context.textAlign = "center";
    const epochs = Math.max(1, niceStep(last - first, width / 80));
    for (let epoch = Math.ceil(first / epochs) * epochs; epoch <= last; epoch += epochs) {
      context.fillText(String(epoch), x(epoch), height - 8);
    }
  }
}
