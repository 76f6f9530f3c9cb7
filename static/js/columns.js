/** Every column there is: a RouterOS property, how it is headed, and how its cells are made. */

/** @import { CellMaker } from "./cells.js" */
/** @import { Row } from "./protocol.js" */
import * as cells from "./cells.js";
import { duration, roughBytes } from "./format.js";
import { namesOf } from "./names.js";
import { explainFlags } from "./flags.js";

/**
 * @typedef {object} Column
 * @property {string} name The RouterOS property, also what it sorts by.
 * @property {string} title
 * @property {"→" | "←"} [arrow] Original or reply direction.
 * @property {string} help What it means, in a sentence.
 * @property {number} width Pixels.
 * @property {boolean} [grows] Takes its share of the room that is left.
 * @property {boolean} [numeric] Stands to the right; the first click sorts the largest to the top.
 * @property {boolean} [mono]
 * @property {boolean} [ticks] Changes between two sweeps.
 * @property {boolean} [unsorted] Its heading is no button.
 * @property {boolean} [optional] Not shown unless chosen.
 * @property {CellMaker} cell
 * @property {(row: Row) => string} [tooltip]
 */

/**
 * @param {"→" | "←"} arrow
 * @param {string} prefix
 * @returns {Column[]}
 */
function traffic(arrow, prefix) {
  const whose = arrow === "→" ? "from source to destination" : "from destination back to source";
  return [
    { name: `${prefix}-rate`, title: "Rate", arrow, help: `Current rate ${whose}, in bits a second.`, width: 102, numeric: true, cell: cells.speed(`${prefix}-rate`) },
    {
      name: `${prefix}-bytes`, title: "Bytes", arrow, help: `Bytes ${whose} since it began, IP headers included.`, width: 114, numeric: true,
      cell: cells.count(`${prefix}-bytes`), tooltip: (row) => roughBytes(Number(row[`${prefix}-bytes`] ?? 0)),
    },
    { name: `${prefix}-packets`, title: "Packets", arrow, help: `Packets ${whose} since it began.`, width: 90, numeric: true, cell: cells.count(`${prefix}-packets`) },
  ];
}

/**
 * @param {string} name
 * @param {string} title
 * @param {string} help
 * @param {Partial<Column>} [rest]
 * @returns {Column}
 */
function extra(name, title, help, rest = {}) {
  return { name, title, help, width: 110, optional: true, cell: cells.plain(name), ...rest };
}

const [origRate, origBytes, origPackets] = /** @type {[Column, Column, Column]} */ (traffic("→", "orig"));
const [replRate, replBytes, replPackets] = /** @type {[Column, Column, Column]} */ (traffic("←", "repl"));

/** An end by its numbers, whole, and its names below. @param {string} end @returns {(row: Row) => string} */
const whole = (end) => (row) => {
  const value = String(row[end] ?? "");
  return [value, namesOf(value, row.protocol)].filter(Boolean).join("\n");
};

/** @type {readonly Column[]} */
export const COLUMNS = [
  { name: "flags", title: "Flags", help: "E expected, S seen-reply, A assured, C confirmed, D dying, F fasttrack, H hw-offload, s srcnat, d dstnat, h uses-helper.", width: 62, mono: true, cell: cells.flags, tooltip: (row) => explainFlags(row.flags) },
  { name: "protocol", title: "Proto", help: "IP protocol.", width: 76, cell: cells.named("protocol", "proto") },
  { name: "src-address", title: "Source", help: "Who sent the first packet, with the port where the protocol has ports.", width: 198, grows: true, mono: true, cell: cells.endpoint("src-address", "src", "sport"), tooltip: whole("src-address") },
  { name: "dst-address", title: "Destination", help: "Whom the first packet was sent to.", width: 198, grows: true, mono: true, cell: cells.endpoint("dst-address", "dst", "dport"), tooltip: whole("dst-address") },
  { name: "tcp-state", title: "State", help: "TCP state; for ICMP the type and id, for GRE the key.", width: 140, cell: cells.state },
  { name: "timeout", title: "Timeout", help: "How long until it is removed, should no packet come.", width: 102, numeric: true, ticks: true, cell: cells.timeout, tooltip: (row) => `${duration(row.timeout)} when last read` },
  origRate, replRate, origBytes, replBytes, origPackets, replPackets,
  extra("connection-mark", "Mark", "Connection mark set by a rule.", { cell: cells.named("connection-mark", "mark"), width: 90 }),
  extra("connection-type", "Type", "What a connection helper has recognised: ftp, tftp, pptp, sip, irc, h323, quake3.", { cell: cells.named("connection-type", "type"), width: 76 }),
  extra("reply-src-address", "Reply source", "Where the answers come from: the destination after its translation.", { width: 188, grows: true, mono: true, cell: cells.endpoint("reply-src-address", "reply-src-address", "reply-src-port"), tooltip: whole("reply-src-address") }),
  extra("reply-dst-address", "Reply destination", "Where the answers go: the source after its translation.", { width: 188, grows: true, mono: true, cell: cells.endpoint("reply-dst-address", "reply-dst-address", "reply-dst-port"), tooltip: whole("reply-dst-address") }),
  extra("orig-fasttrack-bytes", "FastTrack bytes", "The part of the bytes that took the fast path.", { arrow: "→", numeric: true, cell: cells.count("orig-fasttrack-bytes"), width: 140 }),
  extra("repl-fasttrack-bytes", "FastTrack bytes", "The part of the reply bytes that took the fast path.", { arrow: "←", numeric: true, cell: cells.count("repl-fasttrack-bytes"), width: 140 }),
  extra("orig-fasttrack-packets", "FastTrack packets", "The part of the packets that took the fast path.", { arrow: "→", numeric: true, cell: cells.count("orig-fasttrack-packets"), width: 150 }),
  extra("repl-fasttrack-packets", "FastTrack packets", "The part of the reply packets that took the fast path.", { arrow: "←", numeric: true, cell: cells.count("repl-fasttrack-packets"), width: 150 }),
  extra("icmp-type", "ICMP type", "Type of the first ICMP packet.", { numeric: true, width: 92 }),
  extra("icmp-code", "ICMP code", "Code of the first ICMP packet.", { numeric: true, width: 94 }),
  extra("icmp-id", "ICMP id", "Identifier that the asker chose.", { numeric: true, width: 84 }),
  extra("gre-version", "GRE version", "0, or 1 for PPTP.", { numeric: true, width: 100 }),
  extra("gre-key", "GRE key", "Key, or call id for PPTP.", { numeric: true, width: 90 }),
  extra("gre-protocol", "GRE protocol", "What GRE carries.", { width: 108 }),
  extra(".id", "Id", "Stable for the life of the connection.", { width: 96, mono: true }),
];

/** @type {ReadonlyMap<string, Column>} */
export const COLUMN = new Map(COLUMNS.map((column) => [column.name, column]));

/** @type {readonly string[]} */
export const DEFAULT_COLUMNS = COLUMNS.filter((column) => !column.optional).map((column) => column.name);

/** On a screen of middling width: what goes through them stands beside the ends, the rest follows. @type {readonly string[]} */
export const MIDDLE_COLUMNS = [...new Set(["protocol", "src-address", "dst-address", "orig-rate", "repl-rate", "tcp-state", "timeout", ...DEFAULT_COLUMNS])];

/** What a row is on a narrow screen: a card of three lines (narrow.css places them by name), and a line for each other column that was chosen. */
export const CARD_COLUMNS = ["protocol", "tcp-state", "flags", "timeout", "src-address", "dst-address", "orig-rate", "repl-rate"];
