/**
 * Where the table stands: from the scroll bar's pixels to rows and back.
 *
 * Browsers clamp an element's height (Chromium at 33.5 M pixels, Firefox at 17.9 M), and whole pixels are exact in the compositor's
 * 32-bit floats only up to 16.7 M. A taller table is shown in a shorter body: `top` is then the true position in the
 * table's own pixels and the scroll bar moves in proportion. `top` is kept here, not read back from the
 * scroll bar, so that the wheel still moves by its own pixels.
 */

export const MAX_HEIGHT = 15_000_000;

export class Scale {
  /** Position in the table's own pixels. */
  top = 0;
  rows = 0;
  rowHeight = 28;
  /** Height of the part that is seen. */
  view = 0;

  /** The table's height in its own pixels. */
  get height() {
    return this.rows * this.rowHeight;
  }

  /** The height that the body gets. */
  get bodyHeight() {
    return Math.min(this.height, MAX_HEIGHT);
  }

  /** True pixels per scroll bar pixel; 1 unless the table is taller than a browser can show. */
  get factor() {
    const scrolled = this.bodyHeight - this.view;
    return scrolled > 0 ? Math.max(1, (this.height - this.view) / scrolled) : 1;
  }

  get maxTop() {
    return Math.max(0, this.height - this.view);
  }

  /** Where the scroll bar belongs for `top`. */
  get scrollTop() {
    return Math.round(this.top / this.factor);
  }

  /**
   * The scroll bar is at `scrollTop`: take it over unless it is where we put it.
   * @param {number} scrollTop
   */
  follow(scrollTop) {
    if (Math.abs(scrollTop - this.scrollTop) > 1 || this.factor === 1) {
      this.moveTo(scrollTop * this.factor);
    }
  }

  /** @param {number} top */
  moveTo(top) {
    this.top = Math.min(this.maxTop, Math.max(0, top));
  }

  /** First row that is at least partly seen. */
  get first() {
    return Math.floor(this.top / this.rowHeight);
  }

  /** How many rows can be seen at once, partly seen ones included. */
  get seen() {
    return Math.ceil(this.view / this.rowHeight) + 1;
  }

  /**
   * The least move that brings a row into full view; `above` pixels at the top are covered.
   * @param {number} index
   */
  reveal(index) {
    const start = index * this.rowHeight;
    if (start < this.top) this.moveTo(start);
    else if (start + this.rowHeight > this.top + this.view) this.moveTo(start + this.rowHeight - this.view);
  }
}
