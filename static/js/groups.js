/** What the table can be grouped by, and the columns of groups. */

/** @import { Column } from "./columns.js" */
import * as cells from "./cells.js";
import { roughBytes } from "./format.js";

/** @type {ReadonlyMap<string, {title: string, one: string, many: string}>} By the server's name for it. */
export const GROUPS = new Map([
  ["src-address", { title: "Source", one: "source", many: "sources" }],
  ["dst-address", { title: "Destination", one: "destination", many: "destinations" }],
  ["service", { title: "Service", one: "service", many: "services" }],
  ["protocol", { title: "Protocol", one: "protocol", many: "protocols" }],
  ["tcp-state", { title: "State", one: "state", many: "states" }],
  ["connection-mark", { title: "Mark", one: "mark", many: "marks" }],
]);

export const DEFAULT_GROUP_SORT = "-rate";

/**
 * @param {"" | "→" | "←"} arrow
 * @param {string} prefix
 * @returns {Column[]}
 */
function traffic(arrow, prefix) {
  const whose = { "": "both ways", "→": "from the sources to the destinations", "←": "from the destinations back to the sources" }[arrow];
  const shared = { numeric: true, width: arrow ? 112 : 118, ...(arrow && { arrow }) };
  return [
    { ...shared, name: `${prefix}rate`, title: "Rate", help: `Current rate of all of them ${whose}, in bits a second.`, cell: cells.speed(`${prefix}rate`) },
    { ...shared, name: `${prefix}bytes`, title: "Bytes", help: `Their bytes ${whose}, IP headers included.`, cell: cells.count(`${prefix}bytes`), tooltip: (row) => roughBytes(Number(row[`${prefix}bytes`] ?? 0)) },
  ];
}

const [rate, bytes] = /** @type {[Column, Column]} */ (traffic("", ""));
const [origRate, origBytes] = /** @type {[Column, Column]} */ (traffic("→", "orig-"));
const [replRate, replBytes] = /** @type {[Column, Column]} */ (traffic("←", "repl-"));

/** @type {Column[]} */
const NUMBERS = [
  { name: "connections", title: "Connections", help: "How many connections it has.", width: 116, numeric: true, cell: cells.count("connections") },
  rate, origRate, replRate, bytes, origBytes, replBytes,
  { name: "packets", title: "Packets", help: "Their packets both ways.", width: 110, numeric: true, cell: cells.count("packets") },
];

/** What a group is on a narrow screen: a card of two lines. */
const CARD = ["group", "connections", "rate", "bytes"];

/** @param {string} group @param {boolean} narrow @returns {Column[]} */
export function groupColumns(group, narrow) {
  const title = GROUPS.get(group)?.title ?? group;
  /** @type {Column[]} */
  const columns = [
    { name: "group", title, help: "Click, or press Enter: the connections of this group.", width: 220, grows: true, mono: true, cell: cells.group, tooltip: (row) => String(row["group"]) },
    ...NUMBERS,
  ];
  return narrow ? columns.filter(({ name }) => CARD.includes(name)) : columns;
}

/** @param {string} name */
export const sortsGroups = (name) => name === "group" || NUMBERS.some((column) => column.name === name);
