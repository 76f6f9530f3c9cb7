/**
 * What the table shows, made from what the server says: the newest window, an order that is held while it is being read,
 * and connections that have ended, greyed in their place for a few seconds.
 *
 * Ended rows are spliced into the server's order, so `count` and the indexes here are the server's plus the ended rows before.
 */

/** @import { Row, RowsMessage } from "./protocol.js" */
/** @import { Shown } from "./table.js" */

const ENDED_STAYS = 4000;

/**
 * @typedef {object} Seen A row and when it was read, on performance.now()'s clock.
 * @property {Row} row
 * @property {number} read
 *
 * @typedef {object} Ended
 * @property {number} index
 * @property {Row} row
 * @property {number} until
 *
 * @typedef {object} Held An order that is kept, with rows that still change.
 * @property {number} count
 * @property {Map<number, Seen>} at
 * @property {Map<string, Seen>} byId The same rows.
 * @property {Set<string>} gone Ids that have ended since.
 */

export class Display {
  /** The newest message that was taken over. @type {RowsMessage | undefined} */
  message;
  #read = 0;
  /** @type {Ended[]} */
  #ended = [];
  /** @type {Held | undefined} */
  #held;
  /** When time stopped for what is shown: paused, or the data is stale. @type {number | undefined} */
  #stopped;

  get count() {
    return this.#held?.count ?? (this.message?.matched ?? 0) + this.#ended.length;
  }

  get held() {
    return this.#held !== undefined;
  }

  /** The ids of the rows whose order is held. */
  get heldIds() {
    return this.#held ? [...this.#held.byId.keys()] : [];
  }

  /** Timeouts stand still, or count again. @param {boolean} stopped */
  stopTime(stopped) {
    this.#stopped = stopped ? (this.#stopped ?? performance.now()) : undefined;
  }

  /** @param {RowsMessage} message */
  accept(message) {
    const before = this.message;
    const sameView = before?.filter === message.filter && before.sort === message.sort && before.group === message.group;
    if (this.#stopped !== undefined) this.#stopped = performance.now();
    if (!sameView) {
      this.#held = undefined;
      this.#ended = [];
    } else if (this.#held) {
      this.#updateHeld(this.#held, message);
    } else {
      this.#noteEnded(before, message);
    }
    this.message = message;
    this.#read = performance.now();
    this.#placeEnded();
  }

  /** Each ended row where it stood, as far as the table still reaches there, and no two in one place. */
  #placeEnded() {
    const matched = this.message?.matched ?? 0;
    let next = 0;
    this.#ended.sort((a, b) => a.index - b.index);
    this.#ended.forEach((ended, before) => {
      ended.index = Math.min(Math.max(ended.index, next), matched + before);
      next = ended.index + 1;
    });
  }

  /** Whether all rows from `first` to `last` are here. @param {number} first @param {number} last */
  covers(first, last) {
    for (let index = first; index <= last; index++) {
      if (!this.#lookUp(index)) return false;
    }
    return true;
  }

  /** Keep the order of what is shown; the values still change. */
  hold() {
    if (this.#held || !this.message) return;
    const from = this.message.offset;
    const to = from + this.message.rows.length + this.#ended.length;
    /** @type {Held} */
    const held = { count: this.count, at: new Map(), byId: new Map(), gone: new Set() };
    for (let index = from; index < to; index++) {
      const seen = this.#lookUp(index);
      if (!seen) continue;
      const kept = { row: seen.row, read: seen.read };
      held.at.set(index, kept);
      held.byId.set(seen.row[".id"], kept);
      if (seen.ended) held.gone.add(seen.row[".id"]);
    }
    this.#held = held;
  }

  release() {
    const held = this.#held;
    if (!held) return;
    this.#held = undefined;
    const until = performance.now() + ENDED_STAYS;
    for (const [index, { row }] of held.at) {
      const known = this.#ended.some((ended) => ended.row[".id"] === row[".id"]);
      if (held.gone.has(row[".id"]) && !known) this.#ended.push({ index, row, until });
    }
    this.#placeEnded();
  }

  /** @param {number} index @returns {Shown | undefined} */
  at(index) {
    const now = this.#stopped ?? performance.now();
    if (this.#held) {
      const seen = this.#held.at.get(index);
      return seen && { row: seen.row, age: (now - seen.read) / 1000, ended: this.#held.gone.has(seen.row[".id"]) };
    }
    const seen = this.#lookUp(index);
    return seen && { row: seen.row, age: (now - seen.read) / 1000, ended: seen.ended };
  }

  /** @param {number} index @returns {(Seen & {ended: boolean}) | undefined} */
  #lookUp(index) {
    let before = 0;
    for (const ended of this.#ended) {
      if (ended.index === index) return { row: ended.row, read: this.#read, ended: true };
      if (ended.index < index) before++;
    }
    const row = this.message?.rows[index - before - this.message.offset];
    return row && { row, read: this.#read, ended: false };
  }

  /** @param {Held} held @param {RowsMessage} message */
  #updateHeld(held, message) {
    const now = performance.now();
    const fresh = new Map(message.rows.map((row) => [row[".id"], row]));
    for (const [id, seen] of held.byId) {
      const row = fresh.get(id) ?? message.watched?.[id];
      if (row) {
        seen.row = row;
        seen.read = now;
      } else if (row === null) {
        held.gone.add(id);
      }
    }
  }

  /**
   * A row that was dying in the window and is not in it any more has ended: it stays in its place for a while.
   * @param {RowsMessage} before
   * @param {RowsMessage} message
   */
  #noteEnded(before, message) {
    const now = performance.now();
    const present = new Set(message.rows.map((row) => row[".id"]));
    const found = [];
    const end = before.offset + before.rows.length + this.#ended.length;
    for (let index = before.offset; index < end; index++) {
      const seen = this.#lookUp(index);
      if (seen && !seen.ended && seen.row.flags.includes("D") && !present.has(seen.row[".id"])) {
        found.push({ index, row: seen.row, until: now + ENDED_STAYS });
      }
    }
    this.#ended = [...this.#ended.filter((ended) => ended.until > now && !present.has(ended.row[".id"])), ...found];
  }
}
