// One image under attack, over eps.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;

  // data: {side, eps: [..], start: place in eps (default 0), classes: [..], images: [{label, networks: {name: {pixels: [eps][side²], probabilities: [eps][class]}}}]}
  function attack(root, data) {
    const slider = make("input", { type: "range", min: 0, max: data.eps.length - 1, value: data.start ?? 0 });
    const titles = data.images.map((image, i) => `${i + 1}: a ${data.classes[image.label]}`);
    let image = data.images[0];
    const stage = make("div", { class: "plots" });
    const told = make("p", { "aria-live": "polite", class: "told" });
    root.append(choice("Image", titles, (t) => { image = data.images[titles.indexOf(t)]; draw(); }), control("ε", slider), stage, told);

    function picture(pixels, name) {
      const canvas = make("canvas", { width: data.side, height: data.side, role: "img", "aria-label": `the image attacked against the ${name} network` });
      const context = canvas.getContext("2d"), raw = context.createImageData(data.side, data.side);
      pixels.forEach((v, i) => raw.data.set([v, v, v, 255], 4 * i));
      context.putImageData(raw, 0, 0);
      return canvas;
    }

    function bars(probabilities) {
      const view = make("svg", { viewBox: "0 0 160 150", role: "img", "aria-label": "probability of each class" });
      const step = 150 / probabilities.length, left = 10 + 6 * Math.max(...data.classes.map((c) => c.length));
      probabilities.forEach((p, k) => {
        view.append(make("text", { x: 0, y: (k + 0.75) * step }, data.classes[k]));
        view.append(make("rect", { class: k === image.label ? "id" : "ood", x: left, y: k * step + 2, width: Math.max(0.5, (156 - left) * p), height: step - 4 }));
      });
      return view;
    }

    function draw() {
      const e = Number(slider.value), said = [];
      stage.replaceChildren();
      for (const [name, net] of Object.entries(image.networks)) {
        const p = net.probabilities[e], best = p.indexOf(Math.max(...p));
        said.push(`the ${name} network says ${data.classes[best]} (${percent(p[best])})`);
        stage.append(make("figure", {}, picture(net.pixels[e], name), bars(p), make("figcaption", {}, `${name}: ${data.classes[best]}`)));
      }
      told.textContent = `ε = ${data.eps[e]}: ${said.join(", ")}; the label is ${data.classes[image.label]}.`;
      slider.setAttribute("aria-valuetext", String(data.eps[e]));
    }
    slider.addEventListener("input", draw);
    draw();
  }

  explorers.register("attack", attack);
})();
