// One image made unusual in three ways, and what two networks say to it.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;
  const SIGNS = { right: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0", rejected: "M-5-2h10v4h-10z", "wrong and unnoticed": "M-5-5L5 5M5-5L-5 5" };
  const KINDS = { right: "id", rejected: "refused", "wrong and unnoticed": "missed" };

  // data: {side, classes, label, thresholds: {network: score}, ways: [{name, strength, values, start, classless: [bool],
  //   networks: {network: {pixels: [[side²]], answers: [{p: [], score, said, outcome}]}}}]}; outcomes come computed
  function unusual(root, data) {
    const slider = make("input", { type: "range", min: 0 });
    const strip = make("div", { class: "strips" }), stage = make("div", { class: "plots" });
    const told = make("p", { "aria-live": "polite", class: "told" });
    const held = control("Strength", slider);
    let way;
    const names = data.ways.map((w) => w.name);
    root.append(choice("The image is changed by", names, (n) => { load(n); draw(); }), held, strip, stage, told);

    function load(name) {
      way = data.ways[names.indexOf(name)];
      slider.max = way.values.length - 1;
      slider.value = way.start;
      held.firstChild.textContent = `Strength (${way.strength})`;
    }

    function sign(outcome, x, y) {
      return make("path", { class: `sign ${KINDS[outcome]}`, d: SIGNS[outcome], transform: `translate(${x} ${y})` });
    }

    function picture(pixels, name) {
      const canvas = make("canvas", { width: data.side, height: data.side, role: "img", "aria-label": `the image before the ${name} network` });
      const context = canvas.getContext("2d"), raw = context.createImageData(data.side, data.side);
      pixels.forEach((v, i) => raw.data.set([v, v, v, 255], 4 * i));
      context.putImageData(raw, 0, 0);
      return canvas;
    }

    function bars(answer, right) {
      const step = 150 / answer.p.length, left = 10 + 6 * Math.max(...data.classes.map((c) => c.length));
      const view = make("svg", { viewBox: "0 0 130 152", role: "img", "aria-label": "probability of each class" });
      answer.p.forEach((v, k) => {
        view.append(make("text", { x: 0, y: (k + 0.75) * step }, data.classes[k]));
        view.append(make("rect", { class: k === right ? "id" : "ood", x: left, y: k * step + 2, width: Math.max(0.5, (126 - left) * v), height: step - 4 }));
      });
      return view;
    }

    function strips(now) {
      const n = way.values.length, left = 52, cell = (320 - left) / n, all = Object.entries(way.networks);
      const view = make("svg", { viewBox: `0 0 320 ${26 * all.length + 20}`, role: "img", "aria-label": "outcome at each strength" });
      view.append(make("rect", { class: "here", x: left + now * cell + 1, y: 1, width: cell - 2, height: 26 * all.length + 17, rx: 3 }));
      all.forEach(([name, net], row) => {
        view.append(make("text", { x: 0, y: 26 * row + 18 }, name));
        net.answers.forEach((a, i) => view.append(sign(a.outcome, left + (i + 0.5) * cell, 26 * row + 14)));
      });
      for (const i of [0, n - 1]) view.append(make("text", { x: left + (i + 0.5) * cell, y: 26 * all.length + 14, "text-anchor": "middle" }, String(way.values[i])));
      return view;
    }

    function draw() {
      const i = Number(slider.value), right = way.classless[i] ? -1 : data.label, said = [];
      stage.replaceChildren();
      for (const [name, net] of Object.entries(way.networks)) {
        const a = net.answers[i], limit = data.thresholds[name], side = a.score > limit ? "above" : "not above";
        said.push(`the ${name} network says ${data.classes[a.said]} (${percent(a.p[a.said])}), its score ${a.score.toFixed(2)} is ${side} the threshold ${limit.toFixed(2)}: ${a.outcome}`);
        const words = make("figcaption", {}, make("strong", {}, `${name}: ${a.outcome}`), make("br"), `says ${data.classes[a.said]}, MSP score ${a.score.toFixed(2)}, rejected above ${limit.toFixed(2)}`);
        stage.append(make("figure", {}, picture(net.pixels[i], name), bars(a, right), words));
      }
      strip.replaceChildren(strips(i), make("p", { class: "key" }, "● right   ▬ rejected   ✕ wrong and unnoticed"));
      const truth = right === -1 ? "no class is right" : `the right class is ${data.classes[right]}`;
      const value = `${way.strength} ${way.values[i]}`;
      told.textContent = `${way.name}, ${value}: ${said.join("; ")}. Here, ${truth}.`;
      slider.setAttribute("aria-valuetext", value);
    }
    slider.addEventListener("input", draw);
    load(names[0]);
    draw();
  }

  explorers.register("unusual", unusual);
})();
