"""Analysis of results: tables, comparisons, plots and reports of finished run folders."""
