"""What the user reads of a run: the commands behind tox, the table, and the page of the site.

It is a plugin of asv, too: `"plugins": [".report"]` in asv.conf.json.
"""


def setup() -> None:
    """Add what is here to asv: the page, results on own images kept apart, malformed ones left out.

    asv calls this when it loads the plugin.
    """
    # Not before: what else is here runs where asv is not installed.
    from report import own_images, results
    from report.page import compare  # noqa: F401, asv finds the class by its base

    results.leave_out_unusable()
    own_images.keep_apart()
