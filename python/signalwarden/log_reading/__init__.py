"""Reading the decision log: which records, what each tells, what many tell together, and what would have been."""
