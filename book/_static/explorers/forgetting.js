// The images that sparse networks lose, over sparsity.
"use strict";

(() => {
  const { make, control, percent } = explorers;

  // data: {height, width, classes, levels: [{sparsity, lost, gained, accuracy}], images: [{pixels: 0 … 255, label, dense, sparse: [level]}],
  //        tested, seeds, dense: accuracy}
  function forgetting(root, data) {
    const slider = make("input", { type: "range", min: 0, max: data.levels.length - 1, value: data.levels.length - 1 });
    const stage = make("div", { class: "lost" }), told = make("p", { "aria-live": "polite", class: "told" });
    root.append(control("Sparsity", slider), told, stage);

    function card(image, level) {
      const [label, said] = [image.label, image.sparse[level]].map((k) => data.classes[k]);
      const canvas = make("canvas", { width: data.width, height: data.height, role: "img", "aria-label": `an image of class ${label}` });
      const context = canvas.getContext("2d"), raw = context.createImageData(data.width, data.height);
      image.pixels.forEach((v, i) => raw.data.set([v, v, v, 255], 4 * i));
      context.putImageData(raw, 0, 0);
      return make("figure", {}, canvas, make("figcaption", {}, `${label} → ${said}`));
    }

    function draw() {
      const at = Number(slider.value), level = data.levels[at];
      const shown = data.images.filter((image) => image.dense === image.label && image.sparse[at] !== image.label);
      stage.replaceChildren(...shown.map((image) => card(image, at)));
      const counts = new Map();
      for (const image of shown) counts.set(image.label, (counts.get(image.label) ?? 0) + 1);
      const [worst, times] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [];
      const part = shown.length < level.lost ? ` The first ${shown.length} are shown.` : "";
      told.textContent = `Sparsity ${level.sparsity}: of ${data.tested} images, ${level.lost} ${level.lost === 1 ? "is" : "are"} lost and ` +
        `${level.gained} gained by the vote of ${data.seeds} networks.${part}` +
        (times ? ` ${times} of the ${shown.length} shown ${times === 1 ? "is" : "are"} of class ${data.classes[worst]}.` : "") +
        ` Mean accuracy ${percent(level.accuracy)}, dense ${percent(data.dense)}. Under each image: label → vote of the sparse networks.`;
      slider.setAttribute("aria-valuetext", String(level.sparsity));
    }
    slider.addEventListener("input", draw);
    draw();
  }

  explorers.register("forgetting", forgetting);
})();
