"""Pictures of the page that compares backends, to look at.

python -m tests.browser.screenshots SITE DIRECTORY
"""

import sys
from pathlib import Path

from tests.browser.visit import Visits, chromium

WIDTHS = {1280: 800, 390: 844}  # pixels: a desk's, and a phone's


def main(site: Path, directory: Path) -> list[str]:
    """Write the first screen and the whole page, for each width, light and dark.

    Returns
    -------
    list of str
        What went wrong in the page.
    """
    directory.mkdir(parents=True, exist_ok=True)
    problems = []
    with chromium() as browser:
        for width, height in WIDTHS.items():
            for scheme in ("light", "dark"):
                visits = Visits(browser)
                page = visits.open(
                    site,
                    "compare.html",
                    viewport={"width": width, "height": height},
                    color_scheme=scheme,
                    reduced_motion="reduce",
                )
                page.wait_for_selector("html:not([data-state=loading])")
                name = f"compare-{width}-{scheme}"
                page.screenshot(path=directory / f"{name}.png")
                page.screenshot(path=directory / f"{name}-whole.png", full_page=True)
                visits.close()
                print(*(directory / f"{name}{part}.png" for part in ("", "-whole")), sep="\n")
                problems += visits.problems
    return problems


if __name__ == "__main__":
    sys.exit("\n".join(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))) or None)
