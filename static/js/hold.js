/** Whether somebody is reading: the pointer rests on the rows, and they do not scroll. */

/** Not for ever: the pointer may just have been left there. */
const HOLD_FOR = 20_000;
/** A scrolling table is not being read, until it has come to rest. */
const REST = 250;

export class Hold {
  wanted = false;
  #pointing = false;
  /** @type {number | undefined} */
  #timer;

  /** @type {() => void} */
  onChange = () => {};

  /** @param {HTMLElement} rows */
  constructor(rows) {
    rows.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      this.#pointing = true;
      this.#want(true);
    });
    rows.addEventListener("pointerleave", () => {
      this.#pointing = false;
      this.#want(false);
    });
  }

  scrolled() {
    this.#want(false);
    if (this.#pointing) this.#timer = setTimeout(() => this.#want(true), REST);
  }

  /** @param {boolean} wanted */
  #want(wanted) {
    clearTimeout(this.#timer);
    if (wanted) this.#timer = setTimeout(() => this.#want(false), HOLD_FOR);
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    this.onChange();
  }
}
