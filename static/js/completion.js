/** What could come next in a filter: fields where a term begins, values behind a field. Pure functions. */

import { COLUMNS } from "./columns.js";
import { FLAGS } from "./flags.js";

/**
 * @typedef {object} Option
 * @property {string} insert
 * @property {string} help
 *
 * @typedef {object} Completion The part of the text that an option stands for, and the options.
 * @property {number} from
 * @property {number} to
 * @property {Option[]} options
 *
 * @typedef {object} Field
 * @property {string} name
 * @property {string} sign The operator that is offered with it.
 * @property {string} help
 * @property {[string, string][]} [values] Values with what they mean.
 */

const MOST = 9;

const YES_NO = /** @type {[string, string][]} */ ([["yes", ""], ["no", ""]]);
const STATES = /** @type {[string, string][]} */ (
  ["none", "syn-sent", "syn-received", "established", "fin-wait", "close-wait", "last-ack", "time-wait", "close", "listen"].map((state) => [state, ""])
);
const PROTOCOLS = /** @type {[string, string][]} */ (["tcp", "udp", "icmp", "icmpv6", "gre", "sctp", "dccp", "udp-lite"].map((name) => [name, ""]));

/** @type {Field[]} */
const SHORT = [
  { name: "src", sign: ":", help: "source: an address, a network or address:port" },
  { name: "dst", sign: ":", help: "destination" },
  { name: "addr", sign: ":", help: "source or destination" },
  { name: "sport", sign: ":", help: "source port, or a range: 1000-2000" },
  { name: "dport", sign: ":", help: "destination port" },
  { name: "port", sign: ":", help: "either port" },
  { name: "proto", sign: ":", help: "protocol", values: PROTOCOLS },
  { name: "state", sign: ":", help: "TCP state", values: STATES },
  { name: "flag", sign: ":", help: "flag letters, all of which are set", values: [...FLAGS].map(([letter, [name]]) => [letter, name]) },
  { name: "rate", sign: ">", help: "bits a second, both ways: rate>1M" },
  { name: "bytes", sign: ">", help: "both ways: bytes>10M, bytes>2Gi" },
  { name: "packets", sign: ">", help: "both ways" },
  { name: "mark", sign: ":", help: "connection mark" },
  { name: "type", sign: ":", help: "connection type" },
];

const LONG = COLUMNS.filter(({ name }) => name !== "flags").map((column) => {
  /** @type {Record<string, [string, string][]>} */
  const values = { protocol: PROTOCOLS, "tcp-state": STATES };
  return { name: column.name, sign: /(rate|bytes|packets|timeout)$/.test(column.name) ? ">" : ":", help: column.help, values: values[column.name] };
});

const YES_NO_FIELDS = [...FLAGS.values()].map(([name, help]) => ({ name, sign: ":", help, values: YES_NO }));

/** Every field that is offered; the server knows these and no fewer. @type {Field[]} */
export const FIELDS = [...SHORT, ...LONG, ...YES_NO_FIELDS];

/**
 * What could stand where the caret is; no options where nothing is to be said.
 * @param {string} text
 * @param {number} caret
 * @returns {Completion}
 */
export function complete(text, caret) {
  const before = text.slice(0, caret);
  const word = /[^\s()!"]*$/.exec(before)?.[0] ?? "";
  const quotes = before.split('"').length - 1;
  if (!word || quotes % 2) return { from: caret, to: caret, options: [] };
  const named = /^([a-z.-]+)(?:!=|[:=])((?:[^,]*,)*)([^,]*)$/i.exec(word);
  if (!named) {
    const options = FIELDS.filter(({ name }) => name.startsWith(word.toLowerCase()));
    return { from: caret - word.length, to: caret, options: options.slice(0, MOST).map(({ name, sign, help }) => ({ insert: name + sign, help })) };
  }
  const [, name = "", , begun = ""] = named;
  const values = FIELDS.find((field) => field.name === name.toLowerCase())?.values ?? [];
  const options = values.filter(([value]) => value.startsWith(begun) && value !== begun);
  return { from: caret - begun.length, to: caret, options: options.slice(0, MOST + 1).map(([insert, help]) => ({ insert, help })) };
}
