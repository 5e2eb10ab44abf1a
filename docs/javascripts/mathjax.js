// Formulas of the pages, as pymdownx.arithmatex marks them.
window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]], processEscapes: true },
  options: { ignoreHtmlClass: ".*|", processHtmlClass: "arithmatex" },
};
document$.subscribe(() => MathJax.startup?.promise?.then(() => MathJax.typesetPromise()));
