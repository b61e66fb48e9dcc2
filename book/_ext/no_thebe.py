"""Keep the scripts of sphinx-thebe, which Jupyter Book always adds, off the pages: they point to a CDN."""


def setup(app):
    app.connect("html-page-context", _drop, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _drop(app, pagename, templatename, context, doctree):
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in str(getattr(script, "filename", script)).lower()
        and "THEBE" not in str(getattr(script, "attributes", {}).get("body", ""))
    ]
