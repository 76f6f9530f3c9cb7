/** The theme switch. Choosing what the system has anyway means following the system again. */

const KEY = "ctweb.theme";
const systemDark = matchMedia("(prefers-color-scheme: dark)");

/** @param {HTMLButtonElement} button */
export function themeSwitch(button) {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const label = () => {
    const text = dark() ? "Switch to light" : "Switch to dark";
    button.title = text;
    button.setAttribute("aria-label", text);
  };
  button.addEventListener("click", () => {
    const wanted = dark() ? "light" : "dark";
    if ((wanted === "dark") === systemDark.matches) {
      delete root.dataset.theme;
      localStorage.removeItem(KEY);
    } else {
      root.dataset.theme = wanted;
      localStorage.setItem(KEY, wanted);
    }
    label();
  });
  systemDark.addEventListener("change", label);
  label();
}
