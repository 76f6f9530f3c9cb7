/** The dialog with the keys and the flags. */

import { FLAGS } from "./flags.js";

/**
 * @param {HTMLDialogElement} dialog
 * @returns {HTMLDialogElement}
 */
export function helpDialog(dialog) {
  const legend = /** @type {HTMLElement} */ (dialog.querySelector(".flag-legend"));
  for (const [letter, [name, meaning]] of FLAGS) {
    const term = document.createElement("dt");
    term.textContent = letter;
    const description = document.createElement("dd");
    const title = document.createElement("b");
    title.textContent = name;
    description.append(title, ` ${meaning}`);
    legend.append(term, description);
  }
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return dialog;
}
