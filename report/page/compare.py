"""The page compare.html, which shows the backends side by side, from the stored results.

asv calls `Compare.publish` when it has made its own site. The page works without a server: it loads
its data from scripts, such as one for each file of results.
"""

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterable, Mapping
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from asv.console import log
from asv.publishing import OutputPublisher

from report import changes
from report.page import figures, history
from report.page.charts import SECTIONS, Chart, names
from report.results import ENOUGH, Result, read_all
from report.workloads import FIRST, GROUPS, INSTRUCTIONS, used_in

STATIC = Path(__file__).parent / "static"
ANCHOR = '<li id="nav-li-regressions"><a href="#/regressions">Regressions</a></li>'
LINK = '<li id="nav-li-compare"><a href="compare.html">Compare backends</a></li>'


class Compare(OutputPublisher):  # type: ignore[misc]  # asv comes without type hints
    """Adds the page to asv's site."""

    name = "compare"
    button_label = "Compare backends"
    description = "Which backend for which workload"

    @classmethod
    def publish(
        cls,
        conf: Any,
        repo: Any,
        benchmarks: Mapping[str, Any],
        graphs: object,
        revisions: Mapping[str, int],
    ) -> None:
        """Make the page; if that fails, asv's own site is still complete.

        Parameters
        ----------
        conf, repo, benchmarks, graphs
            As asv gives them.
        revisions : dict
            The commits of the site.
        """
        site = Path(conf.html_dir)
        aside = site / "compare.new"
        try:
            results = (
                result
                for result in read_all(conf.results_dir, shown(benchmarks))
                # Not results of the calibration alone: a page that shows them would be empty.
                if result.commit in revisions and result.datasets
            )
            tags = {commit: tag for tag, commit in repo.get_tags().items()}
            build(aside, results, benchmarks, conf.project, tags, revisions)
            (aside / "compare.html").rename(site / "compare.html")
            aside.rename(site / "compare")
            link(site / "index.html")
        except Exception as error:  # asv has yet to write its index: a bug here must not stop it
            for made in (aside, site / "compare"):
                shutil.rmtree(made, ignore_errors=True)
            (site / "compare.html").unlink(missing_ok=True)
            cause = f"{type(error).__name__}: {error}"
            log.warning(f"The site has no compare.html, because making it failed: {cause}")


def shown(benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the benchmarks that the page needs: those it shows, their floors and plain code."""
    wanted = names()
    measured = [known for name, known in benchmarks.items() if name in wanted]
    wanted.update(floor for known in measured for floor in known.get("floors", {}).values())
    wanted.update(known["plain"] for known in measured if "plain" in known)
    wanted.add(INSTRUCTIONS)
    return {name: known for name, known in benchmarks.items() if name in wanted}


def link(index: Path) -> None:
    """Put the page into the navigation of asv's pages."""
    text = index.read_text(encoding="utf-8")
    if text.count(ANCHOR) != 1:
        log.warning(
            "asv's index.html has changed, so it got no link to compare.html: open compare.html "
            "itself, which is complete."
        )
        return
    new = index.with_suffix(".new")
    new.write_text(text.replace(ANCHOR, f"{ANCHOR}\n        {LINK}"), encoding="utf-8")
    new.replace(index)


def build(
    directory: Path,
    results: Iterable[Result],
    benchmarks: Mapping[str, Any],
    project: str,
    tags: Mapping[str, str],
    revisions: Mapping[str, int],
) -> None:
    """Write the page and its data into a new directory.

    Parameters
    ----------
    directory : Path
    results : iterable of Result
        The results of one machine and commit come one after another.
    benchmarks : dict
        What asv knows about them, by name.
    project : str
        The name of the project.
    tags : dict of str to str
        The tag of a commit, if it has one.
    revisions : dict of str to int
        The place of each commit in the history.
    """
    data = directory / "data"
    data.mkdir(parents=True)
    for path in STATIC.iterdir():
        shutil.copyfile(path, directory / path.name)
    library = plotly()
    if library is None:
        log.warning(
            "compare.html has tables but no charts, because plotly is missing: pip install plotly."
        )
    else:
        shutil.copyfile(library, directory / library.name)
    index = Index()
    parts: dict[tuple[str, str], list[Result]] = {}
    for _, group in groupby(results, key=lambda result: (result.machine, result.commit)):
        together = []
        for result in group:
            page = figures.page_of(result)
            index.add(result, page)
            together.append(result)
            parts.setdefault((result.machine, result.environment), []).append(history.part(result))
            write(data, page, result.machine, result.environment, result.commit)
        write(data, figures.versions_of(together), together[0].machine, together[0].commit)
    found = history.changed(chain.from_iterable(parts.values()), revisions)
    (directory / "changes.txt").write_text(
        "".join(f"{line}\n" for line in changes.text(found, tags)), encoding="utf-8"
    )
    listed = json.dumps(list(map(history.as_json, found)), indent=1, allow_nan=False)
    (directory / "changes.json").write_text(listed, encoding="utf-8")
    for (machine, environment), measured in parts.items():
        drawn = history.over_time(measured, found, index.places())
        write(data, drawn, machine, environment, "history")
    content = index.content(project, backends(benchmarks), tags)
    (data / "index.js").write_text(script("index", {**content, "plotly": library is not None}))


def plotly() -> Path | None:
    """Return the script that draws the charts, from the Python package plotly."""
    found = importlib.util.find_spec("plotly")
    for place in (found and found.submodule_search_locations) or ():
        path = Path(place, "package_data", "plotly.min.js")
        if path.exists():
            return path
    return None


# -- what the page loads -----------------------------------------------------------------------


def identity(*names: str) -> str:
    """Return the name of a file of data; a machine's name may not be the name of a file."""
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]


def script(key: str, content: Any) -> str:
    """Return data as a script, which a page can load without a server."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'(window.compareData ??= {{}})["{key}"] = {text};\n'


def write(data: Path, content: Any, *names: str) -> None:
    """Write the data of these names."""
    key = identity(*names)
    (data / f"{key}.js").write_text(script(key, content))


def backends(benchmarks: Mapping[str, Any]) -> list[str]:
    """Return the backends in the order in which the benchmarks name them."""
    written: dict[str, None] = {}
    for known in benchmarks.values():
        if known.get("param_names", [])[:1] == ["backend"]:
            written.update(dict.fromkeys(name.strip("'") for name in known["params"][0]))
    return list(written)


class Index:
    """What the reader of the page can choose from."""

    def __init__(self) -> None:
        self.commits: dict[str, int] = {}
        self.datasets: dict[str, None] = {}
        self.machines: dict[str, dict[str, Any]] = {}

    def add(self, result: Result, page: Mapping[str, Any]) -> None:
        """Add the results of a machine, an environment and a commit, and what is shown of them."""
        self.commits[result.commit] = result.date
        self.datasets.update(dict.fromkeys(result.datasets))
        machine = self.machines.setdefault(
            result.machine, {"hardware": result.hardware_line, "environments": {}}
        )
        environment = machine["environments"].setdefault(
            result.environment, {"versions": result.versions, "results": {}}
        )
        # For each dataset, how many charts have figures: the page opens where most of them do.
        environment["results"][result.commit] = {
            name: sum(map(bool, dataset["charts"].values()))
            for name, dataset in page["datasets"].items()
        }

    def places(self) -> dict[str, int]:
        """Return the place of each commit, the oldest first."""
        commits = sorted(self.commits, key=lambda commit: (self.commits[commit], commit))
        return {commit: position for position, commit in enumerate(commits)}

    def content(self, project: str, backends: list[str], tags: Mapping[str, str]) -> dict[str, Any]:
        """Return all choices for the page; the oldest commit is the first."""
        place = self.places()
        datasets = sorted(self.datasets)
        return {
            "project": project,
            "backends": backends,
            "datasets": datasets,
            "enough": ENOUGH,
            "workloads": rows(FIRST),
            "groups": [{**group._asdict(), "workloads": rows(group.id)} for group in GROUPS],
            "sections": [
                {
                    "id": section.id,
                    "title": section.title,
                    "charts": [described(chart) for chart in section.charts],
                }
                for section in SECTIONS
            ],
            "commits": [
                {"hash": commit, "date": self.commits[commit], "tag": tags.get(commit, "")}
                for commit in place
            ],
            "machines": [
                {
                    "name": name,
                    "hardware": machine["hardware"],
                    "files": {
                        str(place[commit]): identity(name, commit)
                        for environment in machine["environments"].values()
                        for commit in environment["results"]
                    },
                    "environments": [
                        {
                            "name": environment,
                            "history": identity(name, environment, "history"),
                            "versions": found["versions"],
                            "results": [
                                [
                                    place[commit],
                                    identity(name, environment, commit),
                                    {datasets.index(name): each for name, each in charts.items()},
                                ]
                                for commit, charts in found["results"].items()
                            ],
                        }
                        for environment, found in sorted(machine["environments"].items())
                    ],
                }
                for name, machine in sorted(self.machines.items())
            ],
        }


def rows(group: str) -> list[dict[str, str]]:
    """Return what the page says about the rows of a group."""
    return [
        {name: getattr(workload, name) for name in ("id", "title", "what", "unit")}
        for workload in used_in(group)
    ]


def described(chart: Chart) -> dict[str, Any]:
    """Return what the page says about a chart, without its figures."""
    words = {name: value for name, value in chart._asdict().items() if name != "sources"}
    words["against"] = chart.against and chart.against[1]
    return {**words, "benchmarks": [source.benchmark for source in chart.sources]}
