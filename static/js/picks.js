/** The connections that have been picked, to be removed together: by a click on their box, or with the space bar. */

/** @import { Row } from "./protocol.js" */

/** So many are told of wherever they stand, and removed in one request. */
export const MOST_PICKS = 400;

export class Picks {
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** Where the last one was picked: a range begins there. */
  #anchor = -1;

  /** @type {() => void} */
  onChange = () => {};

  get rows() {
    return [...this.#rows.values()];
  }

  get ids() {
    return [...this.#rows.keys()];
  }

  get count() {
    return this.#rows.size;
  }

  /** @param {string} id */
  has(id) {
    return this.#rows.has(id);
  }

  /** @param {Row} row @param {number} index Where it stands. */
  toggle(row, index) {
    this.#anchor = index;
    if (!this.#rows.delete(row[".id"])) this.#add(row);
    this.onChange();
  }

  /**
   * From the one picked last to this one, as far as they are known.
   * @param {number} index
   * @param {(index: number) => Row | undefined} rowAt
   */
  extend(index, rowAt) {
    const from = this.#anchor < 0 ? index : this.#anchor;
    for (let at = Math.min(from, index); at <= Math.max(from, index); at++) {
      const row = rowAt(at);
      if (row) this.#add(row);
    }
    this.#anchor = index;
    this.onChange();
  }

  clear() {
    this.#anchor = -1;
    if (!this.#rows.size) return;
    this.#rows.clear();
    this.onChange();
  }

  /** What has ended cannot be removed. @param {Record<string, Row | null>} watched */
  forgetEnded(watched) {
    const before = this.#rows.size;
    for (const [id, row] of Object.entries(watched)) if (row === null) this.#rows.delete(id);
    if (this.#rows.size !== before) this.onChange();
  }

  /** @param {Row} row */
  #add(row) {
    if (this.#rows.size < MOST_PICKS) this.#rows.set(row[".id"], row);
  }
}
