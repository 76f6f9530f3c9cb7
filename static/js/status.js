/** How things stand: live, paused or stale, and how many are shown of how many. */

/** @import { RowsMessage } from "./protocol.js" */
/** @import { Trouble } from "./live.js" */
import { GROUPS } from "./groups.js";
import { clock, duration, grouped } from "./format.js";

/** @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

export class Status {
  #button = byId("live");
  #label = byId("live-label");
  #banner = byId("stale");
  #bannerText = byId("stale-text");
  #shown = byId("shown");
  #total = byId("total");
  #newest = byId("newest");
  #notTracking = byId("not-tracking");

  /** @type {Trouble | undefined} */
  trouble;
  /** When the newest rows came. @type {{at: number, clock: string} | undefined} */
  last;
  paused = false;
  held = false;

  /** @param {RowsMessage} message */
  count(message) {
    this.last = { at: performance.now(), clock: clock(new Date(message.time)) };
    const connections = message.connections ?? message.matched;
    const kind = message.group && GROUPS.get(message.group);
    const groups = kind ? `${grouped(message.matched)} ${message.matched === 1 ? kind.one : kind.many} · ` : "";
    this.#shown.textContent = groups + (connections === message.total ? "" : `${grouped(connections)} of `);
    this.#total.textContent = grouped(message.total);
    this.#newest.textContent = this.last.clock;
    this.#notTracking.hidden = message.tracking?.active !== false;
    this.#notTracking.textContent = "not tracking";
    this.#notTracking.title = message.tracking?.reason ?? "";
  }

  /** Run every second, and whenever something changes. */
  paint() {
    const stale = this.trouble !== undefined && this.last !== undefined;
    const mode = this.trouble ? (this.last ? "stale" : "waiting") : this.paused ? "paused" : this.held ? "held" : this.last ? "live" : "waiting";
    this.#button.dataset.mode = mode;
    this.#label.textContent = { live: "Live", paused: "Paused", held: "Order held", stale: "Stale", waiting: "Connecting" }[mode];
    this.#button.setAttribute("aria-pressed", String(this.paused));
    document.body.classList.toggle("is-stale", stale);
    this.#banner.hidden = !stale;
    if (stale && this.trouble && this.last) {
      const age = (performance.now() - this.last.at) / 1000;
      this.#bannerText.textContent = `Connection lost: what you see is from ${this.last.clock}, ${duration(age)} ago. ${this.trouble.reason} ${nextTry(this.trouble)}`;
    }
  }
}

/** When it is tried again, in words. @param {Trouble} trouble */
export function nextTry(trouble) {
  const seconds = Math.ceil((trouble.retryAt - performance.now()) / 1000);
  return seconds > 0 ? `Trying again in ${seconds} s.` : "Trying again now.";
}
