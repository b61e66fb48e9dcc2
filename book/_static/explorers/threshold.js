// Scores, a movable threshold, and how rare anomalies are.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;

  const RARE = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000]; // one input in so many is an anomaly

  // data: {detectors: {name: {id: [scores], ood: [scores]}}}
  function threshold(root, data) {
    const names = Object.keys(data.detectors);
    const slider = make("input", { type: "range", min: 0 });
    const rare = make("input", { type: "range", min: 0, max: RARE.length - 1, value: RARE.indexOf(100) });
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
    root.append(choice("Detector", names, (n) => { load(n); draw(); }), control("Threshold", slider), ...ends, control("How rare anomalies are", rare), plot, told);
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
      const bins = 40, w = 300, h = 190, bottom = 165;
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
      view.append(make("text", { x: 0, y: h - 8 }, "ordinary (blue) ← score → anomalies (orange)"));
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

    // of all alarms, the wrong ones: blue, and the right ones: orange
    function alarms(wrong, one) {
      const w = 300, view = make("svg", { viewBox: `0 0 ${w} 74`, role: "img", "aria-label": "Alarms, wrong and right" });
      view.append(make("text", { x: 0, y: 14 }, `alarms, where 1 input in ${one} is an anomaly:`));
      if (!(wrong >= 0)) return view;
      view.append(make("rect", { class: "id", x: 0, y: 22, width: w * wrong, height: 26 }));
      view.append(make("rect", { class: "ood", x: w * wrong, y: 22, width: w * (1 - wrong), height: 26 }));
      view.append(make("text", { x: 0, y: 66 }, "wrong (blue)"), make("text", { x: w, y: 66, "text-anchor": "end" }, "right (orange)"));
      return view;
    }

    function draw() {
      const t = at(), tpr = above(scores.ood, t), fpr = above(scores.id, t), one = RARE[rare.value];
      const wrong = (fpr * (1 - 1 / one)) / (fpr * (1 - 1 / one) + tpr / one); // NaN where nothing is flagged
      plot.replaceChildren(histogram(t), roc(tpr, fpr), alarms(wrong, one));
      rare.setAttribute("aria-valuetext", `1 in ${one}`);
      const name = t === Infinity ? "above all scores" : t.toPrecision(3);
      slider.setAttribute("aria-valuetext", name);
      told.textContent = `At threshold ${name}: ${percent(tpr)} of the anomalies are caught, ${percent(fpr)} of the ` +
        `ordinary inputs are flagged. FPR95, anomalies positive: ${percent(above(scores.id, catching()))} of the ordinary inputs are flagged ` +
        `when 95 % of the anomalies are caught. FPR95, ordinary inputs positive: ${percent(upTo(scores.ood, passing()))} of the anomalies ` +
        `pass when 95 % of the ordinary inputs do. Where 1 input in ${one} is an anomaly, ` +
        (wrong >= 0 ? `${percent(wrong)} of alarms are wrong.` : "there are no alarms.");
    }
    for (const input of [slider, rare]) input.addEventListener("input", draw);
    load(names[0]);
    draw();
  }

  explorers.register("threshold", threshold);
})();
