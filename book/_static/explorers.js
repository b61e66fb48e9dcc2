// Interactive pieces of the book: plain JavaScript over JSON that a notebook has computed. No kernel, no network.
// Every control is a native input, so the keyboard works; results are announced through an aria-live line.
"use strict";

(() => {
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

  // --- scores and a movable threshold -------------------------------------------------------------------------
  // data: {unit, detectors: {name: {id: [scores], ood: [scores]}}}
  function threshold(root, data) {
    const names = Object.keys(data.detectors);
    const slider = make("input", { type: "range", min: 0 });
    const ends = [
      ["95 % of anomalies caught", () => moveTo(catching())],
      ["95 % of ordinary inputs pass", () => { moveTo(passing()); slider.value = Number(slider.value) + 1; }],
    ].map(([text, move]) => {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => { move(); draw(); });
      return button;
    });
    const plot = make("div", { class: "plots" });
    const told = make("p", { "aria-live": "polite", class: "told" });
    root.append(choice("Detector", names, (n) => { load(n); draw(); }), control("Threshold", slider), ...ends, plot, told);
    let scores, points, low, high;

    const sorted = (values) => [...values].sort((a, b) => a - b);
    function load(name) {
      const raw = data.detectors[name];
      scores = { id: sorted(raw.id), ood: sorted(raw.ood) };
      points = sorted(new Set([...raw.id, ...raw.ood]));
      [low, high] = [points[0], points[points.length - 1]];
      slider.max = points.length; // the slider counts scores, so that each step tells, and its end flags nothing
      moveTo(catching());
    }
    // the highest threshold at or above which 95 % of the anomalies lie; the lowest score that 95 % of the others reach
    const catching = () => scores.ood[Math.floor(0.05 * scores.ood.length)];
    const passing = () => scores.id[Math.ceil(0.95 * scores.id.length) - 1];
    const at = () => points[slider.value] ?? Infinity;
    const moveTo = (t) => { slider.value = points.indexOf(t); };
    const above = (values, t) => values.filter((v) => v >= t).length / values.length;
    const upTo = (values, t) => values.filter((v) => v <= t).length / values.length;

    function histogram(t) {
      const bins = 40, w = 420, h = 190, bottom = 165;
      const count = (values) => {
        const found = new Array(bins).fill(0);
        for (const v of values) found[Math.min(bins - 1, Math.floor((bins * (v - low)) / (high - low || 1)))] += 1 / values.length;
        return found;
      };
      const [a, b] = [count(scores.id), count(scores.ood)];
      const top = Math.max(...a, ...b);
      const view = make("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "Histogram of scores, with the threshold" });
      [[a, "id"], [b, "ood"]].forEach(([heights, kind]) => heights.forEach((v, i) => {
        const tall = (150 * v) / top;
        view.append(make("rect", { class: kind, x: (i * w) / bins, y: bottom - tall, width: w / bins - 0.5, height: tall }));
      }));
      const x = Math.min(w, (w * (t - low)) / (high - low || 1));
      view.append(make("line", { class: "mark", x1: x, x2: x, y1: 5, y2: bottom }));
      view.append(make("line", { class: "axis", x1: 0, x2: w, y1: bottom, y2: bottom }));
      view.append(make("text", { x: 0, y: h - 8 }, "ordinary inputs (blue) ← score → anomalies (orange)"));
      return view;
    }

    function roc(tpr, fpr) {
      const s = 165;
      const view = make("svg", { viewBox: `-30 0 ${s + 45} ${s + 28}`, style: "max-width: 16rem", role: "img", "aria-label": "ROC curve, with the threshold's point" });
      const step = Math.max(1, Math.floor(points.length / 200));
      let path = `M0 ${s}`;
      for (let i = points.length - 1; i >= 0; i -= step) path += `L${(s * above(scores.id, points[i])).toFixed(1)} ${(s * (1 - above(scores.ood, points[i]))).toFixed(1)}`;
      view.append(make("path", { class: "chance", d: `M0 ${s}L${s} 0` }), make("path", { class: "curve", d: `${path}L${s} 0` }));
      view.append(make("path", { class: "axis", d: `M0 0V${s}H${s}` }), make("circle", { class: "mark", cx: s * fpr, cy: s * (1 - tpr), r: 5 }));
      view.append(make("text", { x: 0, y: s + 18 }, "ordinary inputs flagged →"));
      view.append(make("text", { x: -8, y: s, transform: `rotate(-90 -8 ${s})` }, "anomalies caught →"));
      return view;
    }

    function draw() {
      const t = at(), tpr = above(scores.ood, t), fpr = above(scores.id, t);
      plot.replaceChildren(histogram(t), roc(tpr, fpr));
      const name = t === Infinity ? "above all scores" : t.toPrecision(3);
      slider.setAttribute("aria-valuetext", name);
      told.textContent = `At threshold ${name}: ${percent(tpr)} of the anomalies are caught, ${percent(fpr)} of the ` +
        `ordinary inputs are flagged. FPR95, anomalies positive: ${percent(above(scores.id, catching()))} of the ordinary inputs are flagged ` +
        `when 95 % of the anomalies are caught. FPR95, ordinary inputs positive: ${percent(upTo(scores.ood, passing()))} of the anomalies ` +
        `pass when 95 % of the ordinary inputs do.`;
    }
    slider.addEventListener("input", draw);
    load(names[0]);
    draw();
  }

  // --- one image under attack, over eps --------------------------------------------------------------------------
  // data: {side, eps: [..], classes: [..], images: [{label, networks: {name: {pixels: [eps][side²], probabilities: [eps][class]}}}]}
  function attack(root, data) {
    const slider = make("input", { type: "range", min: 0, max: data.eps.length - 1, value: 0 });
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

  // --- endpoints and a movable δ ------------------------------------------------------------------------------
  // data: {delta, most, ends: [{name, scale, mean, low, high, fixed}]}; fixed: an outcome that no δ changes, or null
  function delta(root, data) {
    const slider = make("input", { type: "range", min: 0, max: data.most, step: 0.1, value: data.delta });
    const body = make("tbody", {});
    const head = make("tr", {}, ...["endpoint", "scale", "difference", "outcome"].map((n) => make("th", { scope: "col" }, n)));
    const told = make("p", { "aria-live": "polite", class: "told" });
    root.append(control("δ, in points", slider), make("table", {}, make("thead", {}, head), body), told);

    function outcome(e, d) {
      if (e.fixed) return e.fixed;
      if (e.low > 0) return e.high < d ? "better by less than δ" : "better";
      if (e.high < 0) return e.low > -d ? "worse by less than δ" : "worse";
      return e.low > -d && e.high < d ? "equal" : "open";
    }

    const signed = (v) => (v < 0 ? "" : "+") + v.toFixed(1);
    function draw() {
      const d = Number(slider.value), counts = new Map();
      body.replaceChildren(...data.ends.map((e) => {
        const name = outcome(e, d);
        counts.set(e.scale, [...(counts.get(e.scale) ?? []), `${e.name}: ${name}`]);
        const cells = [e.name, e.scale, `${signed(e.mean)} [${e.low.toFixed(1)}, ${e.high.toFixed(1)}]`, name];
        return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
      }));
      slider.setAttribute("aria-valuetext", `${d.toFixed(1)} points`);
      told.textContent = `δ = ${d.toFixed(1)} points.`;
    }
    slider.addEventListener("input", draw);
    draw();
  }

  const kinds = { threshold, attack, delta };

  function start() {
    for (const root of document.querySelectorAll("[data-explorer]")) {
      const source = root.querySelector('script[type="application/json"]');
      const data = JSON.parse(source.textContent);
      root.querySelector(".fallback")?.remove();
      kinds[root.dataset.explorer](root, data);
      root.dataset.ready = "yes";
    }
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
