// Two layers of 4×4 weights, pruned together: which weights stay under each criterion.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;
  const SIDE = 4, CELL = 36, HEAD = 18;

  // data: {views: {name: {weights: [[16], [16]], gradients: [[16], [16]], of: {criterion: {stays: [32], accuracy: [33]}}}}, start, chance}
  // gradients: 1000 times as large as they are. stays: at how many of the counts 0 … 32 a weight stays. They are nested, so it stays at count n where stays > 32 − n.
  function layer(root, data) {
    const views = Object.keys(data.views), names = Object.keys(data.views[views[0]].of), all = 2 * SIDE * SIDE;
    let view = views[0], criterion = names[0];
    const slider = make("input", { type: "range", min: 0, max: all, value: data.start });
    const grids = make("div", { class: "grids" }), told = make("p", { "aria-live": "polite", class: "told" });
    root.append(
      choice("Criterion", names, (n) => { criterion = n; draw(); }), choice("Scale", views, (n) => { view = n; draw(); }),
      control("Weights that stay", slider), grids, told,
    );

    function short(v) {
      const size = Math.abs(v);
      if (size === 0) return "0";
      if (size < 0.00095) return `${v < 0 ? "−" : ""}<.001`;
      const text = size >= 9.95 ? size.toFixed(0) : size >= 0.0995 ? size.toFixed(1) : size.toFixed(3);
      return (v < 0 ? "−" : "") + text.replace(/^0\./, ".");
    }

    function grid(title, values, kept) {
      const wide = SIDE * CELL;
      const cells = make("svg", { viewBox: `0 0 ${wide} ${wide + HEAD}`, role: "img", "aria-label": title });
      cells.append(make("text", { x: 0, y: 12 }, title));
      values.forEach((v, i) => {
        const x = (i % SIDE) * CELL, y = HEAD + Math.floor(i / SIDE) * CELL;
        cells.append(make("rect", { class: kept[i] ? "stays" : "gone", x: x + 1, y: y + 1, width: CELL - 2, height: CELL - 2 }));
        cells.append(make("text", { class: kept[i] ? "kept" : "lost", x: x + CELL / 2, y: y + CELL / 2 + 4, "text-anchor": "middle" }, short(v)));
      });
      return cells;
    }

    function draw() {
      const count = Number(slider.value), now = data.views[view], own = now.of[criterion];
      const kept = own.stays.map((n) => n > all - count), parts = [kept.slice(0, all / 2), kept.slice(all / 2)];
      const left = parts.map((part) => part.filter(Boolean).length);
      grids.replaceChildren(...parts.flatMap((part, i) => [
        grid(`layer ${i + 1}: weights`, now.weights[i], part), grid(`layer ${i + 1}: 1000 × gradients`, now.gradients[i], part),
      ]));
      const empty = left.map((n, i) => (n ? "" : `layer ${i + 1}`)).filter(Boolean);
      const collapse = empty.length && count ? ` Collapse: ${empty.join(" and ")} is empty, and nothing passes it.` : "";
      slider.setAttribute("aria-valuetext", `${count} of ${all}`);
      told.textContent = `${criterion}, ${view}: ${count} of ${all} weights stay, ${left[0]} in layer 1 and ${left[1]} in layer 2.${collapse} ` +
        `Accuracy ${percent(own.accuracy[count])} (all weights: ${percent(own.accuracy[all])}, chance: ${percent(data.chance)}).`;
    }
    slider.addEventListener("input", draw);
    draw();
  }

  explorers.register("layer", layer);
})();
