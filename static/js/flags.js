/** RouterOS's flag letters, in the order in which they are printed. */

/** @type {ReadonlyMap<string, [string, string]>} */
export const FLAGS = new Map([
  ["E", ["expected", "set up by a connection helper"]],
  ["S", ["seen-reply", "the destination has answered"]],
  ["A", ["assured", "stays when the table is full"]],
  ["C", ["confirmed", "a packet of it has left this machine"]],
  ["D", ["dying", "its timeout has passed: about to be removed"]],
  ["F", ["fasttrack", "takes the fast path"]],
  ["H", ["hw-offload", "forwarded by the hardware"]],
  ["s", ["srcnat", "its source address is translated"]],
  ["d", ["dstnat", "its destination address is translated"]],
  ["h", ["uses-helper", "a connection helper reads along"]],
]);

/**
 * The letters in words, one a line.
 * @param {string} letters
 */
export function explainFlags(letters) {
  return [...letters]
    .map((letter) => {
      const [name, meaning] = FLAGS.get(letter) ?? ["", "unknown"];
      return `${letter}  ${name}: ${meaning}`;
    })
    .join("\n");
}
