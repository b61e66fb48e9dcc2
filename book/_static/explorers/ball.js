// FGSM and PGD in two dimensions, step by step.
"use strict";

(() => {
  const { make, control, choice } = explorers;
  const S = 300; // the side of the drawing

  // data: {classes: [two], says: ["0110…", …] of the grid's rows, lowest first, points: {name: {at, label, walks}},
  //        eps: [..]}; walks: {norm: {attack: [for each ε, the points [[x, y, loss, says], …] from the start on]}}
  function ball(root, data) {
    const names = Object.keys(data.points);
    const chosen = { point: names[0], norm: null, attack: null };
    const first = data.points[names[0]].walks;
    const norms = Object.keys(first), attacks = Object.keys(first[norms[0]]);
    [chosen.norm, chosen.attack] = [norms[0], attacks[attacks.length - 1]];
    const radius = make("input", { type: "range", min: 0, max: data.eps.length - 1, value: data.start ?? 0 });
    const step = make("input", { type: "range", min: 0 });
    const stage = make("div", { class: "plots" });
    const told = make("p", { "aria-live": "polite", class: "told" });
    const pick = (text, among, key) => choice(text, among, (value) => { chosen[key] = value; toEnd(); draw(); });
    const attackChoice = pick("Attack", attacks, "attack");
    attackChoice.querySelector("select").value = chosen.attack;
    root.append(
      pick("Point", names, "point"), pick("Norm", norms, "norm"), attackChoice,
      control("Radius ε", radius), control("Step", step), stage, told,
    );

    const walk = (attack) => data.points[chosen.point].walks[chosen.norm][attack][radius.value];
    const toEnd = () => { step.max = walk(chosen.attack).length - 1; step.value = step.max; };
    const X = (v) => (S * v).toFixed(1), Y = (v) => (S * (1 - v)).toFixed(1);

    function ground(view) {
      const n = data.says.length, side = S / n;
      data.says.forEach((row, i) => { // a rectangle for each run of one class
        for (let from = 0; from < n;) {
          let to = from;
          while (to < n && row[to] === row[from]) to++;
          const kind = row[from] === "1" ? "one" : "zero";
          view.append(make("rect", { class: kind, x: from * side, y: S - (i + 1) * side, width: (to - from) * side + 0.3, height: side + 0.9 }));
          from = to;
        }
      });
    }

    function rim(view, [x, y], eps) {
      const round = chosen.norm === norms[1];
      view.append(round
        ? make("circle", { class: "rim", cx: X(x), cy: Y(y), r: S * eps })
        : make("rect", { class: "rim", x: X(x - eps), y: Y(y + eps), width: 2 * S * eps, height: 2 * S * eps }));
    }

    function draw() {
      const point = data.points[chosen.point], eps = data.eps[radius.value];
      step.max = walk(chosen.attack).length - 1;
      const at = Number(step.value), way = walk(chosen.attack).slice(0, at + 1);
      const view = make("svg", { viewBox: `0 0 ${S} ${S + 40}`, role: "img", "aria-label": `The plane with the classes that the network names, the ball, and the way of ${chosen.attack}` });
      ground(view);
      rim(view, point.at, eps);
      const other = attacks.find((name) => name !== chosen.attack), end = walk(other)[walk(other).length - 1];
      view.append(make("path", { class: "other", d: `M${X(point.at[0])} ${Y(point.at[1])}L${X(end[0])} ${Y(end[1])}` }));
      view.append(make("rect", { class: "other", x: X(end[0]) - 5, y: Y(end[1]) - 5, width: 10, height: 10 }));
      view.append(make("path", { class: "way", d: way.map(([x, y], i) => `${i ? "L" : "M"}${X(x)} ${Y(y)}`).join("") }));
      way.forEach(([x, y, , says], i) => {
        const broken = says !== point.label;
        view.append(broken
          ? make("path", { class: i === at ? "broken here" : "broken", d: `M${X(x) - 5} ${Y(y) - 5}l10 10m0 -10l-10 10` })
          : make("circle", { class: i === at ? "right here" : "right", cx: X(x), cy: Y(y), r: i ? 4 : 5 }));
      });
      view.append(make("text", { x: 0, y: S + 16 }, `light: ${data.classes[0]}, dark: ${data.classes[1]}`));
      view.append(make("text", { x: 0, y: S + 33 }, `○ right, × broken, □ end of ${other}`));
      stage.replaceChildren(view, table(way, point));
      const [x, y, loss, says] = way[at];
      const best = way.reduce((a, b, i) => (b[2] > way[a][2] ? i : a), 0);
      radius.setAttribute("aria-valuetext", String(eps));
      step.setAttribute("aria-valuetext", `${at} of ${step.max}`);
      told.textContent = `${chosen.attack}, ${chosen.norm} ε = ${eps}, step ${at} of ${step.max}: at (${x.toFixed(2)}, ${y.toFixed(2)}) ` +
        `the loss is ${loss.toFixed(2)} and the network says ${data.classes[says]}; the label is ${data.classes[point.label]}. ` +
        `The largest loss so far is ${way[best][2].toFixed(2)}, at step ${best}: the point is ${way[best][3] === point.label ? "not broken" : "broken"}.`;
    }

    function table(way, point) {
      const lines = attacks.map((name) => {
        const full = walk(name), losses = full.map((p) => p[2]), most = Math.max(...losses);
        const broken = full[losses.indexOf(most)][3] !== point.label;
        return make("tr", {}, make("td", {}, name), make("td", {}, String(full.length - 1)), make("td", {}, most.toFixed(2)), make("td", {}, broken ? "yes" : "no"));
      });
      const head = ["all steps of", "steps", "largest loss", "broken"].map((h) => make("th", { scope: "col" }, h));
      return make("table", {}, make("tr", {}, ...head), ...lines);
    }

    radius.addEventListener("input", () => { toEnd(); draw(); });
    step.addEventListener("input", draw);
    toEnd();
    draw();
  }

  explorers.register("ball", ball);
})();
