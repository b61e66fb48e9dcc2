// Endpoints and a movable δ.
"use strict";

(() => {
  const { make, control } = explorers;

  // data: {delta, most, ends: [{name, scale, mean, low, high, fixed}]}; fixed: an outcome that no δ changes, or null
  function delta(root, data) {
    const slider = make("input", { type: "range", min: 0, max: data.most, step: 0.1, value: data.delta });
    function outcome(e, d) {
      if (e.fixed) return e.fixed;
      if (e.low > 0) return e.high < d ? "better by less than δ" : "better";
      if (e.high < 0) return e.low > -d ? "worse by less than δ" : "worse";
      return e.low > -d && e.high < d ? "equal within δ" : "open";
    }

    const rounded = (v) => v.toFixed(1).replace(/^-0\.0$/, "0.0");
    const signed = (v) => (rounded(v)[0] === "-" ? "" : "+") + rounded(v);
    const columns = ["scale", "difference", "outcome"];
    const head = make("tr", {}, ...columns.map((n) => make("th", { scope: "col" }, n)));
    // One body for each endpoint, under its name: side by side, name and outcome do not fit on a phone.
    const bodies = new Map(), cells = new Map();
    for (const e of data.ends) {
      const title = make("th", { scope: "rowgroup", colspan: columns.length }, e.name);
      if (!bodies.has(e.name)) bodies.set(e.name, make("tbody", {}, make("tr", {}, title)));
      const line = [e.scale, `${signed(e.mean)} [${rounded(e.low)}, ${rounded(e.high)}]`, ""].map((text) => make("td", {}, text));
      bodies.get(e.name).append(make("tr", {}, ...line));
      cells.set(e, line.at(-1));
    }
    const told = make("p", { "aria-live": "polite", class: "told" });
    root.append(control("δ, in points", slider), make("table", {}, make("thead", {}, head), ...bodies.values()), told);

    function draw() {
      const d = Number(slider.value);
      for (const [e, cell] of cells) cell.textContent = outcome(e, d);
      slider.setAttribute("aria-valuetext", `${d.toFixed(1)} points`);
      told.textContent = `δ = ${d.toFixed(1)} points.`;
    }
    slider.addEventListener("input", draw);
    draw();
  }

  explorers.register("delta", delta);
})();
