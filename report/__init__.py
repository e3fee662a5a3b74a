"""What the user reads of a run: the commands behind tox, the table, and the page of the site.

It is a plugin of asv, too: `"plugins": [".report"]` in asv.conf.json.
"""


def setup() -> None:
    """Add the page to what `asv publish` makes, and have asv survive a malformed file of results.

    asv calls this when it loads the plugin.
    """
    # Not before: what else is here runs where asv is not installed.
    from report import results
    from report.page import compare  # noqa: F401, asv finds the class by its base

    results.leave_out_unusable()
