/** Terms of the filter language, made from what a cell shows. The grammar is the server's (ctweb/table/filter_language.py). */

/**
 * @param {string} field
 * @param {string} value
 */
export function term(field, value) {
  const plain = /^[^\s(),"]+$/.test(value);
  return `${field}:${plain ? value : `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`}`;
}

/**
 * `filter` and also `added`; unchanged where it stands there already.
 * @param {string} filter
 * @param {string} added
 */
export function narrowed(filter, added) {
  if (!filter) return added;
  if (` ${filter} `.includes(` ${added} `)) return filter;
  // What is joined by "or" binds looser than what is added.
  return / or /i.test(filter) ? `(${filter}) ${added}` : `${filter} ${added}`;
}

/** Whether a click is for all but that. @param {MouseEvent} event */
export const excludes = (event) => event.altKey || event.shiftKey || event.ctrlKey || event.metaKey;

/** All but that. @param {string} term */
export function without(term) {
  if (term.startsWith("!")) return term.slice(1);
  // A space that is not within quotes joins two terms.
  return / /.test(term.replace(/"(?:[^"\\]|\\.)*"/g, "")) ? `!(${term})` : `!${term}`;
}
