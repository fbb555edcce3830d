"""The sections of the report on runs, a file each: from a study to what stands on the page."""
