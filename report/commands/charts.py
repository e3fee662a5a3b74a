"""Fill the tables and draw the pictures of docs/: what `tox run -e charts` runs.

python -m report.commands.charts
"""

from report.docs import charts, tables

if __name__ == "__main__":
    tables.main()
    charts.main()
