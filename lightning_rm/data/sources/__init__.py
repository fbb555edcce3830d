"""Where rows come from: files, memory, the hub, and sources of sources."""
