// A value that changes in steps which can be undone. A drag previews many values and is committed as one step.

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** @template T */
export class History {
  /** @param {T} initial */
  constructor(initial) {
    this.present = initial;
    this.committed = initial;
    this.past = [];
    this.future = [];
    this.listeners = [];
  }

  /** Call `listener(present)` after each change. */
  subscribe(listener) {
    this.listeners.push(listener);
  }

  /** Change the present value, as a part of the step that `commit` ends. */
  preview(/** @type {T} */ value) {
    if (same(value, this.present)) return;
    this.present = value;
    this.tell();
  }

  commit() {
    if (same(this.present, this.committed)) return;
    this.past.push(this.committed);
    this.future = [];
    this.committed = this.present;
    this.tell();
  }

  /** Change the value in one step. */
  set(/** @type {T} */ value) {
    this.commit();
    this.present = value;
    this.commit();
  }

  undo() {
    this.commit();
    this.step(this.past, this.future);
  }

  redo() {
    this.commit();
    this.step(this.future, this.past);
  }

  step(from, to) {
    if (!from.length) return;
    to.push(this.present);
    this.present = this.committed = from.pop();
    this.tell();
  }

  tell() {
    for (const listener of this.listeners) listener(this.present);
  }
}
