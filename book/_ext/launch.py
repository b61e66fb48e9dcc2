"""Links that open a page's notebook on Binder and Colab: from one address, and none while it is not set.

`companion_url` in _config.yml: the address of the repository on GitHub, such as https://github.com/owner/name.
"""

SERVICES = {"binderhub_url": "https://mybinder.org", "colab_url": "https://colab.research.google.com"}


def setup(app):
    app.add_config_value("companion_url", "", "html", [str])
    app.connect("config-inited", _configure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _configure(app, config):
    url = config.companion_url.rstrip("/")
    if not url:
        return
    if not url.startswith("https://github.com/"):
        raise ValueError(f"companion_url must be https://github.com/owner/name or empty, got {config.companion_url!r}")
    config.html_theme_options = {
        **config.html_theme_options, "repository_url": url, "repository_branch": "main", "path_to_docs": "",
        "launch_buttons": {**SERVICES, "notebook_interface": "jupyterlab"},
    }  # fmt: skip
