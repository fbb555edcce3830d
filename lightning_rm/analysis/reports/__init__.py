"""Reports: the figures and tables of one question, written to a folder."""
