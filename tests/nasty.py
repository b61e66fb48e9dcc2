"""Texts that do something where they are taken for markup, formulae, commands or numbers."""

FILES = [  # can be names of folders
    "7 <script>document.title='run'<", "<img src=x onerror=alert(1)>", "$x$", r"$\frac{", r"\(y\)", "`a` ``b",
    "{{ x }}", "{doc}`x`", "a|b", "\"q\" 'r'", "**b** _i_", "&lt;&amp;", "[z](javascript:alert(2))", "--set x",
    "= # %1", "ünï 猫",
]  # fmt: skip
FILES_SORTED = sorted(FILES)
UNSEEN = ["\x1b[31mred", "a\0b", "l\nm", "\u202egnp", "\u2066x", "\x07", "a\rb", "\u2028", "\udcff"]
ALL = [*FILES, "</script><script>alert(3)</script>", *UNSEEN, "", "x" * 500]

INF, NAN = float("inf"), float("nan")
VALUES = [  # for parameters
    *(INF, -INF, NAN, "inf", ".inf", "nan", 0, -0.0, -1, 1, 1.0, 1.5, True, False, "true", "1", "1e-3", "٣", "1_000"),
    *(10**7, 10**9, 2**63, 10**400, 1e30, 1e300, 5e-324, "", " ", "a\0b", "\x1b[31m", "\u202e", "\ud800", "x" * 10**5),
    *("#", "../..", "/", "~", ":", "x:", [], [[]], [1, 1], [0.5, 0.5], [0.0, -0.0], [True], [None], [NAN], [INF]),
    *([""], ["a", "a"], list(range(10**5)), ["msp"] * 10**5, [i / 10**4 for i in range(10**4)], {}, {"a": 1}, {1: 2}),
    *(
        set(),
        (),
        (1,),
        b"x",
        object(),
        "[",
        "[1",
        "{",
        "[[[]]]",
        "[&a 1, *a]",
        "[!!set {1}]",
        "null",
        "yes",
        "-0",
        "+1",
    ),
]
FIELDS = (  # one of each kind
    *("profile", "dataset", "held_out", "train_limit", "network", "width", "epochs", "batch_size", "precision", "seed"),
    *("augment", "seeds", "sparsity", "eps", "sparsities", "eps_l2", "recipe", "recipes", "detectors", "anomalies"),
    *("shifts", "delta", "figures", "rounds", "lr", "members", "narrow_widths", "scratch_sparsities", "label_noise"),
)
