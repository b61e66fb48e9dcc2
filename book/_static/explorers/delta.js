// Endpoints and a movable δ.
"use strict";

(() => {
  const { make, control } = explorers;

  // data: {delta, most, ends: [{name, scale, mean, low, high, fixed}]}; fixed: an outcome that no δ changes, or null
  function delta(root, data) {
    const slider = make("input", { type: "range", min: 0, max: data.most, step: 0.1, value: data.delta });
    const columns = ["scale", "difference", "outcome"];
    const head = make("tr", {}, ...columns.map((n) => make("th", { scope: "col" }, n)));
    // One body for each endpoint, under its name: side by side, name and outcome do not fit on a phone.
    const bodies = new Map(data.ends.map((e) => [e.name, make("tbody", {})]));
    const told = make("p", { "aria-live": "polite", class: "told" });
    root.append(control("δ, in points", slider), make("table", {}, make("thead", {}, head), ...bodies.values()), told);

    function outcome(e, d) {
      if (e.fixed) return e.fixed;
      if (e.low > 0) return e.high < d ? "better by less than δ" : "better";
      if (e.high < 0) return e.low > -d ? "worse by less than δ" : "worse";
      return e.low > -d && e.high < d ? "equal" : "open";
    }

    const rounded = (v) => v.toFixed(1).replace(/^-0\.0$/, "0.0");
    const signed = (v) => (rounded(v)[0] === "-" ? "" : "+") + rounded(v);
    function draw() {
      const d = Number(slider.value);
      for (const [name, body] of bodies) {
        const lines = data.ends.filter((e) => e.name === name).map((e) => {
          const cells = [e.scale, `${signed(e.mean)} [${rounded(e.low)}, ${rounded(e.high)}]`, outcome(e, d)];
          return make("tr", {}, ...cells.map((text) => make("td", {}, text)));
        });
        const title = make("th", { scope: "rowgroup", colspan: columns.length }, name);
        body.replaceChildren(make("tr", {}, title), ...lines);
      }
      slider.setAttribute("aria-valuetext", `${d.toFixed(1)} points`);
      told.textContent = `δ = ${d.toFixed(1)} points.`;
    }
    slider.addEventListener("input", draw);
    draw();
  }

  explorers.register("delta", delta);
})();
