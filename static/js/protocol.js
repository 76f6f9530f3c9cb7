/**
 * The messages of `/live`, as docs/architecture.md says them. Types only.
 *
 * @typedef {Record<string, string | number | undefined> & {
 *   ".id": string, protocol: string, flags: string, "src-address": string, "dst-address": string, timeout: number,
 * }} Row
 *
 * @typedef {object} View What the client asks to see.
 * @property {string} filter
 * @property {string} sort A property name, `-` before it for descending.
 * @property {number} offset
 * @property {number} limit At most 500.
 * @property {string} [group] Groups by this instead of connections.
 * @property {boolean} [names] The names of hosts too.
 * @property {string[]} [watch] Ids of connections to be told of wherever they stand; at most 500.
 *
 * @typedef {object} RowsMessage
 * @property {"rows"} type
 * @property {number} seq
 * @property {number} time Unix milliseconds of the sweep.
 * @property {number} total
 * @property {number} matched
 * @property {number} offset
 * @property {string} filter
 * @property {string} sort
 * @property {Row[]} rows
 * @property {string} [group] The rows are groups by this: `.id` is the filter that means one's connections.
 * @property {number} [connections] Of groups: how many connections they have together.
 * @property {Record<string, Row | null>} [watched] The watched connections, with their `age` in seconds; null: it has ended.
 * @property {Record<string, string>} [names] Of hosts by their addresses, as far as they are known.
 * @property {Record<string, number>} [counters]
 * @property {{active: boolean, reason: string}} [tracking] Whether connections are tracked, and why.
 * @property {number} [settings] Another number whenever the tracking settings are others.
 *
 * @typedef {{type: "hello", version: string, interval: number}} HelloMessage
 * @typedef {{type: "error", message: string, field?: string, position?: number, filter: string}} ErrorMessage
 *   `filter` is that of the refused view, `position` a place in it, from 0.
 * @typedef {HelloMessage | RowsMessage | ErrorMessage} Message
 */

export {};
