// A canvas that is as sharp as the screen, and is drawn again when its size or the colour scheme changes.

import { scheme } from "./colours.js";

export const FONT = "11px system-ui, sans-serif";

/**
 * Draw on a canvas whenever it changes size or colours; returns a function that draws it again.
 * @param {HTMLCanvasElement} canvas
 * @param {(context: CanvasRenderingContext2D, width: number, height: number, hasResized: boolean) => void} draw
 */
export function onCanvas(canvas, draw) {
  const context = canvas.getContext("2d");
  let requested = 0;
  let isNew = true;
  const paint = () => {
    requested = 0;
    const ratio = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      isNew = true;
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    draw(context, width, height, isNew);
    isNew = false;
  };
  const redraw = () => {
    requested ||= requestAnimationFrame(paint);
  };
  new ResizeObserver(redraw).observe(canvas);
  scheme.addEventListener("change", () => {
    isNew = true;
    redraw();
  });
  return redraw;
}
