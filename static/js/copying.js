/** What is copied out of the table: a line for each row, a tab between its cells, and no break within an address. */

/** @param {HTMLElement} table */
export function copyPlainly(table) {
  table.addEventListener("copy", (event) => {
    const selection = getSelection();
    if (!selection || selection.isCollapsed || !event.clipboardData) return;
    event.clipboardData.setData("text/plain", plain(selection.getRangeAt(0).cloneContents()));
    event.preventDefault();
  });
}

/** @param {ParentNode & Node} copied */
function plain(copied) {
  const line = (/** @type {ParentNode} */ of) => [...of.querySelectorAll(".cell:not([data-column='picked'])")].map((cell) => cell.textContent).join("\t");
  const rows = /** @type {HTMLElement[]} */ ([...copied.querySelectorAll(".row:not([hidden])")]);
  // Row elements are used in turn: they stand in any order in the document.
  rows.sort((one, other) => Number(one.ariaRowIndex) - Number(other.ariaRowIndex));
  return rows.length ? rows.map(line).join("\n") : line(copied) || (copied.textContent ?? "");
}
