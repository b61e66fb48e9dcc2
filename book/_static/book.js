// What every page of the book needs; plain JavaScript, no network.
"use strict";

// Opened as a file, a page may not read another one: results of the search come without excerpts.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// What is wider than the page scrolls in itself, and by keyboard, too: it takes the focus and says what it is.
(() => {
  const WIDE = ".pst-scrollable-table-container, .wide, .cell_output .output, .explorer table, details table, pre, .highlight, mjx-container, div.math";

  function named(node) {
    const own = node.querySelector("caption")?.textContent ?? node.closest("details")?.querySelector("summary")?.textContent;
    const section = node.closest("section")?.querySelector("h1, h2, h3, h4")?.firstChild?.textContent;
    const what = node.matches("pre, .highlight") ? "Code" : node.matches("mjx-container, div.math") ? "Equation" : "Table";
    return `${what}: ${(own ?? section ?? document.title).trim()}`;
  }

  function look() {
    for (const node of document.querySelectorAll(WIDE)) {
      if (node.closest("[tabindex='0']:not([data-wide])") && !node.matches("[tabindex]")) continue;
      const scrolls = node.scrollWidth > node.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(node).overflowX);
      if (scrolls && !node.dataset.wide) {
        node.dataset.wide = "yes";
        node.tabIndex = 0;
        if (!/^(TABLE|PRE)$/.test(node.tagName) && node.tagName !== "MJX-CONTAINER") node.setAttribute("role", "group");
        if (node.hasAttribute("role")) node.setAttribute("aria-label", named(node));
      } else if (!scrolls && node.dataset.wide) {
        for (const name of ["data-wide", "tabindex", "aria-label"]) node.removeAttribute(name);
        if (node.getAttribute("role") === "group") node.removeAttribute("role");
      }
    }
  }

  addEventListener("load", look);
  addEventListener("resize", look);
  document.addEventListener("toggle", look, true);
})();
