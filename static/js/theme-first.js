/* Before the first paint, hence not a module: the theme that was chosen here, if one was. */
{
  const chosen = localStorage.getItem("ctweb.theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
}
