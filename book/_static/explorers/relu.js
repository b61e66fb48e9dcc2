// A plane, a ReLU network's scores over it, and a point to move.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;

  // data: {axis: [coordinates of both axes], points: [[x₁, x₂]], confidence: [..], label: [name..], start: [i, j],
  //        scores: {name: {value: [..], share: [..]}}}; lists over the plane run over x₁ first, x₂ from low to high
  function relu(root, data) {
    const steps = data.axis.length, [low, high] = [data.axis[0], data.axis[steps - 1]];
    const names = Object.keys(data.scores), size = 280, cell = size / steps;
    const sliders = [0, 1].map((k) => make("input", { type: "range", min: 0, max: steps - 1, value: data.start[k] }));
    const place = (v) => ((v - low) / (high - low)) * (size - cell) + cell / 2;
    const heat = make("g", {}), dot = make("circle", { class: "mark ring", r: 6 });
    const lines = [0, 1].map(() => make("line", { class: "cross" }));
    const view = make("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", class: "plane" });
    const cloud = data.points.map(([a, b]) => make("circle", { class: "datum", cx: place(a), cy: size - place(b), r: 1.6 }));
    view.append(heat, ...cloud, ...lines, dot);
    const readings = make("table", {}), told = make("p", { "aria-live": "polite", class: "told" });
    const key = make("p", { class: "key" });
    const plots = make("div", { class: "plots" }, view, readings);
    const pick = choice("Score shown on the plane", names, (n) => { name = n; paint(); draw(); });
    root.append(pick, control("x₁", sliders[0]), control("x₂", sliders[1]), plots, key, told);
    let name = names[0];

    function paint() {
      heat.replaceChildren(...data.scores[name].share.map((share, n) => {
        const [i, j] = [n % steps, Math.floor(n / steps)];
        const at = { class: "heat", x: i * cell, y: size - (j + 1) * cell, width: cell + 0.3, height: cell + 0.3 };
        return make("rect", { ...at, "fill-opacity": share });
      }));
      view.setAttribute("aria-label", `The plane, coloured by ${name}, with the training data and the point`);
      key.textContent = "Full colour: scores above all ordinary inputs; no colour: scores below all of them. " +
        "Small dots: training data. Ring: the point.";
    }

    function draw() {
      const [i, j] = sliders.map((s) => Number(s.value)), n = j * steps + i;
      const [x, y] = [place(data.axis[i]), size - place(data.axis[j])];
      for (const [attribute, value] of Object.entries({ cx: x, cy: y })) dot.setAttribute(attribute, value);
      const ends = [{ x1: x, x2: x, y1: 0, y2: size }, { x1: 0, x2: size, y1: y, y2: y }];
      lines.forEach((line, k) => Object.entries(ends[k]).forEach(([attribute, value]) => line.setAttribute(attribute, value)));
      sliders.forEach((s, k) => s.setAttribute("aria-valuetext", data.axis[[i, j][k]].toFixed(2)));
      const row = (kind, cells) => make("tr", {}, ...cells.map((text) => make(kind, {}, text)));
      const read = (s) => [s.value[n].toPrecision(3), percent(s.share[n])];
      readings.replaceChildren(
        row("th", ["score", "here", "ordinary below"]),
        ...Object.entries(data.scores).map(([kind, s]) => row("td", [kind, ...read(s)])),
      );
      const [value, share] = read(data.scores[name]);
      told.textContent = `At (${data.axis[i].toFixed(2)}, ${data.axis[j].toFixed(2)}) the network says ${data.label[n]} ` +
        `with a confidence of ${percent(data.confidence[n])}. ${name} scores ${value}: ${share} of the ordinary inputs ` +
        `score lower.`;
    }

    sliders.forEach((slider) => slider.addEventListener("input", draw));
    paint();
    draw();
  }

  explorers.register("relu", relu);
})();
