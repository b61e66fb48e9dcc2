// One network at several sparsities: its masks as pixels, its accuracy, the bytes of its weights.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;
  const whole = (n) => n.toLocaleString("en-US");

  // data: {sparsities: [..], start: index, dense: accuracy, cut: [..], trained: [..], chance,
  //   layers: [{name, rows, columns, all: [rows, columns], last: "0426…"}], kept: [[weights a layer] a sparsity], size: [..],
  //   bytes: {way: [a sparsity]}, image: {side, channels, pixels, name, cut: [[class, probability]..], trained: [..]}}
  // last: for each weight drawn, at how many of the sparsities it stays; they grow, so these are the first ones.
  function sparsity(root, data) {
    const all = "all layers", names = data.layers.map((l) => l.name);
    const slider = make("input", { type: "range", min: 0, max: data.sparsities.length - 1, value: data.start });
    let shown = all;
    const stage = make("div", { class: "masks" }), plots = make("div", { class: "plots" });
    const told = make("p", { "aria-live": "polite", class: "told" });
    root.append(control("Sparsity", slider), choice("Weights of", [all, ...names], (n) => { shown = n; draw(); }), stage, plots, told);
    const largest = Math.max(...data.layers.map((l) => l.columns));

    function mask(layer, at, wide) {
      const { rows, columns } = layer;
      const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": `weights of ${layer.name} that stay` });
      canvas.style.width = `${wide}%`;
      canvas.style.aspectRatio = `${columns} / ${rows}`;
      const context = canvas.getContext("2d"), raw = context.createImageData(columns, rows);
      for (let i = 0; i < rows * columns; i++) if (Number(layer.last[i]) > at) raw.data.set([1, 115, 178, 255], 4 * i);
      context.putImageData(raw, 0, 0);
      return canvas;
    }

    function masks(at) {
      const some = data.layers.filter((l) => shown === all || l.name === shown);
      stage.replaceChildren(...some.map((l) => {
        const i = data.layers.indexOf(l), part = l.rows < l.all[0] || l.columns < l.all[1];
        const says = `${l.name}: ${whole(data.kept[at][i])} of ${whole(data.size[i])} stay` +
          (part ? ` (drawn: ${l.rows} × ${l.columns} of ${l.all[0]} × ${l.all[1]})` : "");
        const wide = shown === all ? 100 * l.columns / largest : Math.min(100, 100 * 24 * l.columns / 640);
        return make("figure", {}, mask(l, at, Math.max(wide, 4)), make("figcaption", {}, says));
      }));
    }

    function accuracy(at) {
      const w = 300, h = 190, left = 34, bottom = 148, n = data.sparsities.length;
      const x = (i) => left + 8 + (i * (w - left - 20)) / (n - 1), y = (v) => 8 + (bottom - 8) * (1 - v);
      const view = make("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "Accuracy against sparsity, right after the cut and trained on" });
      view.append(make("path", { class: "axis", d: `M${left} 8V${bottom}H${w}` }));
      for (const v of [0, 0.5, 1]) view.append(make("text", { x: left - 4, y: y(v) + 4, "text-anchor": "end" }, String(100 * v)));
      view.append(make("path", { class: "chance", d: `M${left} ${y(data.chance)}H${w}` }));
      for (const [kind, values] of [["trained", data.trained], ["cut", data.cut]]) {
        view.append(make("path", { class: `line ${kind}`, d: values.map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`).join("") }));
        view.append(make("circle", { class: `point ${kind}`, cx: x(at), cy: y(values[at]), r: 5 }));
      }
      view.append(make("line", { class: "mark", x1: x(at), x2: x(at), y1: 8, y2: bottom }));
      data.sparsities.forEach((s, i) => {
        if (i === at || (Math.abs(i - at) > 1 && (i === 0 || i === n - 1))) view.append(make("text", { x: x(i), y: bottom + 15, "text-anchor": "middle" }, String(s)));
      });
      view.append(make("text", { x: left, y: h - 6 }, "accuracy in %: — trained on, - - after the cut"));
      return view;
    }

    function bytes(at) {
      const w = 300, h = 190, ways = Object.entries(data.bytes), most = Math.max(...ways.flatMap(([, v]) => v));
      const view = make("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "Bytes of the weights, stored in three ways" });
      ways.forEach(([way, values], i) => {
        const top = 8 + 54 * i;
        view.append(make("text", { x: 0, y: top + 11 }, `${way}: ${whole(values[at])} bytes`));
        view.append(make("rect", { class: i ? "id" : "ood", x: 0, y: top + 17, width: (w * values[at]) / most, height: 18 }));
      });
      view.append(make("text", { x: 0, y: h - 6 }, "storage of the weights"));
      return view;
    }

    function picture(image) {
      const { side, channels } = image;
      const canvas = make("canvas", { width: side, height: side, role: "img", "aria-label": "the image that is asked about" });
      const context = canvas.getContext("2d"), raw = context.createImageData(side, side), n = side * side;
      for (let i = 0; i < n; i++) raw.data.set([0, 1, 2].map((c) => image.pixels[(c % channels) * n + i]).concat(255), 4 * i);
      context.putImageData(raw, 0, 0);
      return make("figure", { class: "asked" }, canvas, make("figcaption", {}, image.name));
    }

    function draw() {
      const at = Number(slider.value), sum = (values) => values.reduce((a, b) => a + b, 0);
      const said = ([name, p]) => `${name} (${percent(p)})`;
      masks(at);
      plots.replaceChildren(accuracy(at), bytes(at), picture(data.image));
      slider.setAttribute("aria-valuetext", String(data.sparsities[at]));
      const stored = Object.entries(data.bytes).map(([way, values]) => `${way} ${whole(values[at])}`).join(", ");
      told.textContent = `Sparsity ${data.sparsities[at]}: ${whole(sum(data.kept[at]))} of ${whole(sum(data.size))} weights stay. ` +
        `Accuracy: dense ${percent(data.dense)}, right after the cut ${percent(data.cut[at])}, trained on ${percent(data.trained[at])}. ` +
        `Bytes of the weights: ${stored}. ` +
        `${data.image.name} is read as ${said(data.image.cut[at])} after the cut, as ${said(data.image.trained[at])} trained on.`;
    }
    slider.addEventListener("input", draw);
    draw();
  }

  explorers.register("sparsity", sparsity);
})();
