// A certificate by votes: noisy copies, the class they name, the bound on its probability, the radius.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;

  // data: {classes, side, alpha, sigmas, ns, images: [{title, label, at: [for each σ: {copy: [side²], counts: [for each
  //        n: [votes of each class]], picked, bound: [for each n], radius: [..], cap: [..]}]}]}
  function votes(root, data) {
    const titles = data.images.map((image) => image.title);
    let image = data.images[0];
    const sigma = make("input", { type: "range", min: 0, max: data.sigmas.length - 1, value: data.start.sigma });
    const copies = make("input", { type: "range", min: 0, max: data.ns.length - 1, value: data.start.n });
    const stage = make("div", { class: "plots" });
    const told = make("p", { "aria-live": "polite", class: "told" });
    root.append(
      choice("Image", titles, (t) => { image = data.images[titles.indexOf(t)]; draw(); }),
      control("Noise σ", sigma), control("Noisy copies n", copies), stage, told,
    );

    function picture(pixels) {
      const canvas = make("canvas", { width: data.side, height: data.side, role: "img", "aria-label": "one noisy copy of the image" });
      const context = canvas.getContext("2d"), raw = context.createImageData(data.side, data.side);
      pixels.forEach((v, i) => raw.data.set([v, v, v, 255], 4 * i));
      context.putImageData(raw, 0, 0);
      return make("figure", {}, canvas, make("figcaption", {}, "one noisy copy"));
    }

    function bars(counts, n, picked, bound) {
      const high = 15, left = 10 + 7 * Math.max(...data.classes.map((c) => c.length)), wide = 280 - left - 38;
      const tall = counts.length * high;
      const view = make("svg", { viewBox: `0 0 280 ${tall + 34}`, role: "img", "aria-label": "Share of the votes of each class, with one half and the lower bound" });
      const half = left + wide / 2;
      counts.forEach((votes, k) => {
        const y = k * high;
        view.append(make("text", { x: 0, y: y + 11 }, data.classes[k]));
        view.append(make("rect", { class: k === picked ? "id" : "ood", x: left, y: y + 2, width: Math.max(0.5, (wide * votes) / n), height: high - 4 }));
        view.append(make("text", { x: left + (wide * votes) / n + 4, y: y + 11 }, String(votes)));
      });
      view.append(make("line", { class: "chance", x1: half, x2: half, y1: 0, y2: tall + 4 }));
      view.append(make("text", { x: half, y: tall + 16, "text-anchor": "middle" }, "one half"));
      if (bound > 0) {
        const at = left + wide * bound;
        view.append(make("line", { class: "mark", x1: at, x2: at, y1: 0, y2: tall + 18 }));
        view.append(make("text", { x: Math.min(at, 240), y: tall + 30, "text-anchor": "middle" }, "lower bound"));
      }
      return view;
    }

    function draw() {
      const s = Number(sigma.value), i = Number(copies.value), n = data.ns[i], own = image.at[s];
      const counts = own.counts[i], bound = own.bound[i], radius = own.radius[i], sure = bound > 0.5;
      stage.replaceChildren(bars(counts, n, own.picked, bound), picture(own.copy));
      sigma.setAttribute("aria-valuetext", String(data.sigmas[s]));
      copies.setAttribute("aria-valuetext", String(n));
      const name = data.classes[own.picked];
      const ends = sure
        ? `it is above one half: ${name} is certified within radius ${radius.toFixed(3)} (L2). The most that ${n} copies allow is ${own.cap[i].toFixed(3)}.`
        : "it is not above one half: no class is certified, the classifier abstains.";
      told.textContent = `σ = ${data.sigmas[s]}, n = ${n}: ${counts[own.picked]} of ${n} noisy copies are named ${name} ` +
        `(label: ${data.classes[image.label]}). The lower bound of its probability is ${percent(bound)} (α = ${data.alpha}); ${ends}`;
    }
    sigma.addEventListener("input", draw);
    copies.addEventListener("input", draw);
    draw();
  }

  explorers.register("votes", votes);
})();
