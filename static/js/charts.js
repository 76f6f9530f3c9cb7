/** The charts above the table: the last hour, as the server has kept it, and on from there while the panel is open. */

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { grouped, rate } from "./format.js";
import { make } from "./make.js";
import { Refusal, get } from "./server.js";

const KEY = "ctweb.charts";
const HOUR = 3600;
/** So much is drawn at least, seconds: a line of three samples is no picture. */
const LEAST = 120;
const HEIGHT = 132;

/**
 * @typedef {object} Series
 * @property {string} title
 * @property {string} colour A custom property of theme.css.
 * @property {string[]} of The server's series that add up to it.
 * @property {boolean} [bars] Drawn to a scale of its own.
 *
 * @typedef {object} Chart
 * @property {string} title
 * @property {Series[]} series Stacked: the first one lies on the ground.
 * @property {boolean} [stacked]
 * @property {boolean} [room] Against max-entries.
 * @property {(value: number) => string} show
 *
 * @typedef {{series: string[], time: number[], values: number[][], "max-entries": number}} Answer
 */

const number = (/** @type {number} */ value) => (value < 10 && value % 1 ? value.toFixed(1) : grouped(Math.round(value)));
const short = (/** @type {number} */ value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : String(value));
const compact = (/** @type {number} */ value) => (value >= 1e6 ? `${(value / 1e6).toFixed(1)}M` : value >= 1e4 ? `${Math.round(value / 1e3)}k` : number(value));
const bits = (/** @type {number} */ value) => rate(value).join(" ");

/** @type {Chart[]} */
const CHARTS = [
  { title: "Rate", show: bits, series: [
    { title: "→", colour: "--there", of: ["orig-rate"] },
    { title: "←", colour: "--back", of: ["repl-rate"] },
  ] },
  { title: "Packets a second", show: number, series: [{ title: "", colour: "--accent", of: ["packets"] }] },
  { title: "New connections a second", show: number, series: [{ title: "", colour: "--opening", of: ["created"] }] },
  { title: "Connections by state", show: compact, stacked: true, series: [
    { title: "open", colour: "--good", of: ["established"] },
    { title: "opening", colour: "--opening", of: ["syn-sent", "syn-received", "listen"] },
    { title: "closing", colour: "--closing", of: ["fin-wait", "close-wait", "last-ack"] },
    { title: "over", colour: "--over", of: ["time-wait", "close", "none"] },
    { title: "other", colour: "--there", of: ["not-tcp"] },
  ] },
  { title: "Table", show: number, room: true, series: [
    { title: "", colour: "--accent", of: ["connections"] },
    { title: "early drops/s", colour: "--bad", of: ["early-drop"], bars: true },
  ] },
];

/**
 * A colour of theme.css as the theme has it now.
 * @param {string} name
 * @param {number} [share] The part of it in a mixture with what is `behind`.
 */
function colour(name, share = 1, behind = "transparent") {
  const probe = /** @type {HTMLElement} */ (document.getElementById("charts"));
  const before = probe.style.color;
  probe.style.color = share < 1 ? `color-mix(in srgb, var(${name}) ${share * 100}%, ${behind})` : `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.style.color = before;
  return found;
}

class Drawing {
  element = make("figure", "chart");
  #values;
  #host = make("div", "plot");
  /** @type {uPlot | undefined} */
  #plot;
  /** @type {number[][]} What each series is by itself; the plot has them stacked. */
  #plain = [];
  #most = 0;

  /** @param {Chart} chart */
  constructor(chart) {
    this.chart = chart;
    this.#values = chart.series.map((series) => {
      const value = make("b", "");
      value.style.color = `color-mix(in srgb, var(${series.colour}) 70%, var(--text))`; // figures need more contrast than areas
      return value;
    });
    const legend = chart.series.map((series, at) => make("span", "", series.title, " ", /** @type {HTMLElement} */ (this.#values[at])));
    this.element.append(make("figcaption", "", make("h2", "", chart.title), ...legend), this.#host);
    new ResizeObserver(() => this.#plot?.setSize({ width: this.#host.clientWidth, height: HEIGHT })).observe(this.#host);
  }

  /** @param {number[]} time @param {(name: string) => number[]} values @param {number} most */
  show(time, values, most) {
    this.#most = most;
    this.#plain = this.chart.series.map(({ of }) => time.map((_, at) => of.reduce((sum, name) => sum + (values(name)[at] ?? 0), 0)));
    const drawn = this.chart.stacked ? this.#plain.map((_, upTo) => time.map((_, at) => this.#plain.slice(0, upTo + 1).reduce((sum, one) => sum + (one[at] ?? 0), 0))) : this.#plain;
    // What lies on the others is drawn first.
    const data = /** @type {uPlot.AlignedData} */ ([time, ...(this.chart.stacked ? drawn.toReversed() : drawn)]);
    if (this.#plot) this.#plot.setData(data);
    else if (this.#host.clientWidth) this.#plot = new uPlot(this.#options(), data, this.#host);
    this.#tell(this.#plot?.cursor.idx ?? time.length - 1);
  }

  redraw() {
    this.#plot?.redraw(false);
  }

  /** @param {number} at */
  #tell(at) {
    this.#values.forEach((element, series) => {
      const value = this.#plain[series]?.[at];
      const share = this.chart.room && series === 0 && this.#most ? ` of ${grouped(this.#most)}` : "";
      element.textContent = value === undefined ? "–" : this.chart.show(value) + share;
    });
  }

  /** @returns {uPlot.Options} */
  #options() {
    const { chart } = this;
    const series = chart.stacked ? chart.series.toReversed() : chart.series;
    const axis = { stroke: () => colour("--faint"), font: "11px sans-serif", grid: { stroke: () => colour("--hairline"), width: 1 }, ticks: { show: false } };
    return {
      width: this.#host.clientWidth,
      height: HEIGHT,
      padding: [8, 16, 0, 0], // to the right: half of the last time
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: false }, sync: { key: "ctweb" } },
      scales: {
        x: { range: (_, from, to) => [Math.max(to - HOUR, Math.min(from, to - LEAST)), to] },
        y: { range: (_, __, most) => [0, chart.room && most > this.#most / 4 ? this.#most * 1.05 : Math.max(1, most * 1.15)] },
        drops: { range: (_, __, most) => [0, Math.max(1, most * 2)] },
      },
      axes: [
        { ...axis, size: 20, space: 70, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toTimeString().slice(0, 5)) },
        { ...axis, size: 44, space: 34, gap: 2, values: (_, ticks) => ticks.map((tick) => (chart.show === bits ? rate(tick).join("").replace(".0", "").replace("bps", "") : tick % 1 ? "" : short(tick))) },
      ],
      series: [{}, ...series.map((one) => ({
        label: one.title || chart.title,
        stroke: () => colour(one.colour),
        // What is stacked covers what is drawn before it.
        fill: () => (chart.stacked ? colour(one.colour, 0.5, "var(--panel)") : colour(one.colour, 0.14)),
        width: 1.5,
        points: { show: false },
        scale: one.bars ? "drops" : "y",
      }))],
      hooks: {
        setCursor: [(plot) => this.#tell(plot.cursor.idx ?? plot.data[0].length - 1)],
        draw: [(plot) => this.#drawRoom(plot)],
      },
    };
  }

  /** The line of max-entries, where it is within reach. @param {uPlot} plot */
  #drawRoom(plot) {
    if (!this.chart.room || (plot.scales.y?.max ?? 0) < this.#most) return;
    const y = plot.valToPos(this.#most, "y", true);
    plot.ctx.save();
    plot.ctx.strokeStyle = colour("--bad");
    plot.ctx.setLineDash([6, 5]);
    plot.ctx.beginPath();
    plot.ctx.moveTo(plot.bbox.left, y);
    plot.ctx.lineTo(plot.bbox.left + plot.bbox.width, y);
    plot.ctx.stroke();
    plot.ctx.restore();
  }
}

export class Charts {
  #drawings = CHARTS.map((chart) => new Drawing(chart));
  /** @type {number[]} */
  #time = [];
  /** @type {Map<string, number[]>} */
  #values = new Map();
  #asking = false;

  /** @param {HTMLElement} panel @param {HTMLButtonElement} button */
  constructor(panel, button) {
    this.panel = panel;
    this.button = button;
    panel.append(...this.#drawings.map(({ element }) => element));
    button.addEventListener("click", () => this.toggle());
    const redraw = () => this.#drawings.forEach((drawing) => drawing.redraw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    this.#open(localStorage.getItem(KEY) === "open");
  }

  toggle() {
    const open = this.panel.hidden;
    if (open) localStorage.setItem(KEY, "open");
    else localStorage.removeItem(KEY);
    this.#open(open);
  }

  /** @param {boolean} open */
  #open(open) {
    this.panel.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    void this.follow();
  }

  /** There has been another sweep: what is new since the last answer. */
  async follow() {
    if (this.panel.hidden || document.hidden || this.#asking) return;
    this.#asking = true;
    try {
      const answer = /** @type {Answer} */ (await get(`/page/history?since=${this.#time.at(-1) ?? 0}`));
      this.#take(answer);
    } catch (error) {
      // The page says already that the server does not answer; the next sweep asks again.
      if (!(error instanceof Refusal)) throw error;
    } finally {
      this.#asking = false;
    }
  }

  /** @param {Answer} answer */
  #take(answer) {
    const time = [...this.#time, ...answer.time];
    const from = Math.max(0, time.findIndex((one) => one > (time.at(-1) ?? 0) - HOUR));
    this.#time = time.slice(from);
    answer.series.forEach((name, at) => {
      this.#values.set(name, [...(this.#values.get(name) ?? []), ...(answer.values[at] ?? [])].slice(from));
    });
    if (!this.#time.length) return;
    for (const drawing of this.#drawings) drawing.show(this.#time, (name) => this.#values.get(name) ?? [], answer["max-entries"]);
  }
}
