"""The commands that tox runs, the tables in the terminal, and the page that the site gets.

This package is also a plugin of asv: `"plugins": [".report"]` in asv.conf.json.
"""


def setup() -> None:
    """Make asv publish the page, keep results on own images apart, and leave out malformed ones.

    asv calls this when it loads the plugin.
    """
    # Imported only here: other modules of this package run where asv is not installed.
    from report import own_images, results
    from report.page import compare  # noqa: F401, asv finds the class by its base

    results.leave_out_unusable()
    own_images.keep_apart()
