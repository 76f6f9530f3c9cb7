/** The panel of one connection: its way, its traffic, what is known about it in words. */

/** @import { Row } from "./protocol.js" */
import { COLUMNS } from "./columns.js";
import { FLAGS } from "./flags.js";
import { clock, dateAndClock, duration, grouped, rate, roughBytes, splitEndpoint } from "./format.js";
import { make } from "./make.js";
import { namesOf } from "./names.js";
import { SAMPLES, Sparkline } from "./sparkline.js";
import { excludes, term } from "./terms.js";

const PROTOCOLS = /** @type {Record<string, string>} */ ({ tcp: "TCP", udp: "UDP", icmp: "ICMP", icmpv6: "ICMPv6", gre: "GRE", sctp: "SCTP", dccp: "DCCP", "udp-lite": "UDP-Lite" });

const STATES = /** @type {Record<string, string>} */ ({
  none: "nothing has been seen yet",
  "syn-sent": "asked to open, no answer yet",
  "syn-received": "answered, the handshake is not complete",
  established: "open",
  "fin-wait": "one side has said that it is done",
  "close-wait": "the other side has acknowledged that",
  "last-ack": "both are done, the last acknowledgement is missing",
  "time-wait": "closed in good order, kept for stragglers",
  close: "broken off by a reset",
  listen: "both have asked to open at the same time",
});

/** What the panel draws anyway, without a line of its own. */
const DRAWN = new Set(["flags", "protocol", "src-address", "dst-address", "tcp-state", "timeout", "orig-rate", "repl-rate", "orig-bytes", "repl-bytes", "orig-packets", "repl-packets", "reply-src-address", "reply-dst-address"]);

/**
 * Make `before` like `after`, touching only what differs: a selection of text survives a sweep.
 * @param {Element} before
 * @param {Element} after
 */
function morph(before, after) {
  if (before.isEqualNode(after)) return;
  const alike = before.tagName === after.tagName && before.className === after.className;
  if (!alike || !after.children.length || before.childNodes.length !== after.childNodes.length) {
    before.replaceWith(after);
    return;
  }
  // Both lists as they are now: what is put in is taken out of `after`.
  const wanted = [...after.childNodes];
  [...before.childNodes].forEach((child, at) => {
    const other = /** @type {ChildNode} */ (wanted[at]);
    if (child instanceof Element && other instanceof Element) morph(child, other);
    else if (!child.isEqualNode(other)) child.replaceWith(other);
  });
}

export class Detail {
  /** @type {Row | undefined} */
  row;
  #read = 0;
  #ended = false;
  /** When the connection began; the server tells with its first answer. @type {Date | undefined} */
  #began;
  #history = /** @type {[string, string][]} */ ([]);
  #sparkline = new Sparkline();

  /** @type {() => void} */
  onClose = () => {};
  /** Only what has this, or all but that. @type {(term: string, exclude: boolean) => void} */
  onTerm = () => {};

  /** @param {HTMLElement} panel */
  constructor(panel) {
    this.panel = panel;
    panel.querySelector("button")?.addEventListener("click", () => this.close());
    panel.addEventListener("click", (event) => {
      const wanted = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[data-term]"))?.dataset.term;
      if (wanted) this.onTerm(wanted, excludes(event));
    });
  }

  get open() {
    return this.row !== undefined;
  }

  /** @param {Row} row */
  show(row) {
    if (row[".id"] !== this.row?.[".id"]) {
      this.#history = [];
      this.#began = undefined;
      this.#sparkline = new Sparkline();
    }
    this.panel.hidden = false;
    this.update(row);
  }

  close() {
    if (!this.open) return;
    this.row = undefined;
    this.panel.hidden = true;
    this.onClose();
  }

  /** A new sweep: the row as it is now, undefined when it has ended. @param {Row | undefined} row */
  update(row) {
    this.#ended = row === undefined;
    if (row) {
      this.row = row;
      this.#read = performance.now();
      if (row["age"] !== undefined) this.#began ??= new Date(Date.now() - 1000 * Number(row["age"]));
      const state = /** @type {string | undefined} */ (row["tcp-state"]);
      if (state && state !== this.#history.at(-1)?.[0]) this.#history.push([state, clock(new Date())]);
      this.#sparkline.add(Number(row["orig-rate"] ?? 0), Number(row["repl-rate"] ?? 0));
    }
    if (this.row) this.#paint(this.row);
  }

  /** Time left, and time since it began, between two sweeps. */
  tick() {
    if (!this.row) return;
    for (const [name, text] of [["left", this.#timeLeft(this.row)], ["began", this.#age()]]) {
      const line = this.panel.querySelector(`.${name}`);
      if (line && line.textContent !== text) line.textContent = /** @type {string} */ (text);
    }
  }

  #age() {
    if (!this.#began) return "";
    const since = `began ${dateAndClock(this.#began)}`;
    return this.#ended ? since : `${since}, ${duration((Date.now() - this.#began.getTime()) / 1000)} ago`;
  }

  /** @param {Row} row */
  #timeLeft(row) {
    if (this.#ended) return "has ended";
    if (row.flags.includes("D")) return "about to be removed";
    return `${duration(Math.ceil(row.timeout - (performance.now() - this.#read) / 1000))} left unless a packet comes`;
  }

  /** @param {Row} row */
  #paint(row) {
    this.panel.classList.toggle("ended", this.#ended);
    const state = /** @type {string | undefined} */ (row["tcp-state"]);
    const title = make("h2", "", PROTOCOLS[row.protocol] ?? row.protocol);
    title.id = "detail-title";
    if (state) {
      const chip = make("span", "chip", state);
      chip.dataset.state = state;
      title.append(chip);
    }
    /** @type {HTMLElement[]} */
    const parts = [
      make("div", "detail-head", title, make("p", "left", this.#timeLeft(row)), make("p", "began", this.#age())),
      this.#way(row),
      this.#only(row),
      make("div", "", /** @type {Element} */ (this.#sparkline.element.cloneNode(true)), make("p", "peak", `last ${SAMPLES} s, peak ${rate(this.#sparkline.peak).join(" ")}`)),
    ];
    if (this.#history.length) parts.push(make("h3", "", "State, as seen here"), this.#states());
    parts.push(make("h3", "", "Flags"), this.#flags(row), ...this.#properties(row));
    morph(/** @type {Element} */ (this.panel.querySelector(".detail-body")), make("div", "detail-body", ...parts));
  }

  /** Source, translations, destination, and what flows between them. @param {Row} row */
  #way(row) {
    const source = row["src-address"];
    const destination = row["dst-address"];
    const seenAs = String(row["reply-dst-address"] ?? source);
    const really = String(row["reply-src-address"] ?? destination);
    const steps = [this.#end("end", "Source", source, row)];
    if (seenAs !== source) steps.push(this.#end("nat", "seen by the destination as", seenAs, row));
    steps.push(make("div", "flows", this.#flow(row, "orig", "↓", "there"), this.#flow(row, "repl", "↑", "back")));
    steps.push(this.#end("end", "Destination", destination, row));
    if (really !== destination) steps.push(this.#end("nat", "translated to", really, row));
    return make("div", "way", ...steps);
  }

  /** Ways to the connections that have something in common with it. @param {Row} row */
  #only(row) {
    const [source] = splitEndpoint(row["src-address"]);
    const [destination, port] = splitEndpoint(row["dst-address"]);
    const service = [term("proto", row.protocol), ...(port ? [term("dport", port)] : [])].join(" ");
    const ways = [["source", term("src", source)], ["destination", term("dst", destination)], [port ? `${row.protocol}/${port}` : row.protocol, service]];
    const buttons = ways.map(([name, wanted]) => {
      const button = make("button", "", /** @type {string} */ (name));
      button.type = "button";
      button.dataset.term = wanted;
      button.title = `Only ${wanted}; Shift-click: without it`;
      return button;
    });
    return make("p", "only", "Only this ", ...buttons);
  }

  /** One end, with its names where those are wanted. @param {string} className @param {string} what @param {string} value @param {Row} row */
  #end(className, what, value, row) {
    const names = namesOf(value, row.protocol);
    const [address, port] = splitEndpoint(value);
    const end = port ? [value.slice(0, -port.length - 1), make("span", "port", `:${port}`)] : [address];
    return make("p", className, make("small", "", what), ...end, ...(names ? [make("span", "names", names)] : []));
  }

  /** @param {Row} row @param {string} prefix @param {string} arrow @param {string} className */
  #flow(row, prefix, arrow, className) {
    const [speed, unit] = rate(Number(row[`${prefix}-rate`] ?? 0));
    const bytes = Number(row[`${prefix}-bytes`] ?? 0);
    const packets = Number(row[`${prefix}-packets`] ?? 0);
    return make(
      "p", className, make("span", "arrow", arrow), make("b", "", `${speed} ${unit}`),
      make("span", "", `${roughBytes(bytes)} in ${grouped(packets)} packet${packets === 1 ? "" : "s"}`),
    );
  }

  #states() {
    return make("ol", "states", ...this.#history.map(([state, seen]) => make("li", "", make("time", "", seen), make("b", "", state), ` ${STATES[state] ?? ""}`)));
  }

  /** @param {Row} row */
  #flags(row) {
    const lines = [...row.flags].flatMap((letter) => {
      const [name, meaning] = FLAGS.get(letter) ?? ["", ""];
      return [make("dt", "", letter), make("dd", "", make("b", "", name), ` ${meaning}`)];
    });
    return make("dl", "flag-legend", ...lines);
  }

  /** @param {Row} row @returns {HTMLElement[]} */
  #properties(row) {
    const lines = COLUMNS.filter(({ name }) => !DRAWN.has(name) && row[name] !== undefined && row[name] !== 0).map((column) => {
      const value = row[column.name];
      const title = make("dt", "", `${column.title}${column.arrow ? ` ${column.arrow}` : ""}`);
      title.title = column.help;
      return [title, make("dd", "", typeof value === "number" && column.name !== "gre-key" && column.name !== "icmp-id" ? grouped(value) : String(value))];
    });
    return lines.length ? [make("h3", "", "More"), make("dl", "properties", ...lines.flat())] : [];
  }
}
