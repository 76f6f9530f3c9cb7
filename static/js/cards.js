/** On a narrow screen the headings give way to a list of orders. */

/** @import { Column } from "./columns.js" */

export class Cards {
  /** @type {(name: string) => void} */
  onSort = () => {};

  /** @param {HTMLSelectElement} list @param {HTMLElement} turn Turns the order round. */
  constructor(list, turn) {
    this.list = list;
    this.turn = turn;
    list.addEventListener("change", () => this.onSort(list.value));
    turn.addEventListener("click", () => this.onSort(list.value));
  }

  /** @param {Column[]} columns Those to sort by. @param {string} sort */
  fill(columns, sort) {
    this.list.replaceChildren(...columns.map(({ title, arrow, name }) => new Option(title + (arrow ? ` ${arrow}` : ""), name)));
    this.show(sort);
  }

  /** @param {string} sort A property, `-` before it for descending. */
  show(sort) {
    this.list.value = sort.replace(/^-/, "");
    this.turn.textContent = sort.startsWith("-") ? "↓" : "↑";
  }
}
