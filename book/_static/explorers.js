// Interactive pieces of the book: plain JavaScript over JSON that a notebook has computed. No kernel, no network.
// Every control is a native input, so the keyboard works; results are announced through an aria-live line.
// Each kind has a file in explorers/; the build appends them to this one.
"use strict";

const explorers = (() => {
  const SVG = "http://www.w3.org/2000/svg";

  function make(name, attributes = {}, ...children) {
    const svg = ["svg", "rect", "line", "path", "circle", "text", "g"].includes(name);
    const node = svg ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  let labels = 0;
  function control(text, input) {
    input.id = `explorer-input-${labels++}`;
    return make("label", { class: "control", for: input.id }, text, " ", input);
  }

  function choice(text, names, change) {
    const select = make("select", {}, ...names.map((n) => make("option", { value: n }, n)));
    select.addEventListener("change", () => change(select.value));
    return control(text, select);
  }

  const percent = (value) => `${(100 * value).toFixed(1)} %`;

  function minus(root) { // numbers below zero have the sign that print has, whatever a piece writes
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const node = texts.currentNode, told = node.data.replace(/(^|[\s([])-(?=\.?\d)/g, "$1−");
      if (told !== node.data && !node.parentNode.closest("script, option")) node.data = told;
    }
  }

  const kinds = {};

  function start() {
    for (const root of document.querySelectorAll("[data-explorer]:not([data-ready])")) {
      const piece = kinds[root.dataset.explorer];
      if (!piece) continue;
      const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
      root.querySelector(".fallback")?.remove();
      piece(root, data);
      minus(root);
      new MutationObserver(() => minus(root)).observe(root, { childList: true, characterData: true, subtree: true });
      root.dataset.ready = "yes";
    }
  }

  function register(kind, piece) { // piece(root, data) fills the root
    kinds[kind] = piece;
    if (document.readyState !== "loading") start();
  }

  document.addEventListener("DOMContentLoaded", start);
  return { make, control, choice, percent, register };
})();
