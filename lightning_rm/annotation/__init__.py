"""Annotation: many voters score a data set, and their votes are written as its preference strengths."""
