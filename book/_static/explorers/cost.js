// What a pattern of zeros saves: multiplications, bytes and time, relative to the dense network.
"use strict";

(() => {
  const { make, control, choice, percent } = explorers;

  // data: {dense: {multiplications, bytes, time: texts, accuracy}, kinds: {name: [{sparsity, accuracy, shares: {measure: share}}]},
  //        start: [kind, sparsity], fell: the share below which a measure counts as fallen}
  function cost(root, data) {
    const names = Object.keys(data.kinds), measures = Object.keys(data.kinds[names[0]][0].shares);
    const most = Math.max(1.25, ...names.flatMap((n) => data.kinds[n].flatMap((row) => Object.values(row.shares))));
    let [kind, wanted] = data.start;
    const slider = make("input", { type: "range", min: 0, step: 1 });
    const select = choice("What goes", names, (n) => { kind = n; load(); draw(); });
    select.querySelector("select").value = kind;
    const bars = make("div", { class: "bars" }), told = make("p", { "aria-live": "polite", class: "told" });
    root.append(select, control("Sparsity", slider), bars, told);

    function load() { // the sparsity of this kind that is nearest to the one that was wanted
      const gaps = data.kinds[kind].map((row) => Math.abs(row.sparsity - wanted));
      slider.max = gaps.length - 1;
      slider.disabled = gaps.length < 2;
      slider.value = gaps.indexOf(Math.min(...gaps));
    }

    function bar(name, share) {
      const fill = make("span", { class: `fill${share < data.fell ? " fell" : ""}`, style: `width: ${(100 * share) / most}%` });
      const dense = make("span", { class: "dense", style: `left: ${100 / most}%` });
      const track = make("div", { class: "track", "aria-hidden": "true" }, fill, dense);
      return make("div", { class: "bar" }, make("span", {}, name), make("span", { class: "share" }, percent(share)), track);
    }

    const list = (words) => words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0] ?? "nothing";
    function draw() {
      const row = data.kinds[kind][slider.value];
      bars.replaceChildren(...measures.map((m) => bar(m, row.shares[m])), make("p", { class: "key" }, `The upright line is the dense network. Blue: fell below ${Math.round(100 * data.fell)} % of it.`));
      const fell = measures.filter((m) => row.shares[m] < data.fell), stayed = measures.filter((m) => row.shares[m] >= data.fell);
      const alone = data.kinds[kind].length < 2 ? " (this pattern has one sparsity)" : "";
      told.textContent = `${kind[0].toUpperCase()}${kind.slice(1)}, sparsity ${row.sparsity}${alone}. Fell: ` +
        `${list(fell.map((m) => `${m} (to ${percent(row.shares[m])} of ${data.dense[m]})`))}. Did not fall: ` +
        `${list(stayed.map((m) => `${m} (${percent(row.shares[m])})`))}. ` +
        `Accuracy ${percent(row.accuracy)}, dense ${percent(data.dense.accuracy)}.`;
      slider.setAttribute("aria-valuetext", String(row.sparsity));
    }
    slider.addEventListener("input", () => { wanted = data.kinds[kind][slider.value].sparsity; draw(); });
    load();
    draw();
  }

  explorers.register("cost", cost);
})();
