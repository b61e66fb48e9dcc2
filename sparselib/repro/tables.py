"""Tables for figures and verdicts from the tidy rows: one line per network, one column per measure.

Works on rows alone, those just computed as well as published ones: no data set and no network is needed.
"""

import pandas as pd

from sparselib.repro import measurements

# What tells one network from another within a figure.
NETWORK = ["width", "training", "epochs", "recipe", "sparsity", "seed"]
ENSEMBLE = ["training", "recipe", "sparsity", "members", "seed"]
FAMILIES = {"aa": "attacks", "ds": "shifts", "ood": "outliers"}
METRICS = {"auroc": "AUROC", "aupr_ood": "AUPR", "fpr95_ood": "FPR95"}
SUFFIXES = {"auroc": "", "aupr_ood": ", AUPR", "fpr95_ood": ", 100 − FPR95"}


def families(p):
    """Return the names of the families of anomalies that the parameters ask for: "attacks", "shifts", "outliers"."""
    asked = {measurements.family(anomaly) for anomaly in p.anomalies}
    return [name for key, name in FAMILIES.items() if key in asked]


def measures(rows, metrics=("auroc",)):
    """Return a table of percentages: one line per network (index NETWORK), one column per measure.

    "clean", "PGD linf 0.1", "FGSM …", "AutoAttack …", "shifts, mean" and "shifts, worst" are accuracies;
    "<detector>, attacks", "…, shifts" and "…, outliers" are AUROCs, means over the anomalies of the family. With the
    other `metrics` there are also "…, outliers, AUPR" and "…, outliers, 100 − FPR95": more is better everywhere.
    """
    named = rows.assign(measure=None)
    accuracy = named["metric"] == "accuracy"
    named.loc[accuracy & (named["task"] == "classification"), "measure"] = "clean"
    attacked = accuracy & (named["task"] == "attack")
    named.loc[attacked, "measure"] = named.loc[attacked, "condition"].map(attack_name)
    found = [named[named["measure"].notna()].groupby([*NETWORK, "measure"])["value"].mean().unstack()]
    shifted = named[accuracy & (named["task"] == "shift")].groupby(NETWORK)["value"]
    if len(shifted):
        found.append(shifted.agg(["mean", "min"]).set_axis(["shifts, mean", "shifts, worst"], axis=1))
    for metric in metrics:
        detected = named[(named["metric"] == metric) & named["task"].isin(FAMILIES)]
        if not len(detected):
            continue
        what = detected["detector"] + ", " + detected["task"].map(FAMILIES) + SUFFIXES[metric]
        value = 1 - detected["value"] if metric == "fpr95_ood" else detected["value"]
        found.append(detected.assign(what=what, value=value).groupby([*NETWORK, "what"])["value"].mean().unstack())
    table = 100 * pd.concat([table for table in found if len(table)], axis=1)
    first = ["clean", "FGSM", "PGD", "AutoAttack"]
    return table[sorted(table, key=lambda m: next((i for i, f in enumerate(first) if m.startswith(f)), len(first)))]


def attack_name(condition):
    """Return "PGD linf 0.1" for the condition "pgd linf 0.1"."""
    attack, rest = condition.split(" ", 1)
    return {"pgd": "PGD", "fgsm": "FGSM", "autoattack": "AutoAttack"}[attack] + " " + rest


def same_width(p, rows):
    """Return the rows of the dense networks of the figure's width, and of the sparse ones; all trained equally long."""
    own = rows[(rows["width"] == p.width) & (rows["training"] == "standard")]
    sparse = own["recipe"].isin(p.recipes) & own["sparsity"].isin(p.sparsities) & (own["epochs"] == p.epochs)
    return _usual_radii(p, own[sparse | _dense(p, own)])


def _usual_radii(p, rows):
    """Return the rows without those of attacks that only the closer look has."""
    if not hasattr(p, "eps_linf"):
        return rows
    return rows[(rows["task"] != "attack") | rows["condition"].isin(_conditions(p.eps_linf, p.eps_l2))]


def _conditions(linf, l2):
    """Return the conditions of FGSM and PGD at these radii."""
    return {f"{a} linf {e:g}" for a in ("fgsm", "pgd") for e in linf} | {f"pgd l2 {e:g}" for e in l2}


def closer(p, rows):
    """Return {network, norm, eps, attack, value} in long form: accuracy in percent over the radius, of the dense
    network and of the sparse one of the closer look. At radius 0 it is the clean accuracy."""
    own = rows[(rows["width"] == p.width) & (rows["training"] == "standard") & (rows["metric"] == "accuracy")]
    sparse = (own["recipe"] == p.recipes[0]) & (own["sparsity"] == p.autoattack_sparsity) & (own["epochs"] == p.epochs)
    part = own[sparse | _dense(p, own)]
    part = part.assign(network=part["recipe"], value=100 * part["value"])
    clean = part[part["task"] == "classification"].assign(eps=0.0)
    attacked = part[part["condition"].isin(_conditions(p.curve_linf, p.curve_l2))]
    attacked = attacked.assign(
        **attacked["condition"].str.split(expand=True).set_axis(["attack", "norm", "eps"], axis=1)
    )
    attacked = attacked.astype({"eps": float})
    ways = attacked[["attack", "norm"]].drop_duplicates().itertuples(index=False)
    starts = [clean.assign(attack=attack, norm=norm) for attack, norm in ways]
    return pd.concat([*starts, attacked], ignore_index=True)[["network", "norm", "attack", "eps", "seed", "value"]]


def _dense(p, rows):
    return (rows["recipe"] == "dense") & (rows["epochs"] == p.epochs + p.finetune_epochs)


def same_size(p, rows):
    """Return the rows of the narrow dense networks and of the wide ones, pruned to their sizes; column `weights`.

    Raises ValueError when a wide network has no narrow partner.
    """
    own = rows[rows["training"] == "standard"]
    wide = (own["width"] == p.wide_width) & (own["recipe"] == "magnitude after") & (own["epochs"] == p.epochs)
    wide &= ~own["sparsity"].isin(p.sparsities)
    dense = _dense(p, own) & own["width"].isin([*p.narrow_widths, p.wide_width])
    part = own[wide | dense]
    sizes = part[part["metric"] == "weights"].drop_duplicates(NETWORK).set_index(NETWORK)["value"]
    known = sorted(sizes[sizes.index.get_level_values("recipe") == "dense"].unique())

    def partner(size):  # a kept weight may happen to be 0
        nearest = min(known, key=lambda n: abs(n - size), default=0)
        if abs(nearest - size) > 0.001 * size:
            raise ValueError(f"no dense network has about {size:g} weights, the size of a sparse one (there: {known})")
        return nearest

    return _usual_radii(p, part.join(sizes.map(partner).rename("weights"), on=NETWORK))


def noisy_labels(p, rows):
    """Return the rows of the networks trained on noisy labels, with the column `name` for what each is."""
    part = rows[rows["training"].str.contains("noisy labels")]

    def name(row):
        if row["recipe"] != "dense":
            return f"{row['recipe']} {row['sparsity']:g}"
        if row["width"] != p.noisy_width:
            return "narrow"
        if "weight decay" in row["training"]:
            return "weight decay"
        return "dense" if row["epochs"] == p.noisy_epochs else "fewer epochs"

    return part.assign(name=part.apply(name, axis=1))


def by_name(rows, chosen):
    """Return {NETWORK…, name, measure, value} in long form for drawing, the names in the order of the rows."""
    names = rows.drop_duplicates(NETWORK).set_index(NETWORK)["name"]
    long = measures(rows)[chosen].melt(ignore_index=False, var_name="measure", value_name="value")
    long = long.join(names).reset_index().dropna(subset="value")
    order = list(rows["name"].unique())  # the dense network and the controls first
    return long.sort_values("name", key=lambda name: name.map(order.index), kind="stable")


def lines(table, chosen):
    """Return {NETWORK…, measure, value} in long form for drawing: the dense network begins the line of every recipe."""
    long = table[chosen].melt(ignore_index=False, var_name="measure", value_name="value").dropna().reset_index()
    dense = long[long["recipe"] == "dense"]
    recipes = long.loc[long["recipe"] != "dense", "recipe"].unique()
    return pd.concat([long[long["recipe"] != "dense"], *(dense.assign(recipe=r) for r in recipes)], ignore_index=True)


def masks(rows, wanted, sparsity):
    """Return {network, measure, value} in long form: the dense networks and those masked to one sparsity, by name."""
    table = measures(rows)
    index = table.index
    dense = (index.get_level_values("recipe") == "dense") & (index.get_level_values("epochs") > 0)
    part = table[dense | (index.get_level_values("sparsity") == sparsity)]
    long = part[wanted].melt(ignore_index=False, var_name="measure", value_name="value").dropna().reset_index()
    plain = {"mask magnitude": "magnitude", "mask random": "random"}

    def name(recipe):
        base, _, batch_norm = recipe.partition(", batch norm")
        word = plain.get(base, base.replace("mask ", "learnt: ").replace(" of untrained weights", ", untrained"))
        return word + (", restated" if batch_norm else "")

    order = ("dense", "learnt", "magnitude", "random")
    long = long.assign(network=long["recipe"].map(name))
    rank = long["network"].map(
        lambda n: (order.index(n.partition(",")[0].partition(":")[0]), "untrained" in n, "restated" in n)
    )
    return long.assign(rank=rank).sort_values(["measure", "rank"], key=_in_order(wanted), kind="stable")


def _in_order(wanted):
    return lambda column: column.map(wanted.index) if column.name == "measure" else column


def ensembles(rows):
    """Return a table of the Ensembled rows: one line per ensemble or single network, one column per measure.

    "clean", "PGD …" and AUROCs "msp, attacks" … in percent; "macs", "params", "seconds" as are.
    """
    part = rows[rows["members"].notna()]
    score = part["condition"].str.partition(" on ")[0]
    what = part["metric"].where(part["metric"] != "auroc", score + ", " + part["task"].map(FAMILIES))
    attacked = (part["metric"] == "accuracy") & (part["task"] == "attack")
    what = what.mask(part["metric"] == "accuracy", "clean").mask(attacked, part["condition"][attacked].map(attack_name))
    table = part.assign(what=what).groupby([*ENSEMBLE, "what"])["value"].mean().unstack()
    percent = [c for c in table.columns if c not in ("macs", "params", "seconds", "peak_bytes")]
    table[percent] *= 100
    return table


def certificates(rows):
    """Return a table of the Certified rows: index NETWORK, "certified", "accuracy", "abstained" in percent; what a
    certificate costs, "macs" and "seconds", as are."""
    part = rows[(rows["task"] == "certificate") | (rows["condition"] == "certificate")]
    table = part.groupby([*NETWORK, "metric"])["value"].mean().unstack()
    table[["certified", "accuracy", "abstained"]] *= 100
    return table


def by_cost(table, chosen):
    """Return a table in long form for drawing: columns method, measure, value, and the index and costs of the table.

    The dense network begins two lines, that of the shrunk ones and that of the ones from scratch.
    """
    long = table.reset_index().melt(
        [*table.index.names, *(c for c in ("macs", "seconds") if c in table)],
        [c for c in chosen if c in table], "measure", "value",
    ).dropna(subset="value")  # fmt: skip
    dense, scratch = long["recipe"] == "dense", long["recipe"] == "from scratch"
    lines = [(long[~scratch], "shrunk")]
    if scratch.any():
        lines.append((long[dense | scratch], "from scratch"))
    found = pd.concat([part.assign(method=name) for part, name in lines], ignore_index=True)
    if "members" in found:
        how = found["members"].map(lambda m: f"ensemble of {m:g}" if m > 1 else "one")
        found["method"] = how + ", " + found["method"]
        found = found.sort_values(["members", "method"], ascending=[True, False], kind="stable")
    return found


def detectors_by_cost(rows):
    """Return the AUROC in percent and the seconds of each detector: NETWORK, detector, measure, value, seconds."""
    own = rows[rows["members"].isna() & rows["detector"].notna()]
    seconds = own[own["condition"] == "score"].groupby([*NETWORK, "detector"])["value"].mean().rename("seconds")
    part = own[own["metric"] == "auroc"].assign(measure=own["task"].map(FAMILIES))
    value = 100 * part.groupby([*NETWORK, "detector", "measure"], sort=False)["value"].mean()
    return value.reset_index().join(seconds, on=[*NETWORK, "detector"]).dropna(subset="seconds")


def finished(rows):
    """Return the rows without those of dense networks that only served to be pruned: they trained for less."""
    dense = rows["recipe"] == "dense"
    return rows[~dense | (rows["epochs"] == rows.loc[dense, "epochs"].max())]


def networks_made(rows):
    """Return the seconds it took to make each network: index [training, recipe, sparsity, seed], "own" and "all".

    A shrunk network needs a dense one, and the pruning and training on of it; "all" counts them, too.
    """
    index = ["training", "epochs", "recipe", "sparsity", "seed"]
    part = rows[rows["metric"] == "weights"].drop_duplicates("key")
    flat = part.groupby(index)["seconds"].first().rename("own").reset_index()
    own = flat.set_index(index)["own"]
    (cut,) = flat.loc[flat["recipe"].str.endswith(" units"), "recipe"].unique()

    def total(net):
        if not net["recipe"].endswith(" shrunk"):
            return net["own"]
        training, epochs, seed = net["training"], net["epochs"], net["seed"]
        return (
            net["own"] + own[training, epochs, "dense", 0.0, seed] + own[training, epochs, cut, net["sparsity"], seed]
        )

    made = finished(flat.assign(all=flat.apply(total, axis=1)))
    return made.set_index(["training", "recipe", "sparsity", "seed"])


def hardened(rows):
    """Return `measures` of the networks trained on attacked inputs, by the stronger of both losses, and "macs"."""
    part = finished(rows[rows["training"].str.startswith("adversarial")])
    macs = part[(part["metric"] == "macs") & (part["members"] == 1)].groupby(NETWORK)["value"].mean()
    return measures(part[part["members"].isna()]).assign(macs=macs)
