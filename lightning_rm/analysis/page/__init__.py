"""One page of text, tables, figures and examples, as HTML that needs nothing else and as Markdown. It knows no run."""
