/** A small drawing of two rates over the last minute: original above the line in the middle, reply below it. */

import { rate } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HALF = 34;
export const SAMPLES = 60;

export class Sparkline {
  element = document.createElementNS(SVG, "svg");
  #there = document.createElementNS(SVG, "path");
  #back = document.createElementNS(SVG, "path");
  /** @type {[number, number][]} */
  #samples = [];

  constructor() {
    this.element.setAttribute("viewBox", `0 0 ${WIDTH} ${2 * HALF}`);
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("class", "sparkline");
    this.element.setAttribute("role", "img");
    this.#there.setAttribute("class", "there");
    this.#back.setAttribute("class", "back");
    const axis = document.createElementNS(SVG, "path");
    axis.setAttribute("class", "axis");
    axis.setAttribute("d", `M0 ${HALF}H${WIDTH}`);
    this.element.append(this.#there, this.#back, axis);
  }

  /** The highest rate of the last minute, either way. */
  get peak() {
    return Math.max(0, ...this.#samples.flat());
  }

  /** @param {number} there @param {number} back Bits per second. */
  add(there, back) {
    this.#samples.push([there, back]);
    if (this.#samples.length > SAMPLES) this.#samples.shift();
    const peak = this.peak || 1;
    this.#there.setAttribute("d", this.#area((sample) => HALF - (sample[0] / peak) * (HALF - 2)));
    this.#back.setAttribute("d", this.#area((sample) => HALF + (sample[1] / peak) * (HALF - 2)));
    this.element.setAttribute("aria-label", `Rates of the last minute, at most ${rate(this.peak).join(" ")}`);
  }

  /** @param {(sample: [number, number]) => number} height */
  #area(height) {
    const step = WIDTH / (SAMPLES - 1);
    const first = WIDTH - (this.#samples.length - 1) * step;
    const points = this.#samples.map((sample, at) => `${(first + at * step).toFixed(1)} ${height(sample).toFixed(1)}`);
    return `M${first.toFixed(1)} ${HALF}L${points.join("L")}L${WIDTH} ${HALF}Z`;
  }
}
