// The dot nearest to a place, found with a grid: fast enough for each move of the pointer over 20 000 dots.

const CELLS = 96;

export class Nearest {
  /**
   * @param {Float32Array} xs
   * @param {Float32Array} ys
   */
  constructor(xs, ys) {
    this.xs = xs;
    this.ys = ys;
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < xs.length; i++) {
      left = Math.min(left, xs[i]);
      right = Math.max(right, xs[i]);
      top = Math.min(top, ys[i]);
      bottom = Math.max(bottom, ys[i]);
    }
    this.left = left;
    this.top = top;
    this.size = Math.max(1, right - left, bottom - top) / CELLS;
    this.cells = new Map();
    for (let i = 0; i < xs.length; i++) {
      const key = this.key(this.column(xs[i]), this.row(ys[i]));
      const cell = this.cells.get(key);
      if (cell) cell.push(i);
      else this.cells.set(key, [i]);
    }
  }

  column = (x) => Math.max(0, Math.min(CELLS, Math.floor((x - this.left) / this.size)));
  row = (y) => Math.max(0, Math.min(CELLS, Math.floor((y - this.top) / this.size)));
  key = (column, row) => column * (CELLS + 1) + row;

  /** The number of the dot nearest to a place, and its distance; number -1 if there are none. */
  find(x, y) {
    const [column, row] = [this.column(x), this.row(y)];
    let best = { number: -1, distance: Infinity };
    for (let ring = 0; ring <= CELLS; ring++) {
      // Dots in rings farther out are at least this far from the cell's own place.
      if (best.number >= 0 && best.distance < (ring - 1) * this.size) break;
      for (let dx = -ring; dx <= ring; dx++) {
        const step = Math.abs(dx) === ring ? 1 : Math.max(1, 2 * ring);
        for (let dy = -ring; dy <= ring; dy += step) best = this.closest(column + dx, row + dy, x, y, best);
      }
    }
    return best;
  }

  closest(column, row, x, y, best) {
    if (column < 0 || row < 0 || column > CELLS || row > CELLS) return best;
    for (const i of this.cells.get(this.key(column, row)) ?? []) {
      const distance = Math.hypot(this.xs[i] - x, this.ys[i] - y);
      if (distance < best.distance) best = { number: i, distance };
    }
    return best;
  }

  /** The next dot from another one in a direction of the screen: near, and not far aside. */
  next(from, dx, dy) {
    let best = -1;
    let least = Infinity;
    for (let i = 0; i < this.xs.length; i++) {
      const x = this.xs[i] - this.xs[from];
      const y = this.ys[i] - this.ys[from];
      const ahead = x * dx + y * dy;
      const aside = Math.abs(x * dy - y * dx);
      if (ahead <= 0 || aside > ahead) continue;
      const cost = ahead + 2 * aside;
      if (cost < least) [best, least] = [i, cost];
    }
    return best;
  }
}
