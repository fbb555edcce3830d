"""Row formats: from the fields of one row to a pair or a group of responses."""
