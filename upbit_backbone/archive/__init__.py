"""Read back what a sink kept, and know what is there: store ● answers, and has fetched what is missing."""
