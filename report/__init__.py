"""The commands that tox runs, the tables in the terminal, and the page that the site gets.

This package is also a plugin of asv: `"plugins": [".report"]` in asv.conf.json.
"""

import gc


def setup() -> None:
    """Make asv publish the page, keep results on own images apart, and leave out malformed ones.

    asv calls this when it loads the plugin.
    """
    # asv publish keeps millions of figures, none of them in a cycle. Python looks for cycles after
    # every 700 objects, which was a fifth of the work of asv's main process.
    gc.set_threshold(100_000)
    # Imported only here: other modules of this package run where asv is not installed.
    from report import own_images, results
    from report.page import compare  # noqa: F401, asv finds the class by its base

    results.leave_out_unusable()
    own_images.keep_apart()
