"""Write the progress, the table, report.json and report.html of a benchmark, without measuring. `bench.cli`
imports this package.
"""
