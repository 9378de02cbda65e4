"""Trials, cells and predictions of a study: `reader` for everyone, `ledger` for the one run that writes."""
